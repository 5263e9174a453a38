"""The layout: imports go down only, the runtime stands aside, every room has a floor."""

import ast
import graphlib
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each room (a module or package right under lpgen) and its floor.
FLOORS = {
    "errors": 0,
    "process": 0,
    "formats": 0,
    "split": 0,
    "tuning_logs": 0,
    "without_torch": 0,
    "ops": 1,
    "target": 1,
    "algorithms": 2,
    "outliers": 2,
    "space": 2,
    "tir": 2,
    "schedules": 3,
    "cost": 4,
    "templates": 4,
    "record": 4,
    "records": 4,
    "build": 4,
    "assembly": 4,
    "choose": 5,
    "onnx": 5,
    "tune": 5,
    "bench": 5,
    "cli": 6,
    "explore": 6,
}
# Stands aside: what loads libraries is used from floor 4 up, and itself uses only `errors`.
ASIDE = "runtime"
RUNTIME_MAY_USE = {"numpy", "tvm_ffi", *sys.stdlib_module_names}

# A folder in the checkout -> the package that it installs as.
FOLDERS = {"lpgen": "lpgen", "schedules": "lpgen.schedules", "tuning_logs": "lpgen.tuning_logs"}


@cache
def sources() -> dict[str, Path]:
    """Module name -> its file, for all of lpgen but its own `__init__`."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = path
    del found["lpgen"]
    return found


def room(module: str) -> str:
    return module.split(".")[1]


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that the file imports anywhere, functions included, by its full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if node.module in ("lpgen", "lpgen.schedules"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            # `import lpgen` reaches every room by attribute.
            if node.value.id == "lpgen" and node.attr in {*FLOORS, ASIDE}:
                found.add(f"lpgen.{node.attr}")
    return frozenset(found - {"lpgen", "lpgen.__version__"})


def rooms_used(module: str) -> set[str]:
    """Other rooms of lpgen that the module imports from."""
    used = {room(name) for name in imports(sources()[module]) if name.startswith("lpgen.")}
    return used - {room(module)}


def test_the_sources_are_found():
    assert {"lpgen.errors", "lpgen.ops.dense", "lpgen.target"} <= set(sources())
    assert "lpgen.formats" in imports(sources()["lpgen.ops.base"])
    assert "tvm" in imports(sources()["lpgen.target"])


def test_every_room_has_a_floor():
    assert {room(module) for module in sources()} <= {*FLOORS, ASIDE}


@pytest.mark.parametrize("module", sorted(sources()))
def test_imports_go_down(module):
    own = room(module)
    if own == ASIDE:
        assert rooms_used(module) <= {"errors"}
        return
    for used in rooms_used(module):
        if used == ASIDE:
            assert FLOORS[own] >= 4, f"{module} imports {ASIDE}"
        else:
            assert used in FLOORS, f"{module} imports lpgen.{used}, which is no room"
            assert FLOORS[used] <= FLOORS[own], f"{module} imports {used}, a floor above it"


def test_rooms_of_one_floor_do_not_import_each_other_in_a_circle():
    graph = {}
    for module in sources():
        graph.setdefault(room(module), set()).update(rooms_used(module))
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("errors") < order.index("ops")


@pytest.mark.parametrize("module", [name for name in sorted(sources()) if room(name) == ASIDE])
def test_the_runtime_needs_no_compiler(module):
    outside = {name.split(".")[0] for name in imports(sources()[module])} - {"lpgen"}
    assert outside <= RUNTIME_MAY_USE


@pytest.mark.parametrize("module", [n for n in sorted(sources()) if room(n) != "schedules"])
def test_schedules_are_found_by_path_never_named(module):
    path = sources()[module]
    assert not {name for name in imports(path) if name.startswith("lpgen.schedules.")}
    texts = {
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    named = {name for name in sources() if name.startswith("lpgen.schedules.")}
    assert not named & texts


def loaded_by(module: str) -> set[str]:
    """Top-level packages loaded in a fresh process after importing `module`."""
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "module", ["lpgen.ops.suites", "lpgen.target", "lpgen.space", "lpgen.runtime", "lpgen.cli"]
)
def test_the_compiler_is_not_imported_before_it_is_needed(module):
    assert not loaded_by(module) & {"tvm", "xgboost"}


def test_importing_lpgen_imports_nothing_heavy():
    assert not loaded_by("lpgen") & {"numpy", "tvm", "tvm_ffi", "click", "rich", "psutil"}


def test_every_folder_with_modules_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = set(project["tool"]["setuptools"]["packages"])
    found = {name for name, path in sources().items() if path.name == "__init__.py"} | {"lpgen"}
    assert found == packages
    folders = {path.parent for path in sources().values()}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_public_names_are_there():
    import lpgen

    assert {"Conv2d", "Dense", "Format", "Target", "parse", "suites"} <= set(dir(lpgen))
    assert lpgen.parse("dense m=1 n=2 k=3 act=u8 weight=s8") == lpgen.Dense(1, 2, 3, "u8", "s8")
    assert lpgen.suites.suite("bert_base", "u8", "s8")
    assert lpgen.__version__.count(".") >= 1
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lpgen.nothing
