"""Notebooks: what is committed was executed and is clean, and each of them runs from its top."""

import base64
import json
import os
import re
import textwrap
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from lpgen.build.assembly import KEY
from lpgen.ops import parse
from lpgen.records import Record

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 1_000_000
ABSOLUTE_PATH = re.compile(r"(?<![\w.<:/])/\w[\w.-]*/\w")
TRIALS = 4
# Seconds for one cell on a busy machine.
TIMEOUT = 300


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: NotebookNode, name: str) -> list[NotebookNode]:
    (cell,) = [cell for cell in notebook.cells if cell.id == name]
    return cell.outputs


def text_of(notebook: NotebookNode, name: str) -> str:
    """All text that the cell `name` printed or showed."""
    found = outputs(notebook, name)
    return "\n".join(o.text if o.output_type == "stream" else o.data["text/plain"] for o in found)


def picture_of(notebook: NotebookNode, name: str) -> bytes:
    """The one picture that the cell `name` shows."""
    (shown,) = [o.data for o in outputs(notebook, name) if o.output_type != "stream"]
    return base64.b64decode(shown["image/png"])


def execute(path: Path, folder: Path, parameters: str) -> NotebookNode:
    """The notebook executed in `folder`, with other text in its cell tagged "parameters"."""
    notebook = nbformat.read(path, as_version=4)
    (cell,) = [c for c in code_cells(notebook) if "parameters" in c.metadata.get("tags", ())]
    cell.source = parameters
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources=resources)
    # Nobody's own start-up files.
    return client.execute(env=os.environ | {"IPYTHONDIR": str(folder / ".ipython")})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestCommitted:
    def test_it_was_executed_from_top_to_bottom(self, path):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        counts = [cell.execution_count for cell in code_cells(notebook)]
        assert counts == list(range(1, len(counts) + 1))

    def test_it_shows_no_errors_and_no_warnings(self, path):
        for cell in code_cells(nbformat.read(path, as_version=4)):
            kinds = {(o.output_type, o.get("name")) for o in cell.outputs}
            assert not kinds & {("error", None), ("stream", "stderr")}, cell.id

    def test_it_is_small_and_names_no_place_on_a_machine(self, path):
        assert path.stat().st_size < MOST_BYTES
        cells = code_cells(nbformat.read(path, as_version=4))
        for output in (output for cell in cells for output in cell.outputs):
            shown = {k: v for k, v in output.get("data", {}).items() if k != "image/png"}
            text = output.get("text", "") + json.dumps(shown)
            assert not ABSOLUTE_PATH.search(text)


