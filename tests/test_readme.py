"""The Python examples of the README do what it says."""

import re
import subprocess
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include "lib.h"
int main(void) {
  const uint8_t x[8] = {1, 1, 1, 1, 2, 2, 2, 2};
  const int8_t weights[12] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  int32_t y[6];
  int threads = 1, status;
  void *packed = aligned_alloc(64, 4096), *workspace = aligned_alloc(64, 1 << 20);
LINES
  printf("%d\\n", status);
  for (int i = 0; i < 6; i++) printf("%d\\n", (int)y[i]);
  return 0;
}
"""


def test_the_python_examples_run(home):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    build, call = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    small = build.replace("h=56 w=56 ic=64 oc=64", "h=6 w=6 ic=8 oc=8")
    exec(small.replace("trials=64", "trials=2"), names)
    op = names["op"]
    x, weights = op.random(np.random.default_rng(0))
    exec(call, names | {"x": x, "weights": weights}, names)
    assert np.array_equal(names["y"], op.reference(x, weights))
    names["y"][...] = 0
    names["run"]()
    assert np.array_equal(names["y"], op.reference(x, weights))


def test_the_lines_of_c_run(home):
    from lpgen import build, parse, runtime
    from lpgen.records.choose import choose

    op = parse("dense m=2 n=3 k=4 act=u8 weight=s8")
    build.build([choose(op, "generic")], "lib.so")
    symbol = runtime.load("lib.so")[op.name].symbol
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```c\n(.*?)```", text, re.DOTALL)
    assert len(lines.splitlines()) <= 8
    # In capitals the names of sizes; what is called is in small letters.
    lines = re.sub(r"KERNEL_([A-Z_]+\b)", rf"{symbol.upper()}_\1", lines).replace("KERNEL", symbol)
    Path("main.c").write_text(PROGRAM.replace("LINES", lines))
    subprocess.run(["cc", "main.c", "./lib.so", "-o", "main"], check=True)
    run = subprocess.run(["./main"], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0", "4", "4", "4", "8", "8", "8"]


def test_the_two_commands_come_first():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25]
    assert "pip install . && lpgen quickstart" in lines
    assert "pip install -e '.[test]' && pytest" in lines


def test_every_command_is_listed():
    from lpgen.cli.app import cli

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = "\n".join(re.findall(r"^\| `lpgen .*", text, re.M))
    names = cli.list_commands(None)
    assert not [name for name in names if not re.search(f"`lpgen {name}[ `]", rows)]
