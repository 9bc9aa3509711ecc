import sys
from pathlib import Path

import pytest

from gbn import cli
from tests.scripts.calling import loaded

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a script in this process: (name, *arguments) -> (exit status, output, errors)."""
    monkeypatch.syspath_prepend(ROOT / "scripts")  # as when it is called

    def run(name, *arguments):
        module = loaded(name)
        monkeypatch.setattr(sys, "argv", [f"scripts/{name}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main(module.parser, module.run)
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def root():
    return ROOT
