"""Steps of a network on the codes that onnxruntime computes: how many of their results differ.

python tests/ocr_steps.py NAME.int8.onnx   NAME: det, rec or cls, as `ocr_models` writes them
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import ocr_models
import onnx
import onnxruntime

from lpgen.onnx import read_network


def codes(path: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """Results of all QuantizeLinear nodes, images with channels last."""
    model = onnx.load(path)
    names = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    for name in names:
        kind = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None)
        model.graph.output.append(kind)
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    arrays = session.run(names, {"x": x})
    last = (a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for a in arrays)
    return {name: np.ascontiguousarray(a) for name, a in zip(names, last, strict=True)}


def main() -> None:
    path = sys.argv[1]
    ((_, x),) = ocr_models.rendered(Path(path).name.split(".")[0], 1, 1)
    known, found = codes(path, x), defaultdict(lambda: np.zeros(4, int))
    for step in read_network(path).steps:
        if not {step.output, *step.inputs.values()} <= known.keys():
            continue
        y = step.reference(known).ravel().astype(int)
        apart = np.abs(y - known[step.output].ravel())
        found[step.op.kind][:3] += 1, np.count_nonzero(apart), apart.size
        found[step.op.kind][3] = max(found[step.op.kind][3], apart.max())
    for kind, (steps, differ, size, most) in found.items():
        print(f"{kind:10} {steps} steps: {differ} of {size} codes differ, by up to {most}")


if __name__ == "__main__":
    main()
