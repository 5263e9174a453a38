"""Layers that are done, in a folder, so that an interrupted run goes on with the rest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import QuantizeError
from lpgen.plans import Precision
from lpgen.quantize.codes import Codes
from lpgen.quantize.weights import Quantized

if TYPE_CHECKING:
    from lpgen.quantize.calibration import Calibration


class Kept:
    """A folder with a file for each layer. settings: whatever else the codes depend on, as text.

    What belongs to another model, other data or settings is not found. Raises QuantizeError where
    the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: str) -> None:
        self.folder, self._settings = Path(folder), settings
        self._run = ""
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise QuantizeError(f"{folder}: {error.strerror}") from None

    def begin(self, calibration: Calibration) -> None:
        """The model and the data that layers are of."""
        found = hashlib.sha256(calibration.model.SerializeToString(deterministic=True))
        for call in calibration.calls:
            for name, array in sorted(call.items()):
                found.update(f"{name}{array.dtype}{array.shape}".encode())
                found.update(np.ascontiguousarray(array).view(np.uint8))
        self._run = found.hexdigest()

    def get(self, node: str, precision: Precision) -> tuple[Quantized, np.ndarray] | None:
        """A layer and the sample of its input, None where it is not done."""
        try:
            with np.load(self._path(node, precision), allow_pickle=False) as file:
                codes = Codes(
                    *(file["codes"], file["scale"], precision.weight, precision.weight_group)
                )
                numbers = float(file["error"]), int(file["rows"])
                return Quantized(codes, file["shift"], *numbers), file["sample"]
        except FileNotFoundError:
            return None

    def put(self, node: str, precision: Precision, made: Quantized, sample: np.ndarray) -> None:
        """A layer that is done: its file is there as a whole or not at all."""
        path = self._path(node, precision)
        arrays = {"codes": made.codes.codes, "scale": made.codes.scale, "shift": made.shift}
        numbers = {"error": made.error, "rows": made.rows}
        partial = path.with_suffix(".new")
        with open(partial, "wb") as file:
            np.savez(file, sample=sample, **arrays, **numbers)
        os.replace(partial, path)

    def remove(self) -> None:
        """The folder and what is in it."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)

    def _path(self, node: str, precision: Precision) -> Path:
        key = f"{self._run} {self._settings} {precision} {node}"
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
