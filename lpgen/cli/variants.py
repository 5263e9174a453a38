"""`lpgen bench --variants`: what the plans and numbers of bit layers of a network take."""

from __future__ import annotations

from pathlib import Path

from lpgen.cli import output


def bench(path: Path, given: tuple[str, ...], threads: int, as_json: bool) -> None:
    """Time them in turns, print them, and keep their times beside the library."""
    import numpy as np

    from lpgen.bench.measure import pinned
    from lpgen.network.examples import inputs_of, read_given
    from lpgen.runtime import load
    from lpgen.runtime.variants import path_of, variants_of

    library = load(path)
    some = inputs_of(library.network, np.random.default_rng(0), read_given(given))
    numbers = {name for variant in variants_of(library, None) for name in variant.numbers}
    tensors = {name: array for name, array in some.items() if name not in numbers}
    with pinned(threads) as cores:
        library.set_affinity(cores[:-1] or None)
        try:
            found = library.measure_variants(tensors, threads=threads)
        finally:
            library.set_affinity(None)
    if as_json:
        for v in found:
            output.print_json({"plan": v.plan, "layers": v.layers, "us": v.seconds * 1e6})
        return
    output.print_table(
        ("variant", ">us"), [(v.name, output.microseconds(v.seconds)) for v in found]
    )
    output.note(f"{path_of(library)} keeps them: load(...).variants().within(SECONDS)")
