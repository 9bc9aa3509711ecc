"""Every script, every option: a wrong line is one line on standard error and status 2, and nothing is written.

Wrong lines are generated from the scripts' own parsers, so that a new script or option takes part without a word
here; an option that takes any text has to have a wrong line in :data:`WRONG`.
"""

import contextlib
import io
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gbn import arguments, cli
from gbn.analysis.simulate import Arm, SimulatedGrid, write_runs
from gbn.config import grid as grids
from gbn.config.seeds import seed_list
from gbn.store.archive import Archive
from gbn.store.records import RunStore
from tests.scripts.calling import ROOT, SCRIPTS, loaded

ARMS = {"bn": Arm(), "gbn_cvar": Arm(speed=1.5, norm={"quadrangle": "cvar"})}
GRID = SimulatedGrid(ARMS, seeds=range(2))
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
#: A line of each script that is right but for what is added to it, in the folder of `world`.
RIGHT = {
    "archive": ["--runs", "*"],
    "bench/gpu": ["--out", "new"],
    "cost": ["experiments/tiny"],
    "gradient_variance": ["experiments/tiny", "--setting", "one", "--trajectory", "bn", "--exact", "bn"],
    "patients_table": ["experiments/tiny"],
    "performance_profile": ["experiments/simulated"],
    "plot_convergence": ["--runs", "*"],
    "plot_layers": ["--runs", "*"],
    "plot_samples": ["experiments/tiny"],
    "plot_segmentation": ["experiments/tiny"],
    "report": ["--runs", "*"],
    "reproduce": ["experiments/tiny"],
    "select_arms": ["experiments/simulated"],
    "select_rates": ["experiments/simulated"],
    "speedup_table": ["--runs", "*"],
    "wandb_sync": ["--runs", "*"],
    "watch": ["experiments/tiny"],
}
MEASURED = [
    ("--runs nosuch-*", "nosuch"),
    ("--runs * --reference nosuch", "nosuch"),
    ("--runs * --measure nosuch", "nosuch"),
    ("--runs * --measure val_dice", "val_dice"),
    ("--runs * --targets 0.5 7", "7"),
    ("--runs * --scale small", "--scale"),
    ("experiments/tiny --runs *", "one of them"),
    ("experiments/tiny --reference bn", "--reference"),
    ("experiments/tiny --name mine", "--name"),
    ("experiments/nosuch", "nosuch"),
    ("experiments/tiny --scale nosuch", "nosuch"),
    ("", "give an experiment"),
]
PICTURED = [
    ("nosuch-run", "nosuch"),
    ("experiments/tiny --scale nosuch", "nosuch"),
    ("experiments/tiny --setting nosuch", "nosuch"),
    ("experiments/tiny --arms bn nosuch", "nosuch"),
    ("experiments/tiny --seed 77", "77"),
    ("experiments/tiny experiments/tiny", "one experiment"),
    ("RUN --setting one", "--setting"),
    ("RUN --arms bn", "--arms"),
    ("RUN --seed 0", "--seed"),
    ("RUN --scale small", "--scale"),
    ("experiments/tiny --results nosuch", "nosuch"),
]
RENDERED = [
    ("--render rows.csv", "rows.csv"),
    ("--render binary.csv", "binary.csv"),
    ("--render empty.csv", "empty.csv"),
]
#: Names that nothing has, and lines that contradict themselves, with what the error has to name.
WRONG = {
    "archive": [
        ("--runs nosuch-*", "nosuch"),
        ("experiments/nosuch", "nosuch"),
        ("experiments/tiny", "nothing found"),
        ("experiments/tiny --check", "experiments/tiny"),
        ("--retract nosuch --reason x", "nosuch"),
        ("--retract RUN", "--reason"),
        ("--retract RUN --reason ", "--reason"),
        ("--retract RUN --reason x --shard nosuch", "nosuch"),
        ("--retract RUN --reason x --dry-run", "--dry-run"),
        ("--runs * --reason x", "--reason"),
        ("--runs * --shard x", "--shard"),
        ("--check --label x", "--label"),
        ("--check --results empty", "empty"),
        ("--runs * --source archive", "--source"),
    ],
    "bench_norm": [("--pairs std nosuch", "nosuch"), ("--pairs cvar[alpha=nan]", "alpha"), *RENDERED],
    "bench_precondition": RENDERED,
    "bench_train": [("--arms bn nosuch", "nosuch"), ("--arms gbn_cvar@nosuch", "nosuch"), *RENDERED],
    "claims": [
        ("--experiment nosuch", "nosuch"),
        ("--experiment tiny", "tiny"),
        ("--folder empty", "papers.yaml"),
        ("--write --experiment tiny", "--write"),
        ("--write --check-dates", "--write"),
        ("--check-dates --source store", "--source"),
    ],
    "cost": [
        ("experiments/tiny --settings one nosuch", "nosuch"),
        ("experiments/tiny --arms nosuch", "nosuch"),
        ("experiments/tiny --elsewhere", "--times"),
        ("experiments/tiny --results results", "--times"),
        ("experiments/tiny --render rows.csv", "rows.csv"),
        ("experiments/tiny --render binary.csv", "binary.csv"),
        ("experiments/tiny --render rows.csv --blocks 3", "--blocks"),
        ("experiments/tiny --blocks 1", "1"),
    ],
    "gradient_variance": [
        ("experiments/tiny", "--setting"),
        ("experiments/tiny --setting nosuch", "nosuch"),
        ("experiments/tiny --setting one --arms nosuch", "nosuch"),
        ("experiments/tiny --setting one --trajectory nosuch", "nosuch"),
        ("experiments/tiny --setting one --trajectory bn --exact nosuch", "nosuch"),
        ("experiments/tiny --setting one --trajectory bn --exact bn --seeds 77", "77"),
        ("experiments/tiny --render rows.csv", "one of them"),
        ("--render rows.csv --layer x", "--layer"),
        ("--render rows.csv", "rows.csv"),
        ("--render binary.csv", "binary.csv"),
    ],
    "hessian_condition": [*RENDERED, ("--render rows.csv --seeds 1", "--seeds")],
    "patients_table": [("experiments/nosuch", "nosuch"), ("experiments/tiny --runs *", "--runs")],
    "performance_profile": [
        ("experiments/nosuch", "nosuch"),
        ("experiments/tiny@nosuch", "nosuch"),
        ("experiments/simulated --arms nosuch", "nosuch"),
        ("experiments/simulated --measure nosuch", "nosuch"),
        ("experiments/simulated --measure val_dice", "val_dice"),
        ("experiments/simulated --r-max 1", "1"),
    ],
    "plot_convergence": [
        *MEASURED,
        ("--runs * --matrix --linear", "--linear"),
        ("--runs * --matrix", "No matrix"),
    ],
    "plot_layers": [
        *MEASURED,
        ("--runs * --quantities nosuch", "nosuch"),
        ("--runs * --layers nosuch", "layers"),
    ],
    "plot_samples": [*PICTURED, ("experiments/tiny --images 9", "9"), ("RUN --at 5", "pictures")],
    "plot_segmentation": [*PICTURED, ("experiments/tiny --setting one --overlay nosuch", "nosuch")],
    "report": MEASURED,
    "reproduce": [
        ("experiments/nosuch", "nosuch"),
        ("experiments/tiny --scale nosuch", "nosuch"),
        ("experiments/tiny --seeds 0,77", "77"),
        ("experiments/tiny nosuch=1", "nosuch"),
        ("experiments/tiny results_dir=elsewhere", "--results"),
        ("experiments/tiny ++results_dir=elsewhere", "--results"),
        ("experiments/tiny --results new results_dir=elsewhere", "--results"),
        ("experiments/tiny seed=5", "--seeds"),
        ("experiments/tiny experiment=mine", "experiment"),
        ("experiments/tiny norm=bn,gbn_cvar", "norm"),
    ],
    "select_arms": [
        ("experiments/simulated --setting nosuch", "nosuch"),
        ("experiments/tiny", "--setting"),
        ("experiments/simulated --without nosuch", "nosuch"),
        ("experiments/nosuch", "nosuch"),
    ],
    "select_rates": [("experiments/nosuch", "nosuch"), ("experiments/tiny --scale nosuch", "nosuch")],
    "speedup_table": MEASURED,
    "wandb_sync": [
        ("--runs nosuch-* --dry-run", "nosuch"),
        ("--runs nosuch-* --dry-run --from-archive", "nosuch"),
        ("experiments/nosuch", "nosuch"),
        ("", "give an experiment"),
    ],
    "watch": [
        ("--runs nosuch-* --once", "nosuch"),
        ("experiments/nosuch", "nosuch"),
        ("experiments/tiny nosuch=1", "nosuch"),
        ("experiments/tiny results_dir=elsewhere", "--results"),
        ("experiments/tiny --seeds 77", "77"),
        ("experiments/tiny --measure nosuch", "nosuch"),
        ("--runs * --seeds 0", "--seeds"),
        ("--runs * --once --stay", "--stay"),
    ],
}

