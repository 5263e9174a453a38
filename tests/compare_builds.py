"""Whether a change of the generator changed its kernels: the same kernels by two checkouts.

    python tests/compare_builds.py BEFORE_PYTHON [--time] [--target NAME ...]

BEFORE_PYTHON is the interpreter of an environment where another commit of lpgen is installed, for
example

    git worktree add ../before COMMIT && python -m venv ../before.venv
    ../before.venv/bin/pip install -e ../before

Both build the kernels of `compare_builds.jsonl`: every template of every x86 level, with its knobs.
Kernels whose machine code is the same, apart from the addresses of constants, are counted; those
that differ are named and, with --time, timed by both in turns (each in a process of its own), where
this CPU runs them. Exit code 1: a kernel is missing, or more than 1 % slower.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

LOG = Path(__file__).with_suffix(".jsonl")
COMMAND = "import sys; from lpgen.cli import main; sys.exit(main())"
TURNS = 40
SLOWER = 1.01

TIMER = """
import json, sys, time
import numpy as np
import lpgen.runtime
library = lpgen.runtime.load(sys.argv[1])
bound = {}
def prepare(name):
    kernel = library[name]
    if hasattr(kernel, "arguments"):
        x, w, y = kernel.arguments["x"], kernel.weights, kernel.output
        shapes = [(tensor.shape, tensor.dtype) for tensor in (x, w, y)]
    else:  # of before the signature
        shapes = [(kernel.x_shape, kernel.x_dtype), (kernel.weights_shape, kernel.weights_dtype)]
        shapes.append((kernel.y_shape, kernel.y_dtype))
    limits = kernel.interface["weights"]
    given = {e["name"]: np.ones(e["shape"], e["dtype"]) for e in kernel.interface["parameters"]}
    w_shape, w_dtype = shapes[1]
    packed = kernel.pack_weights(np.full(w_shape, limits.get("max", 1), w_dtype), **given)
    return kernel.bind(np.ones(*shapes[0]), packed, out=np.zeros(*shapes[2]))
for line in sys.stdin:
    name = line.rstrip("\\n")
    call = bound.get(name) or bound.setdefault(name, prepare(name))
    best, end = 1e9, time.perf_counter() + 0.02
    while time.perf_counter() < end:
        start = time.perf_counter(); call(); best = min(best, time.perf_counter() - start)
    print(best, flush=True)
"""


def kernels_of(target: str) -> list[str]:
    """The workloads of the log for one target."""
    records = map(json.loads, LOG.read_text().splitlines())
    return [record["workload"] for record in records if record["target"] == target]


def build(python: str, target: str, folder: Path) -> Path:
    """The library of a target's kernels, as the lpgen of `python` makes it."""
    listed = folder / f"{target}.txt"
    listed.write_text("\n".join(kernels_of(target)) + "\n")
    output = folder / f"{target}.so"
    options = ["--target", target, "--log", str(LOG), "-o", str(output)]
    # Nothing of this folder may be imported instead of what is installed.
    command = [python, "-P", "-c", COMMAND, "build", f"@{listed}", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return output


def code_of(library: Path, target: str) -> dict[str, str]:
    """The instructions of each kernel, by its symbol, without addresses."""
    disassemble = ["objdump", "-d", "--no-show-raw-insn", "--no-addresses", str(library)]
    text = subprocess.run(disassemble, check=True, capture_output=True, text=True).stdout
    found: dict[str, str] = {}
    for block in text.split("\n\n"):
        head, _, body = block.strip().partition("\n")
        # Of the only variant, which may be named for its target.
        name = re.fullmatch(rf"<run_(lpgen_\w+?)(_{target})?>:", head)
        if name:
            body = re.sub(r"(-?0x[0-9a-f]+)?\(%rip\).*", "(%rip)", body)
            body = re.sub(r"(?m)\s*#.*$", "", body)
            body = re.sub(r"<run_\w+\+", "<+", body)  # of jumps
            found[name[1]] = re.sub(r"call .*", "call", body)
    return found


def names_of(python: str, library: Path) -> dict[str, str]:
    """The workload of each symbol."""
    show = [python, "-P", "-c", COMMAND, "show", str(library), "--json"]
    lines = subprocess.run(show, check=True, capture_output=True, text=True).stdout.splitlines()
    entries = [json.loads(line) for line in lines]
    return {entry["symbol"]: entry["workload"] for entry in entries if "symbol" in entry}


class Timer:
    """A process that times the kernels of one library."""

    def __init__(self, python: str, library: Path) -> None:
        self.process = subprocess.Popen(
            [python, "-P", "-c", TIMER, str(library)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def best(self, name: str) -> float:
        """Seconds of the fastest call within a fiftieth of a second."""
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def ratio(before: Timer, after: Timer, name: str) -> float:
    """How many times slower the kernel is now: best against best, in turns."""
    times: dict[Timer, float] = defaultdict(lambda: 1e9)
    for turn in range(TURNS):
        for timer in (before, after) if turn % 2 else (after, before):
            times[timer] = min(times[timer], timer.best(name))
    return times[after] / times[before]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", help="interpreter of the other checkout's environment")
    parser.add_argument("--time", action="store_true", help="time kernels whose code differs")
    parser.add_argument("--target", action="append", help="only of this target")
    arguments = parser.parse_args()
    targets = list(dict.fromkeys(json.loads(x)["target"] for x in LOG.read_text().splitlines()))
    pythons = (arguments.before, sys.executable)
    same = different = bad = 0
    for target in arguments.target or targets:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            libraries = [build(arguments.before, target, Path(one))]
            libraries.append(build(sys.executable, target, Path(two)))
            before, after = (code_of(library, target) for library in libraries)
            changed = [name for name in before if before[name] != after.get(name)]
            same, different = same + len(before) - len(changed), different + len(changed)
            print(f"{target}: {len(before)} kernels, {len(changed)} differ", flush=True)
            timers = None
            names = names_of(sys.executable, libraries[1]) if changed else {}
            for name in changed:
                if name not in after:
                    print(f"  {name}: missing")
                    bad += 1
                    continue
                counts = [len(code[name].splitlines()) for code in (before, after)]
                text = f"  {names.get(name, name)}: {counts[0]} and {counts[1]} instructions"
                if arguments.time:
                    try:
                        timers = timers or [
                            Timer(p, so) for p, so in zip(pythons, libraries, strict=True)
                        ]
                        factor = ratio(*timers, names[name])
                        text += f", time now / before {factor:.3f}"
                        bad += factor > SLOWER
                    except (ValueError, BrokenPipeError):
                        timers, text = None, f"{text}, not timed: this CPU does not run it"
                print(text, flush=True)
    print(f"{same} kernels have the same code, {different} differ")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
