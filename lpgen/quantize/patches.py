"""The matrix form of layers: weights as [n, k], inputs as rows of k.

A convolution of g groups has weights [n, k] whose rows n / g at a time meet inputs of their own:
inputs come as [g, rows, k].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lpgen.onnx.conv import geometry
from lpgen.plans import Layer

if TYPE_CHECKING:
    import onnx


class Place(NamedTuple):
    """A layer and its node in the graph."""

    layer: Layer
    node: onnx.NodeProto

    @property
    def attributes(self) -> dict:
        """The attributes of the node by name."""
        from onnx.helper import get_attribute_value

        values = {a.name: get_attribute_value(a) for a in self.node.attribute}
        return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}

    @property
    def rows_first(self) -> bool:
        """Whether the weights of a product have the output channels on their first axis."""
        return self.layer.kind == "Conv" or bool(self.attributes.get("transB"))

    def rows(self, w: np.ndarray) -> np.ndarray:
        """The weights as [n, k]."""
        return w.reshape(len(w), -1) if self.rows_first else np.ascontiguousarray(w.T)

    def restored(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `rows`."""
        return rows.reshape(self.layer.shape) if self.rows_first else np.ascontiguousarray(rows.T)

    @property
    def sees(self) -> tuple:
        """What the rows of its inputs depend on: layers with equal ones see the same inputs."""
        if self.layer.kind != "Conv":
            return (self.layer.input,)
        return (self.layer.input, self.layer.shape[1:], repr(sorted(self.attributes.items())))

    def inputs(self, x: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of k that the layer multiplies, of its input x: [groups, rows, k], `most` rows at
        most, drawn at random."""
        if self.layer.kind != "Conv":
            rows = x.reshape(-1, x.shape[-1])
            return _some(rows, most, rng)[None]
        return _patches(x, self.layer.shape, self.attributes, most, rng)


def _some(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return rows[np.sort(rng.choice(len(rows), most, replace=False))]


def _patches(
    x: np.ndarray, shape: tuple[int, ...], given: dict, most: int, rng: np.random.Generator
) -> np.ndarray:
    """Patches of images x [batch, c, (h,) w] for weights [n, c / groups, (kh,) kw] of a shape."""
    how = geometry(x.shape[2:], shape[2:], **given)
    if x.ndim == 3:
        x = x[:, :, None]
    groups = how["groups"]
    top, left, bottom, right = how["pad"]
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    dilated = [d * (k - 1) + 1 for d, k in zip(how["dilation"], how["kernel"], strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, dilated, axis=(2, 3))
    windows = windows[:, :, :: how["stride"][0], :: how["stride"][1]]
    windows = windows[..., :: how["dilation"][0], :: how["dilation"][1]]
    places = windows.shape[0], *windows.shape[2:4]
    chosen = _some(np.arange(np.prod(places)), most, rng)
    batch, row, column = np.unravel_index(chosen, places)
    found = windows[batch, :, row, column]  # [rows, c, kh, kw]
    return found.reshape(len(found), groups, -1).swapaxes(0, 1)