#: What would write into the results folder.
BLOCKED = (
    "archive --runs *",
    "claims --write --folder experiments",
    "patients_table experiments/tiny",
    "performance_profile experiments/simulated",
    "plot_convergence --runs *",
    "plot_layers --runs *",
    "plot_samples experiments/tiny",
    "plot_segmentation experiments/tiny",
    "report --runs *",
    "reproduce experiments/tiny",
    "select_rates experiments/simulated --plot",
    "speedup_table --runs *",
)
LONG = "x" * 300
#: What no numeric option takes.
NO_NUMBERS = (
    "",
    " ",
    "ten",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1",
    "-0.5",
    "0x10",
    "1,5",
    "9" * 400,
    "--",
    "NaN",
    "∞",
)
NO_OUTPUT_FOLDERS = ("", "file", "file/below", "dangling", "dangling/below", LONG, f"new/{LONG}", "/proc/gbn")
NO_OUTPUT_FILES = ("", "empty", "file/below", "dangling/below", LONG, "/proc/gbn/x", "empty/")
NO_INPUTS = ("", "nosuch", "dangling", LONG, "file/below")


def wrong_values(action):
    """What an option must refuse; None where it takes any text."""
    kind = action.type
    if isinstance(kind, arguments.Whole):
        return [*NO_NUMBERS, "1.5", "1e3", str(kind.least - 1), str(kind.most + 1)]
    if isinstance(kind, arguments.Number):
        return [*NO_NUMBERS, *([] if kind.zero else ["0", "-0.0"]), repr(kind.most * 2)]
    known = {
        arguments.duration: [*NO_NUMBERS, "0", "5d", "1e3", "9" * 20 + "h"],
        arguments.name: ["", " ", "..", ".hidden", "a/b", "/a", LONG, "a\nb"],
        arguments.output_folder: NO_OUTPUT_FOLDERS,
        arguments.output_file: NO_OUTPUT_FILES,
        arguments.existing_folder: [*NO_INPUTS, "file"],
        arguments.existing_file: [*NO_INPUTS, "empty"],
        seed_list: ["", "-1", "a", "1-", "5-4", "0,5-4", "0-999999999", "9" * 30, "1.5", "nan"],
    }
    if kind in known:
        return known[kind]
    if action.choices is not None:
        return ["nosuch", "", " ".join(action.choices), next(iter(action.choices)).upper() + "x"]
    if getattr(kind, "__name__", "") == "shape":
        return ["", "4x4", "0x3x5x5", "4x3x5x5x5", "axbxcxd", "-1x3x5x5", "4x3x5xinf", "4x3x5x" + "9" * 30]
    assert kind is None, f"{action.option_strings}: no wrong value is known of {kind}"
    return None