def test_there_are_notebooks():
    names = ["01_first_schedule", "02_which_algorithm_wins", "03_cortex_a53", "04_a_network"]
    assert [path.stem for path in NOTEBOOKS] == [*names, "05_two_bits"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The empty folder that the notebook is executed in."""
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def notebook(folder) -> NotebookNode:
    """The first notebook, executed with few trials."""
    path = FOLDER / "01_first_schedule.ipynb"
    return execute(path, folder, f"TRIALS, SEED, DEVICES = {TRIALS}, 1, 1")


class TestFirstSchedule:
    def test_the_operator_is_a_workload(self, notebook):
        op = parse(text_of(notebook, "operator").splitlines()[0])
        assert str(op.weight) == "s3"

    def test_the_template_and_its_space(self, notebook):
        assert re.search(r"^generic/generic +competes +\d+", text_of(notebook, "templates"), re.M)
        assert re.search(r"^rows +\d+ ", text_of(notebook, "knobs"), re.M)
        assert re.search(r"/dot: \d+ of \d+ combinations", text_of(notebook, "knobs"))
        stages = text_of(notebook, "definition")
        assert re.search(r"^plane0 .*PlaceholderOp\n(.*\n)*tile .*ComputeOp", stages, re.M)

    def test_the_schedule_changes_the_loops(self, notebook):
        before, after = text_of(notebook, "before"), text_of(notebook, "after")
        for stage in ("unpack", "tile", "y"):
            assert f'T.sblock("{stage}' in before
            assert f'T.sblock("{stage}' in after
        for kind in ("T.unroll", "T.vectorized"):
            assert kind not in before
            assert kind in after
        # The copy of a padded input is parallel by itself; weights may be unpacked per panel.
        assert after.count("T.parallel") > before.count("T.parallel")
        assert re.search(r"before [\d,]+ µs, after [\d,]+ µs", text_of(notebook, "both"))

    def test_the_hot_loop_multiplies(self, notebook):
        first, *lines = text_of(notebook, "assembly").splitlines()
        count = int(re.match(r"(\d+) multiplications", first)[1])
        instructions = [line.split()[0] for line in lines if line.startswith("\t")]
        assert 0 < sum(KEY.fullmatch(name) is not None for name in instructions) <= count

    def test_the_search_is_drawn_and_logged(self, notebook):
        assert picture_of(notebook, "tune").startswith(b"\x89PNG")
        record = Record.from_line(text_of(notebook, "records").splitlines()[0])
        assert record.best
        assert record.trials == TRIALS
        assert record.workload == text_of(notebook, "operator").splitlines()[0]

    def test_devices_measure_what_is_built_here(self, notebook):
        shown = text_of(notebook, "farm")
        assert re.search(rf"^x86/dot on .*: {TRIALS // 2} candidates, \d+ µs$", shown, re.M)

    def test_the_library_computes_what_the_oracle_does(self, notebook):
        files = text_of(notebook, "library").split()
        assert {"first.h", "first.so"} <= set(files)
        assert "equal to the oracle, bit for bit: True" in text_of(notebook, "call")
        checked = text_of(notebook, "check").splitlines()
        assert [line.split()[0] for line in checked] == ["conv2d", "dense"]
        assert all(line.endswith(" calls: exact") for line in checked)

    def test_the_roofs_are_measured_and_drawn(self, notebook):
        assert re.search(r"\b(compute|memory)\b", text_of(notebook, "bench"))
        assert picture_of(notebook, "roofline").startswith(b"\x89PNG")

    def test_nothing_is_left_behind(self, notebook, folder):
        assert [path.name for path in folder.iterdir()] == [".ipython"]


@pytest.fixture(scope="module")
def wins(tmp_path_factory) -> NotebookNode:
    """The second notebook, executed on small shapes that no record is shipped of."""
    small = """
        GEMM, GEMV = "dense m=16 n=64 k=256", "dense m=1 n=96 k=512"
        WEIGHT_BITS, ACT_BITS = (1, 8), {GEMM: (8,), GEMV: (8,)}
        TARGET, TRIALS, LOG = "native", 4, "small.jsonl"
    """
    path = FOLDER / "02_which_algorithm_wins.ipynb"
    return execute(path, tmp_path_factory.mktemp("wins"), textwrap.dedent(small))


class TestWhichAlgorithmWins:
    def test_what_has_no_record_is_tuned(self, wins):
        assert "4 of 4 operators were tuned" in text_of(wins, "records")

    def test_every_pair_has_a_winner(self, wins):
        rows = re.findall(r"^\d* *(\d) +(\w+/\w+) +\d+", text_of(wins, "gemm_table"), re.M)
        assert [act for act, _ in rows] == ["8", "8"]

    def test_both_maps_are_drawn(self, wins):
        for cell in ("gemm_map", "gemm_slices", "gemv_map"):
            assert picture_of(wins, cell).startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def cortex_a53(tmp_path_factory) -> NotebookNode:
    """The notebook of the Cortex-A53, with two of the three pairs of bit widths."""
    log = FOLDER.parent / "docs" / "performance" / "cortex-a53.jsonl"
    given = f'LOG, BITS, SHOWN = {str(log)!r}, ("w1a2", "w2a2"), "layer2.conv 3x3 128@28"'
    path = FOLDER / "03_cortex_a53.ipynb"
    return execute(path, tmp_path_factory.mktemp("cortex_a53"), given)


class TestCortexA53:
    def test_ratios_to_int16_are_what_is_claimed(self, cortex_a53):
        found = dict(re.findall(r"^(w\da\d): ([\d.]+)x", text_of(cortex_a53, "means"), re.M))
        assert float(found["w1a2"]) >= 9
        assert float(found["w2a2"]) >= 5
        assert picture_of(cortex_a53, "picture").startswith(b"\x89PNG")

    def test_the_loop_looks_up(self, cortex_a53):
        assert re.search(r"arm/lut_sum: .*\d+ tbl", text_of(cortex_a53, "loop"))


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> NotebookNode:
    """The notebook of a network, executed for a smaller image and fewer channels."""
    pytest.importorskip("onnx")
    path = FOLDER / "04_a_network.ipynb"
    return execute(path, tmp_path_factory.mktemp("network"), "SIZE, WIDTH, SEED = 17, 5, 1")


class TestANetwork:
    def test_the_model_becomes_steps_whose_library_is_exact(self, network):
        assert re.search(r"^82 nodes became 21 steps$", text_of(network, "read"), re.M)
        ours, theirs = text_of(network, "oracle").splitlines()
        assert ours.split()[1:] == theirs.split()[1:]
        assert "equal to the oracle, bit for bit: True" in text_of(network, "build")

    def test_arena_and_time_are_drawn(self, network):
        assert re.search(r"^arena \d+ bytes, needed at once \d+", text_of(network, "plan"), re.M)
        for cell in ("plan", "time"):
            assert picture_of(network, cell).startswith(b"\x89PNG")


@pytest.mark.nightly
def test_two_bits_are_learned(tmp_path):
    for module in ("torch", "mlxtend", "onnx"):
        pytest.importorskip(module)
    notebook = execute(FOLDER / "05_two_bits.ipynb", tmp_path, "EPOCHS, SEED = 3, 1")
    exact = re.findall(r"([\d.]+) %", text_of(notebook, "train") + text_of(notebook, "library"))
    assert float(exact[2]) > 80
    assert abs(float(exact[3]) - float(exact[2])) < 1
