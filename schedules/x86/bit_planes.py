"""Activations to bit planes, as vector code in place of the stage "encode".

A plane of some bytes is one comparison of a vector (vptestmb, or a shift and vpmovmskb), whose
result is a word or several. The elements of neighbouring k groups and planes are neighbours, so
that a shuffle of those masks' bytes makes vectors of them.
"""

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.bitserial import ELEMENT
from lpgen.schedules.x86 import vectors as vec
from lpgen.schedules.x86.isa import Isa
from lpgen.schedules.x86.microkernel import Site


def emit_planes(isa: Isa, word: int, low: int):
    """The function that emits the planes from `low` on, for `replace_encode`; words of `word`
    bits, repeated through 32-bit elements."""
    widest = max(32, isa.bits // 8)

    def emit(site: Site, count: int) -> None:
        # Its elements are one vector, whose last axis is the plane: the vector goes on into the
        # next k groups. The buffer must be known to reach that far.
        step = widest // word
        planes = int(site.target.buffer.shape[-1])
        source = next(iter(site.sources.values()))
        masks = vec.scratch((planes,), f"uint{widest}")

        def chunk(kg, groups: int) -> None:
            values = groups * word
            x = vec.bind(vec.load(source.buffer, source.at(kg=kg), values))
            mask = masks if values == widest else vec.scratch((planes,), f"uint{values}")
            for p in range(planes):
                bit = x & vec.splat(1 << p + low, "uint8", values)
                is_set = tirx.NE(bit, vec.splat(0, "uint8", values)).astype(f"uint1x{values}")
                tb.buffer_store(mask, vec.reinterpret(f"uint{values}", is_set), [p])
            _store_elements(site, kg, mask, planes, groups, word)

        whole, rest = divmod(count, step)
        if whole:
            with tb.serial(0, whole) as i:
                chunk(i * step, step)
        done = whole * step
        while rest:
            groups = 1 << rest.bit_length() - 1
            chunk(done, groups)
            done, rest = done + groups, rest - groups
        last = site.target.at(kg=count - 1, e0=planes - 1)
        tb.evaluate(site.target.buffer[tuple(last)])

    return emit


def _store_elements(site: Site, kg, mask, planes: int, groups: int, word: int) -> None:
    """Store elements (k group, plane) of `groups` groups, up to 16 at once."""
    per_word = word // 8
    bytes_of_mask = groups * per_word
    if groups == 1:
        ones = sum(1 << bit for bit in range(0, ELEMENT, word))
        for p in range(planes):
            value = mask[p].astype("uint32") * tirx.const(ones, "uint32")
            tb.buffer_store(site.target.buffer, value, site.target.at(kg=kg, e0=p))
        return
    parts = [vec.bind(vec.reinterpret(f"uint8x{bytes_of_mask}", mask[p])) for p in range(planes)]
    elements = [(group, p) for group in range(groups) for p in range(planes)]
    for start in range(0, len(elements), 16):
        run = elements[start : start + 16]
        lanes = [
            p * bytes_of_mask + group * per_word + b % per_word
            for group, p in run
            for b in range(ELEMENT // 8)
        ]
        # A shuffle may not give more lanes than its operands have: they are named repeatedly.
        operands = parts * -(-len(lanes) // (planes * bytes_of_mask))
        spread = tirx.Shuffle(operands, [vec.const(lane) for lane in lanes])
        value = vec.reinterpret(f"uint32x{len(run)}", spread)
        group, plane = run[0]
        at = site.target.at(kg=kg + group, e0=plane)
        vec.store(site.target.buffer, at, value, len(run))
