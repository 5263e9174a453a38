"""Named lists of workloads: the layers of well-known networks, batch 1, shapes from their papers.

| suite        | layers                                           | source                       |
|--------------|--------------------------------------------------|------------------------------|
| resnet18     | ResNet-18 at 224x224: convolutions, classifier   | He et al. 2015, table 1      |
| mobilenet_v2 | MobileNetV2 at 224x224: convolutions, classifier | Sandler et al. 2018, table 2 |
| bert_base    | BERT-base encoder, 128 tokens                    | Devlin et al. 2018, sec. 3   |
| llama_7b     | LLaMA-7B generating one token                    | Touvron et al. 2023, table 2 |

Layers of equal shape are listed once.
"""

import difflib
from collections.abc import Callable, Iterator
from functools import partial

from lpgen.errors import WorkloadError
from lpgen.formats import Format
from lpgen.ops.conv2d import Conv2d
from lpgen.ops.dense import Dense
from lpgen.ops.operator import Operator

# An operator but for its formats, and the label that tables show it by.
Layer = tuple[str, Callable[..., Operator]]


def _conv(where: str, size: int, ic: int, oc: int, kernel: int, stride: int = 1) -> Layer:
    channels = str(oc) if ic == oc else f"{ic}->{oc}"
    label = f"{where} {kernel}x{kernel} {channels}@{size}" + (" s2" if stride == 2 else "")
    shape = {"h": size, "w": size, "ic": ic, "oc": oc}
    return label, partial(Conv2d, **shape, kernel=kernel, stride=stride, pad=kernel // 2)


def _depthwise(where: str, size: int, channels: int, stride: int) -> Layer:
    label = f"{where} dw 3x3 {channels}@{size}" + (" s2" if stride == 2 else "")
    shape = {"h": size, "w": size, "ic": channels, "oc": channels, "groups": channels}
    return label, partial(Conv2d, **shape, kernel=3, stride=stride, pad=1)


def _dense(where: str, m: int, n: int, k: int) -> Layer:
    return f"{where} {k}->{n}", partial(Dense, m, n, k)


def _resnet18() -> Iterator[Layer]:
    yield _conv("conv1", 224, 3, 64, kernel=7, stride=2)
    yield _conv("layer1.conv", 56, 64, 64, kernel=3)
    for number, size, channels in ((2, 28, 128), (3, 14, 256), (4, 7, 512)):
        before = channels // 2
        yield _conv(f"layer{number}.first", 2 * size, before, channels, kernel=3, stride=2)
        yield _conv(f"layer{number}.down", 2 * size, before, channels, kernel=1, stride=2)
        yield _conv(f"layer{number}.conv", size, channels, channels, kernel=3)
    yield _dense("fc", 1, 1000, 512)


def _mobilenet_v2() -> Iterator[Layer]:
    yield _conv("stem", 224, 3, 32, kernel=3, stride=2)
    size, ic = 112, 32
    # Table 2 of the paper: expansion t, channels c, repeats n, stride s of the first repeat.
    table = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for number, (expansion, oc, repeats, first_stride) in enumerate(table, 1):
        for repeat in range(repeats):
            where, hidden = f"block{number}.{repeat + 1}", ic * expansion
            stride = first_stride if repeat == 0 else 1
            if expansion > 1:
                yield _conv(f"{where} expand", size, ic, hidden, kernel=1)
            yield _depthwise(where, size, hidden, stride)
            size //= stride
            yield _conv(f"{where} project", size, hidden, oc, kernel=1)
            ic = oc
    yield _conv("head", size, ic, 1280, kernel=1)
    yield _dense("fc", 1, 1000, 1280)


def _bert_base() -> Iterator[Layer]:
    tokens, hidden = 128, 768
    yield _dense("attention q,k,v,out", tokens, hidden, hidden)
    yield _dense("ffn1", tokens, 4 * hidden, hidden)
    yield _dense("ffn2", tokens, hidden, 4 * hidden)


def _llama_7b() -> Iterator[Layer]:
    hidden, ffn, vocabulary = 4096, 11008, 32000
    yield _dense("attention q,k,v,out", 1, hidden, hidden)
    yield _dense("ffn gate,up", 1, ffn, hidden)
    yield _dense("ffn down", 1, hidden, ffn)
    yield _dense("lm_head", 1, vocabulary, hidden)


_SUITES: dict[str, Callable[[], Iterator[Layer]]] = {
    "resnet18": _resnet18,
    "mobilenet_v2": _mobilenet_v2,
    "bert_base": _bert_base,
    "llama_7b": _llama_7b,
}


def suites() -> tuple[str, ...]:
    """The names of all suites."""
    return tuple(_SUITES)


def layers(name: str, act: Format | str, weight: Format | str) -> list[tuple[str, Operator]]:
    """(label, operator) of every different layer of suite `name`, in network order.

    Layers of equal shape appear once, under the label of the first.
    Raises WorkloadError for an unknown name, naming the near ones.
    """
    if name not in _SUITES:
        near = difflib.get_close_matches(name[:40], _SUITES, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise WorkloadError(f"suite {name!r} is unknown; {hint}known: {', '.join(_SUITES)}")
    found: dict[Operator, str] = {}
    for label, shape in _SUITES[name]():
        found.setdefault(shape(act=act, weight=weight), label)
    return [(label, op) for op, label in found.items()]


def suite(name: str, act: Format | str, weight: Format | str) -> list[Operator]:
    """The different operators of suite `name` in network order; raises as `layers` does."""
    return [op for _, op in layers(name, act, weight)]
