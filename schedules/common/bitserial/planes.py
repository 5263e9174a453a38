"""Activations to bit planes, as vector code in place of the stage "encode".

A plane of some bytes is one comparison of a vector (vptestmb, or a shift and vpmovmskb), whose
result is a word or several. The elements of neighbouring k steps and planes are neighbours, so
that a shuffle of those masks' bytes makes vectors of them.
"""

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.bitserial import ELEMENT
from lpgen.isa import Isa
from lpgen.tir import vectors as vec
from lpgen.tir.microkernel import Site


def emit_planes(isa: Isa, word: int, low: int):
    """The function that emits the planes from `low` on, for `replace_encode`; words of `word`
    bits, repeated through 32-bit elements."""
    widest = max(32, isa.bits // 8)

    def emit(site: Site, count: int) -> None:
        step = widest // word
        planes = int(site.target.buffer.shape[-1])
        source = next(iter(site.sources.values()))

        def chunk(kg, groups: int) -> None:
            values = groups * word
            x = vec.bind(vec.load(source.buffer, source.at(kg=kg), values))
            masks = []
            for p in range(planes):
                bit = x & vec.splat(1 << p + low, "uint8", values)
                is_set = tirx.NE(bit, vec.splat(0, "uint8", values))
                masks.append(isa.bits_to_word(is_set, values, widest))
            _store_elements(site, kg, masks, widest // 8, groups, word)

        whole, rest = divmod(count, step)
        if whole:
            with tb.serial(0, whole) as i:
                chunk(i * step, step)
        done = whole * step
        while rest:
            groups = 1 << rest.bit_length() - 1
            chunk(done, groups)
            done, rest = done + groups, rest - groups
        # Vectors go on into the next k steps: the buffer must be known to reach that far.
        last = site.target.at(kg=count - 1, e0=planes - 1)
        tb.evaluate(site.target.buffer[tuple(last)])

    return emit


def _store_elements(site: Site, kg, masks: list[tirx.Var], size: int, groups: int, word: int):
    """Store elements (k step, plane) of `groups` groups, up to 16 at once, out of masks of `size`
    bytes."""
    per_word, planes = word // 8, len(masks)
    if groups == 1:
        ones = sum(1 << bit for bit in range(0, ELEMENT, word))
        for p, mask in enumerate(masks):
            value = mask.astype("uint32") * tirx.const(ones, "uint32")
            tb.buffer_store(site.target.buffer, value, site.target.at(kg=kg, e0=p))
        return
    parts = [vec.bind(vec.reinterpret(f"uint8x{size}", mask)) for mask in masks]
    elements = [(group, p) for group in range(groups) for p in range(planes)]
    for start in range(0, len(elements), 16):
        run = elements[start : start + 16]
        lanes = [
            p * size + group * per_word + b % per_word
            for group, p in run
            for b in range(ELEMENT // 8)
        ]
        # A shuffle may not give more lanes than its operands have: they are named repeatedly.
        operands = parts * -(-len(lanes) // (planes * size))
        spread = tirx.Shuffle(operands, [vec.const(lane) for lane in lanes])
        value = vec.reinterpret(f"uint32x{len(run)}", spread)
        group, plane = run[0]
        at = site.target.at(kg=kg + group, e0=plane)
        vec.store(site.target.buffer, at, value, len(run))
