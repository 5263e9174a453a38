"""Pictures of a table: the divergence of every variant of every group, by colour."""

from __future__ import annotations

import os

import numpy as np

from lpgen.sensitivity.table import Table

_CELL, _MARGIN = 0.28, 3.2
_LEAST, _MOST = 1e-6, 1.0


def draw(table: Table, path: str | os.PathLike[str]) -> None:
    """Draw groups as rows and variants as columns, blue where the outputs stay, red where they are
    lost. Needs matplotlib: raises ImportError without, OSError where `path` cannot be written."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    variants = table.variants
    values = np.full((len(table.rows), len(variants)), np.nan)
    for i, row in enumerate(table.rows):
        for j, variant in enumerate(variants):
            if variant in row.results:
                values[i, j] = np.clip(row.results[variant].divergence, _LEAST, _MOST)
    size = (_MARGIN + _CELL * len(variants), 1.6 + _CELL * len(table.rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, norm=LogNorm(_LEAST, _MOST), cmap="coolwarm", aspect="auto")
    axes.set_xticks(range(len(variants)), variants, rotation=90, fontsize=7)
    axes.set_yticks(range(len(table.rows)), [row.name[-40:] for row in table.rows], fontsize=7)
    axes.set_title(f"{table.model}: divergence of the outputs", fontsize=9)
    figure.colorbar(image, ax=axes)
    figure.savefig(path, dpi=130)
