"""Every verb, every option: a wrong line is one line on standard error and status 2, and nothing is written.

Wrong lines are generated from the verbs' own parsers, so that a new verb or option takes part without a word
here; an option that takes any text has to have a wrong line in :data:`tests.cli.lines.WRONG`.
"""

import contextlib
import io
import os
import re
import shlex
import signal
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gbn import cli
from gbn.config import grid
from gbn.store.archive import Archive
from gbn.store.records import RunStore
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs
from tests.cli.calling import ROOT, VERBS, call
from tests.cli.lines import BLOCKED, RIGHT, WRONG, wrong_values

ARMS = {"bn": Arm(), "gbn_cvar": Arm(speed=1.5, norm={"quadrangle": "cvar"})}
GRID = SimulatedGrid(ARMS, seeds=range(2), levels={"": {"optimizer.lr": "0.1"}})
SWEEP = """
title: "tiny: a test"
base: [model=mlp, model.width=0.125, model.depth=2, trainer.epochs=1, trainer.device=cpu]
settings: {one: [], two: [optimizer.lr=0.2]}
arms: {bn: [norm=bn], gbn_cvar: [norm=gbn_cvar]}
reference: bn
seeds: 2
targets: [0.2]
scales:
  small: {settings: [one]}
"""


class Hung(BaseException):
    """A verb that a wrong line started."""


@contextlib.contextmanager
def limit(seconds):
    def hung(*_):
        raise Hung

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with runs, an archive, experiments and things that are in the way; verbs run in it."""
    folder = tmp_path_factory.mktemp("world")
    write_runs(GRID.records(), folder / "results")
    Archive(folder / "results").add(RunStore(folder / "results"), "simulated")
    tiny = folder / "experiments" / "tiny"
    tiny.mkdir(parents=True)
    (tiny / "sweep.yaml").write_text(SWEEP)
    (folder / "experiments" / "papers.yaml").write_text(yaml.safe_dump({}))
    (folder / "empty").mkdir()
    (folder / "file").write_text("in the way")
    (folder / "blocked" / "CLAIMS.md").mkdir(parents=True)
    for name in ("archive", "figures", "runs", "scratch"):
        (folder / "blocked" / name).write_text("in the way")
    (folder / "dangling").symlink_to(folder / "gone")
    (folder / "rows.csv").write_text("a,b\n1,2\n")
    (folder / "empty.csv").write_text("")
    (folder / "binary.csv").write_bytes(bytes(range(256)))
    load_grid = grid.load_grid

    def load(path, *rest, **options):
        return GRID if Path(path).name == "simulated" else load_grid(path, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(grid, "load_grid", load)
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_API_KEY", raising=False)
        run("table", "--runs", "*", "--out", "first")  # what is read once is kept in a cache
        run("table", "--runs", "*", "--out", "first", "--source", "archive")
        yield folder


def run(name, *line):
    """(status, output, errors) of a verb in this process."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with limit(60), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.leave_with(lambda: call(name, *line))
    except SystemExit as ended:
        return ended.code, out.getvalue(), err.getvalue()


def snapshot(folder):
    """What would tell that something was written in `folder`, or among the repository's results."""
    seen = {path: os.lstat(path) for path in folder.rglob("*")}
    ours = [ROOT / "results", *(path for path in (ROOT / "results").iterdir() if path.is_dir())]
    times = {path: path.stat().st_mtime_ns for path in ours}
    return times | {path: (found.st_size, found.st_mtime_ns) for path, found in seen.items()}


def refused(world, name, line, names=""):
    """Check that a verb refuses a line as it should."""
    before = snapshot(world)
    status, out, err = run(name, *line)
    shown = f"{name} {shlex.join(line)}: {out}{err}"
    assert status == 2, shown
    assert re.fullmatch("error: [^\n]{10,}\n", err), shown
    assert "Traceback" not in err, shown
    assert any(one in err for one in ([names] if isinstance(names, str) else names)), shown
    assert out == "", shown
    assert snapshot(world) == before, shown


def actions(name):
    """The options of a verb that take a value, and its flags."""
    found = [one for one in cli.parser_of(name)[0]._actions if one.option_strings and one.dest != "help"]
    return [one for one in found if one.nargs != 0], [one for one in found if one.nargs == 0]


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_s_help_has_examples_and_exit_statuses(name):
    text = cli.parser_of(name)[0].format_help()
    assert text.startswith(f"usage: gbn {name} ")
    assert f"\nExamples:\n    gbn {name}" in text
    assert "exit status:\n  0    done\n" in text
    assert "  2    cannot be done" in text
    assert "  130  stopped by Ctrl-C" in text


def test_every_free_text_has_a_wrong_line(world):
    for name in VERBS:
        for action in actions(name)[0]:
            if wrong_values(action) is None:
                option = action.option_strings[-1]
                assert any(option in line.split() for line, _ in WRONG.get(name, ())), f"{name} {option}"


@pytest.mark.parametrize(
    ("name", "line", "names"),
    [(name, line, names) for name, lines in WRONG.items() for line, names in lines],
)
def test_what_does_not_exist_or_go_together_is_refused(world, name, line, names):
    words = [GRID.cells[0].run_ids[0] if word == "RUN" else word for word in line.split(" ") if line]
    refused(world, name, words, names)


@pytest.mark.parametrize(("name", "line"), BLOCKED)
def test_results_that_cannot_be_written_are_refused_before_anything_is_made(world, name, line):
    refused(world, name, [*line.split(), "--results", "blocked"], "blocked/")


@st.composite
def wrong_lines(draw, name):
    """A right line with one thing wrong in it."""
    valued, flags = actions(name)
    right = RIGHT.get(name, [])
    known = {option for action in (*valued, *flags) for option in action.option_strings}
    kinds = ["unknown", "typo"] + ["value"] * 6 + ["missing"] * bool(valued)
    kind = draw(st.sampled_from(kinds))
    if kind == "unknown":
        option = "--" + draw(
            st.text("abcdefghij-", min_size=2, max_size=12).filter(lambda text: text[0] != "-")
        )
        assume(option not in known)
        return [*right, option], option
    if kind == "typo":
        option = draw(st.sampled_from(sorted(known)))
        place = draw(st.integers(2, len(option) - 1))
        typo = option[:place] + option[place + 1 :]
        assume(typo not in known and len(typo) > 3 and not typo.startswith("---"))
        return [*right, typo], typo
    if kind == "missing":
        action = draw(st.sampled_from(valued))
        assume(action.nargs != "*")
        return [*right, action.option_strings[-1]], action.option_strings[-1]
    candidates = [action for action in valued if wrong_values(action) is not None]
    assume(candidates)
    action = draw(st.sampled_from(candidates))
    allowed = ["--"] if action.nargs == "*" else []  # an empty list
    value, option = (
        draw(st.sampled_from([value for value in wrong_values(action) if value not in allowed])),
        action.option_strings[-1],
    )
    words = [f"{option}={value}"] if draw(st.booleans()) else [option, value]
    return (words + right if draw(st.booleans()) and action.nargs is None else right + words), option


@pytest.mark.parametrize("name", VERBS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(data=st.data())
def test_a_wrong_line_is_one_line(world, name, data):
    line, option = data.draw(wrong_lines(name))
    assume(not (option == "--out" and "--out=new" in line))
    # -inf is no number to argparse: it is taken for an option and named itself
    own = [word for word in line if re.fullmatch(r"-[a-z]\w*", word)]
    refused(world, name, line, "" if line[-1] == "--" else (option, *own))
