"""`lpgen quickstart`, on small layers."""

from pathlib import Path

from lpgen import target as targets
from lpgen.cli import quickstart
from lpgen.ops import parse

DENSE = "dense m=4 n=32 k=64 act=u8 weight=s8 out=s32"


def test_quickstart(lpgen, monkeypatch):
    layers = {parse(DENSE): "layer a", parse(DENSE.replace("u8", "u2")): "layer b"}
    monkeypatch.setattr(quickstart, "layers", lambda: layers)
    text = lpgen("quickstart", "--trials", "2", "--out", "left")
    assert "[2/2] layer b: " in text
    assert "2 of 2 kernels are exact" in text
    assert "reached" in text
    names = {"quickstart.so", "quickstart.h", f"{targets.detect().name}.jsonl"}
    assert names <= {path.name for path in Path("left").iterdir()}
    assert all(f"left/{name}" in text for name in names)


def test_quickstart_layers_are_real():
    labels = quickstart.layers()
    assert [str(op.weight) for op in labels] == ["s8", "s8", "s8", "s2", "s4"]
    assert {op.kind for op in labels} == {"conv2d", "dense"}
