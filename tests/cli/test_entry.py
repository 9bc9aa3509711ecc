"""How a command begins and ends: its imports, Ctrl-C, a closed pipe, missing letters, full disks, names."""

import io
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gbn import cli
from gbn.store.archive import Archive
from gbn.store.records import RunStore
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs
from tests.cli.calling import ROOT, VERBS, call

GRID = SimulatedGrid({"bn": Arm(), "gbn_cvar": Arm(speed=1.5)}, seeds=range(3))
#: What takes long to import.
HEAVY = ("torch", "numpy", "pandas", "pyarrow", "scipy", "matplotlib", "hydra", "pydantic", "wandb", "yaml")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
#: Lines that print what a table has beside plain letters.
PRINTING = {
    "archive": "--runs * --dry-run",
    "claims": f"--folder {ROOT / 'experiments'} --experiment gbn_mnist --source store",
    "profile": "experiments/simulated",
    "report": "--runs *",
    "select arms": "experiments/simulated",
    "table": "--runs *",
    "watch": "--runs * --once",
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """results/ of the working directory."""
    write_runs(GRID.records(), tmp_path / "results")
    Archive(tmp_path / "results").add(RunStore(tmp_path / "results"), "simulated")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gbn.config.grid.load_grid", lambda path, scale=None, **_: GRID)
    return tmp_path / "results"


def test_no_verb_loads_anything_heavy_before_its_line_is_known_to_be_right():
    code = f"""
import sys
from gbn import cli
cli.carry_out(["--help"])
for name in {VERBS}:
    cli.parser_of(name)[0].format_help()
    loaded = {{*{HEAVY}}} & {{*sys.modules}}
    assert not loaded, (name, loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["table", "reproduce", "bench norm", "study variance"])
def test_ctrl_c_while_a_verb_loads_is_no_traceback(tmp_path, name):
    """Whatever is imported first is when the key is pressed."""
    for module in HEAVY:
        (tmp_path / f"{module}.py").write_text(
            "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(60)\n"
        )
    line = [] if name == "bench norm" else ["experiments/quick"]
    done = subprocess.run(
        [sys.executable, "-m", "gbn", *name.split(), *line],
        cwd=ROOT,
        env=ENVIRONMENT | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stdout) == (cli.STOPPED, "")
    assert re.fullmatch("stopped(; the same command resumes from here)?\n", done.stderr)


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_went_away_is_no_error(results, buffered):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [
            sys.executable,
            *([] if buffered else ["-u"]),
            "-m",
            "gbn",
            "archive",
            "--runs",
            "*",
            "--dry-run",
        ],
        cwd=results.parent,
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": ""},
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=600,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (cli.UNREAD, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_output_that_cannot_be_written_is_one_line(results):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gbn", "archive", "--runs", "*", "--dry-run"],
            cwd=results.parent,
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=600,
            check=False,
        )
    assert done.returncode == cli.WRONG
    assert re.fullmatch(rb"error: .*No space left.*\n", done.stderr)


@pytest.mark.parametrize("name", PRINTING)
def test_a_terminal_without_the_letters_gets_plain_ones(results, monkeypatch, name):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    with pytest.raises(SystemExit) as ended:
        cli.leave_with(lambda: call(name, *PRINTING[name].split()))
    text = shown.buffer.getvalue()
    assert ended.value.code == 0
    assert len(text) > 50
    text.decode("ascii")


ODD = (
    "a b",
    "é",
    "a=b",
    "a,b",
    "(a",
    "a)",
    "it's",
    'say "x"',
    "#1",
    "{x}",
    "$HOME",
    "~me",
    "a\\b",
    "-a",
    "[a]",
    "%d",
)


@pytest.mark.parametrize("folder", ODD)
def test_any_name_can_be_a_results_folder(gbn, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    experiment = tmp_path / "experiments" / "an odd, (é) = name"
    experiment.mkdir(parents=True)
    (experiment / "sweep.yaml").write_text(
        "base: [model=mlp, trainer.epochs=1]\narms: {bn: [norm=bn]}\nreference: bn\nseeds: 1\n"
    )
    trained = []

    def train_all(missing, **_):
        trained.extend(missing)
        return []

    monkeypatch.setattr("gbn.sweep.train_all.train_all", train_all)
    status, _, err = gbn("reproduce", experiment, f"--results={folder}")
    assert (status, err) == (0, "")
    ((_, config),) = trained
    assert config.results_dir == folder
    assert config.experiment == experiment.name
    write_runs(GRID.records(), folder)
    status, out, err = gbn("table", "--runs", "*", f"--results={folder}")
    assert (status, err) == (0, ""), out
    assert len(list(Path(folder, "scratch", "tables").iterdir())) == 3


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("table --runs *", "scratch/tables"),
        ("report --runs *", "scratch/reports"),
        ("profile experiments/simulated", "scratch/profiles"),
    ],
)
def test_a_full_disk_leaves_the_files_as_they_were(gbn, results, line, written):
    resource = pytest.importorskip("resource")
    name, *rest = line.split()
    assert gbn(name, *rest)[0] == 0
    folder = results / written
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(old) >= 1
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then the write fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        status, _, err = gbn(name, *rest, *([] if "--runs" not in rest else ["--targets", "0.5"]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (status, err.count("\n")) == (2, 1), err
    assert {name: (folder / name).read_bytes() for name in old} == old


COMMAND = re.compile(rf"(?:python scripts/(\w+)\.py|\bgbn(?= (?:{'|'.join(VERBS)}) )) ?([^`\n|<\"]*)")
TEXTS = [ROOT / "README.md", ROOT / "results" / "README.md", ROOT / "conf" / "config.yaml"]
TEXTS += [*(ROOT / "experiments").rglob("*.md"), *(ROOT / "gbn" / "cli").glob("[!r]*.py")]


def test_every_command_in_the_texts_is_right(monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = {
        (script, command.strip()): path
        for path in TEXTS
        for script, command in COMMAND.findall(path.read_text())
        if not re.search(r"--render\s*$|[A-Z]{3,}\b|\{|\.\.\.", command)
    }
    assert len(commands) > 100
    for (script, command), path in commands.items():
        words = shlex.split(command, comments=True)
        if script:  # a thin entry point
            entry = (ROOT / "scripts" / f"{script}.py").read_text()
            words = re.findall(r'"(\w+)"', entry.partition("main(")[2]) + words
        verb = next(name for name in cli.VERBS if " ".join(words).startswith(name))
        line = words[len(verb.split()) :]
        if "--render" in line:  # a file of another machine
            line[line.index("--render") + 1 :] = ["README.md"]
        try:
            cli.parser_of(verb)[0].parse(line)
        except ValueError as error:
            pytest.fail(f"{path}: {command}: {error}")


def test_an_entry_point_is_its_verb():
    """Those of earlier texts stay, as a few lines each."""
    entries = [ROOT / "train.py", *(ROOT / "scripts").glob("*.py")]
    assert len(entries) > 20
    for path in entries:
        words = re.findall(r'"(\w+)"', path.read_text().partition("    main(")[2])
        assert " ".join(words) in cli.VERBS, path


@pytest.mark.parametrize("line", ["tabel", "plot", "plot layres", "bench gpus --out x", "--verbose"])
def test_a_wrong_verb_is_one_line_with_the_nearest(gbn, line):
    status, out, err = gbn("", *line.split())
    if line == "plot":  # a group alone lists its verbs
        assert (status, err) == (0, "")
        assert "plot layers" in out
        return
    assert (status, out, err.count("\n")) == (2, "", 1)
    near = {"tabel": "'table'", "plot layres": "'plot layers'", "bench gpus --out x": "'bench gpu'"}
    assert near.get(line, "unknown verb '--verbose'") in err


def test_ctrl_c_among_a_script_s_own_imports_is_no_traceback(tmp_path):
    (tmp_path / "script.py").write_text(
        "from gbn import cli\nimport signal\nsignal.raise_signal(signal.SIGINT)\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "stopped\n")  # a shell says 130


def test_ctrl_c_that_a_library_makes_an_error_of_is_ctrl_c(capsys):

    def run():
        try:
            raise KeyboardInterrupt
        except BaseException as error:
            raise ValueError("the parser failed") from error

    with pytest.raises(SystemExit) as ended:
        cli.leave_with(run)
    assert (ended.value.code, capsys.readouterr().err) == (cli.STOPPED, "stopped\n")