class Hung(BaseException):
    """A script that a wrong line started."""


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
    """A folder with runs, an archive, experiments and things that are in the way; scripts run in it."""
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
    load_grid = grids.load_grid

    def load(path, *rest, **options):
        return GRID if Path(path).name == "simulated" else load_grid(path, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(ROOT / "scripts")
        patch.setattr(grids, "load_grid", load)
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_API_KEY", raising=False)
        run("speedup_table", "--runs", "*", "--out", "first")  # what is read once is kept in a cache
        run("speedup_table", "--runs", "*", "--out", "first", "--source", "archive")
        yield folder


def run(name, *line):
    """(status, output, errors) of a script in this process."""
    module, argv = _module(name), sys.argv
    out, err = io.StringIO(), io.StringIO()
    sys.argv = [f"scripts/{name}.py", *line]
    try:
        with limit(60), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main(module.parser, module.run)
    except SystemExit as ended:
        return ended.code, out.getvalue(), err.getvalue()
    finally:
        sys.argv = argv


_MODULES = {}


def _module(name):
    if name not in _MODULES:
        _MODULES[name] = loaded(name)
    return _MODULES[name]


def snapshot(folder):
    """What would tell that something was written in `folder`, or among the repository's results."""
    seen = {path: os.lstat(path) for path in folder.rglob("*")}
    ours = [ROOT / "results", *(path for path in (ROOT / "results").iterdir() if path.is_dir())]
    times = {path: path.stat().st_mtime_ns for path in ours}
    return times | {path: (found.st_size, found.st_mtime_ns) for path, found in seen.items()}


def refused(world, name, line, names=""):
    """Check that a script refuses a line as it should."""
    before = snapshot(world)
    status, out, err = run(name, *line)
    shown = f"{name} {shlex.join(line)}: {out}{err}"
    assert status == 2, shown
    assert re.fullmatch("error: [^\n]{10,}\n", err), shown
    assert "Traceback" not in err, shown
    assert names in err, shown
    assert out == "", shown
    assert snapshot(world) == before, shown


def actions(name):
    """The options of a script that take a value, and its flags."""
    found = [one for one in _module(name).parser()._actions if one.option_strings and one.dest != "help"]
    return [one for one in found if one.nargs != 0], [one for one in found if one.nargs == 0]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_the_shared_entry(world, name):
    module = _module(name)
    assert isinstance(module.parser(), cli.Parser)
    text = (ROOT / "scripts" / f"{name}.py").read_text()
    assert text.endswith("    cli.main(parser, run)\n")
    text = module.parser().format_help()
    assert "exit status:\n  0    done\n" in text
    assert "  2    cannot be done" in text
    assert "  130  stopped by Ctrl-C" in text


def test_every_free_text_has_a_wrong_line(world):
    for name in SCRIPTS:
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


@pytest.mark.parametrize("line", BLOCKED)
def test_results_that_cannot_be_written_are_refused_before_anything_is_made(world, line):
    name, *rest = line.split()
    refused(world, name, [*rest, "--results", "blocked"], "blocked/")


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


@pytest.mark.parametrize("name", SCRIPTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(data=st.data())
def test_a_wrong_line_is_one_line(world, name, data):
    line, option = data.draw(wrong_lines(name))
    assume(not (option == "--out" and "--out=new" in line))
    refused(world, name, line, "" if line[-1] == "--" else option)
