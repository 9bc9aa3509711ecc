"""Scripts as modules, called in this process."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Every script, as ``claims`` or ``bench/gpu``.
SCRIPTS = sorted(
    path.relative_to(ROOT / "scripts").with_suffix("").as_posix()
    for path in (ROOT / "scripts").rglob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)


def loaded(name):
    """A script as a module; it has to be able to import what lies beside it."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(module, *arguments):
    """Run a module of a script's with these arguments; its status. What is wrong is raised."""
    return module.run(module.parser().parse([str(part) for part in arguments]))
