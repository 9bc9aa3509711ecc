"""Imports run down: a package uses only those listed before it, and no modules import each other in a circle."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: From the ground up. What stands on one line does not use its neighbors.
LAYERS = (
    ("suggest", "seeding"),
    ("targets",),
    ("measures", "risk", "data", "models"),
    ("methods",),
    ("kernels", "store"),
    ("nn", "optim", "config", "plot_style"),
    ("surgery", "tasks", "tracking"),
    ("analysis", "engine"),
    ("sweep", "studies"),
    ("bench",),
    ("cli",),
    ("__main__",),
)
FLOOR = {package: floor for floor, packages in enumerate(LAYERS) for package in packages}

#: Never import torch, not even by way of another package: reading, checking and drawing start without it.
WITHOUT_TORCH = (
    "suggest",
    "seeding",
    "plot_style",
    "measures",
    "methods",
    "store",
    "config",
    "analysis",
    "cli",
    "targets",
)


def _modules() -> dict[str, Path]:
    found = {}
    for file in sorted((ROOT / "gbn").rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = file
    return found


MODULES = _modules()


def _known(name: str) -> str:
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def _imports(name: str) -> set[str]:
    """The modules of gbn that one imports, inside of functions as well; not what is for type checkers only."""
    found = set()
    pending: list[ast.AST] = [ast.parse(MODULES[name].read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {_known(one.name) for one in node.names if one.name.split(".")[0] == "gbn"}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parts, *filter(None, [base])])
            if base.split(".")[0] == "gbn":
                found |= {_known(f"{base}.{one.name}") for one in node.names}
        pending.extend(ast.iter_child_nodes(node))
    return found - {name, "gbn"}


IMPORTS = {name: _imports(name) for name in MODULES}


def test_every_package_has_its_floor() -> None:
    assert {name.split(".")[1] for name in MODULES if "." in name} == {*FLOOR}


@pytest.mark.parametrize("package", FLOOR)
def test_imports_run_down(package: str) -> None:
    for name, imported in IMPORTS.items():
        if name.split(".")[1:2] == [package]:
            for other in imported:
                to = other.split(".")[1]
                assert to == package or FLOOR[to] < FLOOR[package], f"{name} imports {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    # a package and a module within it are one there: importing the module runs the package first
    graph = {
        name: {one for one in found if not name.startswith(f"{one}.")} for name, found in IMPORTS.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_what_needs_no_torch_does_without() -> None:
    names = [name for name in MODULES if name.split(".")[1:2] and name.split(".")[1] in WITHOUT_TORCH]
    code = f"import importlib, sys\nfor one in {names}: importlib.import_module(one)\nexit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_architecture_names_is_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:gbn|scripts|conf|tests|experiments)/[\w./]*|[\w]+\.py)`", text)
    assert len(named) > 20
    for path in named:
        assert (ROOT / path).exists(), path
