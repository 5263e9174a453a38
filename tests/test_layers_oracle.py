"""The oracle of bit layers against plain scalars, and that of convolutions against products."""

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import bits
from strategies import layered_convs, layered_denses

from lpgen.ops import parse


@settings(deadline=None, max_examples=40)
@given(layered_denses(rows=2, columns=4, depth=40), st.data())
def test_the_oracle_adds_up_group_by_group(op, data):
    op = replace(op, input="act", epilogue=op.epilogue[:1])
    layers = data.draw(st.integers(*op.layers))
    example = op.example(np.random.default_rng(layers)).with_layers(layers)
    x, w = example.inputs["x"], example.weights
    group = _of_signs if op.bit_layers.of_signs else _of_codes
    expected = np.empty(op.y_shape, np.float32)
    for m, n in itertools.product(range(op.m), range(op.n)):
        total = np.float32(0)
        for j in range(op.scale_shape[1]):
            places = range(j * op.group_size, min((j + 1) * op.group_size, op.k))
            of_x = {k: int(x[m, k]) - op.zero_act for k in places}
            for term in group(op, layers, of_x, w[n], n, j, example.parameters):
                total = total + term
        expected[m, n] = total
    np.testing.assert_array_equal(bits(op.reference(**example.given)), bits(expected))


def _of_codes(op, layers, of_x, row, n, j, parameters):
    """What group j of column n adds to a sum."""
    scale, offset = (fit[layers - op.layers.low, n, j] for fit in parameters.values())
    product = sum(x * (int(row[k]) // 2 ** (op.weight.bits - layers)) for k, x in of_x.items())
    yield np.float32(product) * scale + np.float32(sum(of_x.values())) * offset


def _of_signs(op, layers, of_x, row, n, j, parameters):
    for i in range(layers):
        product = sum(x * int(row[i * op.k + k]) for k, x in of_x.items())
        yield np.float32(product) * parameters["scale"][i, n, j]


@settings(deadline=None, max_examples=30)
@given(layered_convs(), st.data())
def test_a_convolution_is_the_product_of_its_windows(op, data):
    op = replace(op, input="act", epilogue=op.epilogue[:1])
    layers = data.draw(st.integers(*op.layers))
    example = op.example(np.random.default_rng(layers)).with_layers(layers)
    (kh, kw), (top, left, *_), of_group = op.kernel, op.pad, op.ic // op.groups
    groups, m, n, k = op.matrix
    x = np.full((op.n, *op.padded, op.ic), op.zero_act, np.int16)
    x[:, top : top + op.h, left : left + op.w] = example.inputs["x"]
    y = op.reference(**example.given).reshape(m, groups, n)
    for g in range(groups):
        rows = []
        for image, oh, ow in itertools.product(range(op.n), range(op.oh), range(op.ow)):
            taps = [
                x[
                    image,
                    oh * op.stride[0] + r * op.dilation[0],
                    ow * op.stride[1] + s * op.dilation[1],
                ]
                for r, s in itertools.product(range(kh), range(kw))
            ]
            rows.append([tap[g * of_group : (g + 1) * of_group] for tap in taps])
        dense = parse(
            f"dense m={m} n={n} k={k} act={op.act} zero_act={op.zero_act} weight={op.weight} "
            f"layers={op.layers} out=f32 scale={op.epilogue[0].per}"
        )
        of_g = slice(g * n, (g + 1) * n)
        w = example.weights[of_g].reshape(dense.w_shape)
        fits = {name: fit[:, of_g] for name, fit in example.parameters.items()}
        left_side = np.reshape(rows, (m, k)).astype(op.act.dtype)
        expected = dense.reference(left_side, w, layers=layers, **fits)
        np.testing.assert_array_equal(bits(np.ascontiguousarray(y[:, g])), bits(expected))
