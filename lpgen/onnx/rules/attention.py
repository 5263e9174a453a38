"""Attention: of ONNX itself, and Attention, MultiHeadAttention and QAttention of com.microsoft.
Products, softmax, products.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.dynamic import Dynamic
from lpgen.onnx.rules.spelled import Spelled, refuse
from lpgen.onnx.values import Value

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering

FLOAT = 1
"""float32 among ONNX's types."""


class Heads(NamedTuple):
    """Queries, keys or values: an edge of float32 [batch, heads, rows, columns of a head]."""

    edge: str
    heads: int
    rows: int
    columns: int


def _apart(spelled: Spelled, edge: str, shape: Sequence[int], heads: int) -> Heads:
    """[batch, rows, columns] as heads."""
    if len(shape) != 3:
        raise OnnxError(f"shape {list(shape)}, expected [batch, rows, columns]")
    batch, rows, columns = shape
    if heads < 1 or columns % heads:
        raise OnnxError(f"{heads} heads do not divide {columns} columns")
    sizes = spelled.constant(np.int64([batch, rows, heads, columns // heads]))
    apart = spelled("Transpose", spelled("Reshape", edge, sizes), perm=[0, 2, 1, 3])
    return Heads(apart, heads, rows, columns // heads)


def _repeated(spelled: Spelled, batch: int, side: Heads, heads: int) -> Heads:
    """Heads of keys or values, each for several of queries."""
    if heads % side.heads:
        raise OnnxError(f"{heads} heads of queries are no multiple of {side.heads}")
    edge = side.edge
    for kind, shape in (
        ("Reshape", (batch, side.heads, 1, side.rows, side.columns)),
        ("Expand", (batch, side.heads, heads // side.heads, side.rows, side.columns)),
        ("Reshape", (batch, heads, side.rows, side.columns)),
    ):
        edge = spelled(kind, edge, spelled.constant(np.int64(shape)))
    return side._replace(edge=edge, heads=heads)


def _weighed(
    spelled: Spelled,
    batch: int,
    sides: Sequence[Heads],
    scale: float,
    causal: int,
    masks: Sequence[str],
    flat: bool = True,
) -> list[Value]:
    """The rows of values weighed by how queries and keys match; masks: what is added to scores
    [batch, heads, queries, keys]; flat: the result is [batch, rows, columns of all heads]."""
    q, k, v = sides
    if q.heads != k.heads:
        k, v = (_repeated(spelled, batch, side, q.heads) for side in (k, v))
    scores = spelled("MatMul", q.edge, spelled("Transpose", k.edge, perm=[0, 1, 3, 2]))
    factor = np.float32(scale or 1 / math.sqrt(q.columns))
    scores = spelled("Mul", scores, spelled.constant(factor))
    if causal:
        later = np.triu(np.ones((q.rows, k.rows), bool), 1)
        lowest = np.where(later, np.finfo(np.float32).min, 0).astype(np.float32)
        masks = [*masks, spelled.constant(lowest[None, None])]
    for mask in masks:
        scores = spelled("Add", scores, mask)
    result = spelled.node.output[0]
    weights = spelled("Softmax", scores, axis=-1)
    made = spelled("MatMul", weights, v.edge, writes="" if flat else result)
    if flat:
        together = spelled("Transpose", made, perm=[0, 2, 1, 3])
        shape = spelled.constant(np.int64([batch, q.rows, q.heads * v.columns]))
        spelled("Reshape", together, shape, writes=result)
    return spelled.lowered(result)


# ONNX


def plain(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Attention of ONNX, on tensors [batch, rows, columns] or on heads; those of keys may be
    fewer than those of queries."""
    spelled = Spelled(lowering, node)
    known = {"q_num_heads": 0, "kv_num_heads": 0, "scale": 0.0, "is_causal": 0}
    others = {"softcap": 0.0, "qk_matmul_output_mode": 0, "softmax_precision": FLOAT}
    given = attributes(node, **known, **others)
    refuse((f"{name}={given[name]}", given[name] != usual) for name, usual in others.items())
    refuse([("a past", any(map(spelled.input, (4, 5, 6)))), ("a present", any(node.output[1:]))])
    shapes = [spelled.shape(place) for place in range(3)]
    flat = len(shapes[0]) == 3
    if flat:
        counts = (given["q_num_heads"], given["kv_num_heads"], given["kv_num_heads"])
        sides = [
            _apart(spelled, spelled.input(place), shapes[place], count)
            for place, count in enumerate(counts)
        ]
    else:
        sides = [Heads(spelled.input(place), *shape[1:]) for place, shape in enumerate(shapes)]
    masks = [spelled.input(3)] if spelled.input(3) else []
    if masks and lowering.values[masks[0]].type.dtype in ("bool", "uint8"):
        numbers = [spelled.constant(np.float32(v)) for v in (0, np.finfo(np.float32).min)]
        masks = [spelled("Where", masks[0], *numbers)]
    how = (given["scale"], given["is_causal"], masks, flat)
    return _weighed(spelled, shapes[0][0], sides, *how)


# com.microsoft

PLAIN = {"num_heads": 0, "scale": 0.0, "mask_filter_value": -10000.0, "unidirectional": 0}
"""Attributes that are served, and what they are by default."""


def _checked(node: onnx.NodeProto, **others: Any) -> dict[str, Any]:
    """The attributes, of which those in `others` have to be as they are by default."""
    given = attributes(node, **PLAIN, **others)
    refuse((f"{name}={given[name]}", given[name] != usual) for name, usual in others.items())
    return given


def _masks(spelled: Spelled, place: int, filled: float, added: int) -> list[str]:
    """What is added to scores; place: of a mask [batch, keys] of int32, 0 where `filled` is added;
    added: of what is added as it is."""
    masks = []
    if spelled.input(place):
        shape = spelled.shape(place)
        if len(shape) != 2:
            raise OnnxError(f"a mask of shape {list(shape)}: lpgen has [batch, keys]")
        seen = spelled("Cast", spelled.input(place), to=FLOAT)
        hidden = spelled("Sub", spelled.constant(np.float32(1)), seen)
        hidden = spelled("Mul", hidden, spelled.constant(np.float32(filled)))
        wide = spelled.constant(np.int64([shape[0], 1, 1, shape[1]]))
        masks.append(spelled("Reshape", hidden, wide))
    return [*masks, spelled.input(added)] if spelled.input(added) else masks


def attention(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Attention: x times three matrices that are one constant [k, columns of all three]."""
    spelled = Spelled(lowering, node)
    given = _checked(node, do_rotary=0, past_present_share_buffer=0, qkv_hidden_sizes=None)
    refuse([("a past", spelled.input(4)), ("a present", any(node.output[1:]))])
    weights = spelled.array(1, "the tensor of weights")
    bias = spelled.array(2, "the bias")
    shape, third, sides = spelled.shape(0), weights.shape[1] // 3, []
    for first in range(0, 3 * third, third):
        part = np.ascontiguousarray(weights[:, first : first + third])
        made = spelled("MatMul", spelled.input(0), spelled.constant(part))
        made = spelled("Add", made, spelled.constant(bias[first : first + third]))
        sides.append(_apart(spelled, made, (*shape[:-1], third), given["num_heads"]))
    masks = _masks(spelled, 3, given["mask_filter_value"], 5)
    return _weighed(spelled, shape[0], sides, given["scale"], given["unidirectional"], masks)


def quantized(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """QAttention: the same with codes; those of x have one scale, found in the call or not."""
    spelled = Spelled(lowering, node)
    given = _checked(node, do_rotary=0, past_present_share_buffer=0)
    refuse([("a past", spelled.input(8)), ("a present", any(node.output[1:]))])
    weights, scale = spelled.array(1, "the tensor of weights"), spelled.array(4, "weight_scale")
    bias, zero = spelled.array(2, "the bias"), np.zeros(1, weights.dtype)
    if spelled.input(7):
        zero = spelled.array(7, "weight_zero_point")
    product = _of_codes
    if isinstance(lowering.values[spelled.input(0)], Dynamic):
        product = _of_dynamic
    shape, third, sides = spelled.shape(0), weights.shape[1] // 3, []
    for first in range(0, 3 * third, third):
        w = np.ascontiguousarray(weights[:, first : first + third])
        each = [a if a.size == 1 else a[first : first + third] for a in (scale, zero)]
        made = product(spelled, w, *each)
        made = spelled("Add", made, spelled.constant(bias[first : first + third]))
        sides.append(_apart(spelled, made, (*shape[:-1], third), given["num_heads"]))
    masks = _masks(spelled, 5, given["mask_filter_value"], 9)
    return _weighed(spelled, shape[0], sides, given["scale"], given["unidirectional"], masks)


def _of_codes(spelled: Spelled, w: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> str:
    """x [..., k] times w [k, n]; x: codes with a known scale."""
    how = [name for name in (spelled.input(3), spelled.input(6)) if name]
    x = spelled("DequantizeLinear", spelled.input(0), *how)
    zero = np.ascontiguousarray(np.broadcast_to(zero, scale.shape))
    edges = [spelled.constant(array) for array in (w, scale, zero)]
    return spelled("MatMul", x, spelled("DequantizeLinear", *edges, axis=1))


def _of_dynamic(spelled: Spelled, w: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> str:
    """x [..., k] times w [k, n]; x: codes whose scale is found in the call."""
    edges = [spelled.constant(w), spelled.input(6), spelled.constant(zero)]
    sums = spelled("Cast", spelled("MatMulInteger", spelled.input(0), *edges), to=FLOAT)
    return spelled("Mul", sums, spelled("Mul", spelled.input(3), spelled.constant(scale)))


def multi_head(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """MultiHeadAttention of queries, keys and values that are tensors of their own."""
    spelled = Spelled(lowering, node)
    given = _checked(node)
    refuse(
        [
            ("a past", any(map(spelled.input, (6, 7, 8, 9)))),
            ("a present", any(node.output[1:])),
            ("a tensor of queries, keys and values in one", not all(map(spelled.input, (1, 2)))),
        ]
    )
    bias = spelled.array(3, "the bias") if spelled.input(3) else None
    sides, first = [], 0
    for place in range(3):
        edge, shape = spelled.input(place), spelled.shape(place)
        if bias is not None:
            edge = spelled("Add", edge, spelled.constant(bias[first : first + shape[-1]]))
            first += shape[-1]
        sides.append(_apart(spelled, edge, shape, given["num_heads"]))
    masks = _masks(spelled, 4, given["mask_filter_value"], 5)
    how = (given["scale"], given["unidirectional"], masks)
    return _weighed(spelled, spelled.shape(0)[0], sides, *how)


RULES = {
    "Attention": plain,
    "com.microsoft.Attention": attention,
    "com.microsoft.QAttention": quantized,
    "com.microsoft.MultiHeadAttention": multi_head,
}
