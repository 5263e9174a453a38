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
    "lazily": 0,
    "supervise": 0,
    "formats": 0,
    "tuning_logs": 0,
    "imports": 0,
    "ops": 1,
    "target": 1,
    "tir": 1,
    "algorithms": 2,
    "isa": 2,
    "space": 2,
    "verdicts": 2,
    "schedules": 3,
    "cost": 4,
    "templates": 4,
    "records": 4,
    "build": 4,
    "network": 5,
    "onnx": 5,
    "planner": 5,
    "plans": 5,
    "sensitivity": 5,
    "quantize": 5,
    "tune": 5,
    "bench": 5,
    "farm": 5,
    "cli": 6,
    "notebook": 6,
    "torch": 6,
}
# A folder of schedules -> those it may import from. A family's parts are its own, but that AMX is
# an extension of x86; `common` names x86 until vector operations have a place of their own.
FAMILIES = {
    **{"common": set(), "generic": {"common"}, "x86": {"common"}, "amx": {"common", "x86"}},
    "arm": {"common"},
    "riscv": {"common"},
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


def family(module: str) -> str | None:
    """The folder of schedules that a module lies in."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["lpgen", "schedules"] and len(parts) > 2 else None


def modules_used(module: str) -> set[str]:
    """The modules of lpgen that the module imports from, a package for what is no module of it."""
    found = set()
    for node in ast.walk(ast.parse(sources()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in sources() else node.module for name in names}
    return found


def test_the_sources_are_found():
    assert {"lpgen.errors", "lpgen.ops.dense", "lpgen.target"} <= set(sources())
    assert "lpgen.formats" in imports(sources()["lpgen.ops.operator"])
    assert "tvm" in imports(sources()["lpgen.build.lower"])


def test_every_room_has_a_floor():
    assert {room(module) for module in sources()} <= {*FLOORS, ASIDE}


def test_imports_go_down():
    offenders = []
    for module in sorted(sources()):
        own = room(module)
        for used in sorted(rooms_used(module)):
            if own == ASIDE:
                allowed = used == "errors"
            elif used == ASIDE:
                allowed = FLOORS[own] >= 4
            else:
                allowed = FLOORS.get(used, 99) <= FLOORS[own]
            if not allowed:
                offenders.append(f"{module} imports lpgen.{used}, no room or a floor above it")
    assert not offenders, "\n".join(offenders)


def test_rooms_of_one_floor_do_not_import_each_other_in_a_circle():
    graph = {}
    for module in sources():
        graph.setdefault(room(module), set()).update(rooms_used(module))
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("errors") < order.index("ops")


def test_operators_stand_on_their_parts():
    """No module of `ops` imports, not even for its types, one that imports it."""
    own = {name for name in sources() if room(name) == "ops" and name != "lpgen.ops"}
    graph = {name: modules_used(name) & own for name in own}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("lpgen.ops.lhs") < order.index("lpgen.ops.product")


def test_schedules_import_their_family_and_what_is_common():
    folders = {family(module) for module in sources()} - {None}
    assert folders == set(FAMILIES)
    offenders = [
        f"{module} imports {name}"
        for module in sorted(sources())
        for name in sorted(imports(sources()[module]))
        if (own := family(module)) and (used := family(name))
        if used not in {own, *FAMILIES[own]}
    ]
    assert not offenders, "\n".join(offenders)


def test_the_runtime_needs_no_compiler():
    for module in sources():
        if room(module) == ASIDE:
            outside = {name.split(".")[0] for name in imports(sources()[module])} - {"lpgen"}
            assert outside <= RUNTIME_MAY_USE, module


def test_schedules_are_found_by_path_never_named():
    schedules = {name for name in sources() if name.startswith("lpgen.schedules.")}
    offenders = []
    for module in sorted(set(sources()) - schedules):
        tree = ast.parse(sources()[module].read_text(encoding="utf-8"))
        constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        texts = {value for value in constants if isinstance(value, str)}
        named = {name for name in imports(sources()[module]) if name.startswith("lpgen.schedules.")}
        offenders += [f"{module} names {name}" for name in sorted(named | schedules & texts)]
    assert not offenders, "\n".join(offenders)


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


def test_a_device_imports_no_compiler_and_no_search():
    """What it is asked for: to measure candidates, to check and to time libraries."""
    asked = "lpgen.farm.device, lpgen.bench.measure, lpgen.bench.network, lpgen.network.check"
    parse = "lpgen.ops; lpgen.ops.parse('dense m=1 n=4 k=8 act=u8 weight=s8')"
    loaded = loaded_by(f"{asked}, {parse}")
    assert not loaded & {"tvm", "scipy", "xgboost", "rich", "click"}


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
