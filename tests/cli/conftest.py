import pytest

from gbn import cli
from tests.cli.calling import ROOT, call


@pytest.fixture
def gbn(capsys):
    """Carry out a verb in this process: (verb, *arguments) -> (exit status, output, errors)."""

    def run(verb, *arguments):
        with pytest.raises(SystemExit) as ended:
            cli.leave_with(lambda: call(verb, *arguments))
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def root():
    return ROOT
