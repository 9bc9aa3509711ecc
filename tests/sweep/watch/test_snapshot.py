"""The live view: counts, medians at shared updates, what fits on a terminal, beginning and end of a sweep."""

import contextlib
import io
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from gbn.analysis.runs.plan import plan_of_grid
from gbn.store.records import RunStore
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs
from gbn.sweep.watch import run_state
from gbn.sweep.watch.snapshot import Watch
from gbn.sweep.watch.view import follow, render, span

ROOT = Path(__file__).resolve().parents[3]


def text(snapshot, width=100, height=None):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(render(snapshot, height))
    return console.file.getvalue()


def arm_of(snapshot, name, setting=""):
    return next(arm for arm in snapshot.arms if (arm.setting, arm.arm) == (setting, name))


def begin(stack, store, record, points):
    """A run in training: its lock is held until the stack is closed."""
    writer = stack.enter_context(store.writer(record.run_id))
    writer.write_config({**record.config, "trainer": {"epochs": 20}})
    for point in record.curve[:points]:
        writer.append(point)
    return writer


@pytest.fixture
def sweep(tmp_path, make_grid):
    """Seeds 0 and 1 done; of seed 2 bn and gbn_fast in training, bn_matched failed, bn_reparam interrupted."""
    grid = make_grid(seeds=range(4))
    write_runs(
        [record for record in grid.records() if record.run_id.split("-")[-2] in ("s0", "s1")], tmp_path
    )
    store = RunStore(tmp_path)
    with contextlib.ExitStack() as stack:
        begin(stack, store, grid.record("", "bn", 2), 10)
        begin(stack, store, grid.record("", "gbn_fast", 2), 30)
        with contextlib.ExitStack() as ended:
            begin(ended, store, grid.record("", "bn_matched[gbn_fast]", 2), 3).write_error(
                "OSError: disk is full"
            )
            begin(ended, store, grid.record("", "bn_reparam[gbn_fast]", 2), 5)
        yield grid, Watch(tmp_path, plan_of_grid(grid))


def test_every_run_is_counted_once_by_what_became_of_it(sweep):
    _, watch = sweep
    snapshot = watch.look()
    assert dict(snapshot.counts) == {"finished": 8, "running": 2, "failed": 1, "interrupted": 1, "missing": 4}
    assert (snapshot.total, snapshot.done, snapshot.over) == (16, 8, False)
    assert [arm.arm for arm in snapshot.arms] == [
        "bn",
        "gbn_fast",
        "bn_matched[gbn_fast]",
        "bn_reparam[gbn_fast]",
    ]
    running = arm_of(snapshot, "bn").running
    assert list(running) == [2]
    assert running[2].total == 2000


def test_medians_are_at_an_update_that_every_begun_run_has(sweep):
    grid, watch = sweep
    snapshot = watch.look()
    for name, points in (("bn", 10), ("gbn_fast", 30), ("bn_reparam[gbn_fast]", 5)):
        curves = [grid.record("", name, seed).curve for seed in range(3)]
        now = arm_of(snapshot, name).now
        assert now.update == curves[2][points - 1]["update"]
        assert now.runs == 3
        assert now.value == sorted(curve[points - 1]["val_accuracy"] for curve in curves)[1]
        final = arm_of(snapshot, name).final
        assert final.runs == 2
        assert final.value == pytest.approx(sum(curve[-1]["val_accuracy"] for curve in curves[:2]) / 2)
    # A failed run has stopped for good: it does not hold its arm's median back.
    assert arm_of(snapshot, "bn_matched[gbn_fast]").now.update == 2000


def test_a_diverged_run_counts_as_worse_than_any_number(tmp_path, make_grid):
    grid = make_grid(arms={"bn": Arm(), "wild": Arm(diverges_at=500)}, controls={}, seeds=range(2))
    write_runs(grid.records(), tmp_path)
    for measure, worst in (("val_accuracy", -math.inf), ("val_loss", math.inf)):
        snapshot = Watch(tmp_path, plan_of_grid(grid), measure=measure).look()
        assert arm_of(snapshot, "wild").final.value == worst
        assert arm_of(snapshot, "wild").now.value == worst
        assert "diverged @ 500 (2)" in text(snapshot)
        assert "diverged (2)" in text(snapshot)
        assert "2 of the done diverged" in text(snapshot)
        assert snapshot.over


def test_one_diverged_run_of_three_neither_stops_nor_moves_the_median_much(tmp_path, make_grid):
    calm, wild = (
        make_grid(seeds=range(3)),
        make_grid(arms={"bn": Arm(diverges_at=100)}, controls={}, seeds=range(3)),
    )
    records = [calm.record("", "bn", 0), calm.record("", "bn", 1), wild.record("", "bn", 2)]
    write_runs(records, tmp_path)
    bn = arm_of(Watch(tmp_path, plan_of_grid(calm)).look(), "bn")
    assert bn.now.update == 2000
    assert (
        bn.now.value
        == bn.final.value
        == min(records[0].curve[-1]["val_accuracy"], records[1].curve[-1]["val_accuracy"])
    )


@pytest.mark.parametrize("width", [80, 100])
def test_it_reads_well_at_usual_widths(sweep, width):
    _, watch = sweep
    shown = text(watch.look(), width)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert "8/16 done · 2 running · 1 failed · 1 interrupted · 4 missing" in shown
    assert "bn_matched[gbn_fast]" in shown  # and not what rich makes of brackets
    (row,) = [line for line in lines if line.startswith("bn ")]
    assert "2/4" in row
    assert "s2 " in row
    assert "/2000" in row
    assert "bn_matched[gbn_fast] s2: OSError: disk is full" in shown


def test_more_arms_than_lines_show_those_at_work(tmp_path, make_grid):
    names = ["bn", *(f"arm_{number}" for number in range(49))]
    grid = make_grid(arms={name: Arm() for name in names}, controls={}, seeds=range(2), points=10)
    write_runs([grid.record("", name, 0) for name in names[:30]], tmp_path)
    with contextlib.ExitStack() as stack:
        begin(stack, RunStore(tmp_path), grid.record("", "arm_40", 0), 3)
        snapshot = Watch(tmp_path, plan_of_grid(grid)).look()
        shown = text(snapshot, 100, height=24)
    assert len(shown.splitlines()) <= 24
    assert "arm_40" in shown
    assert "arm_45" not in shown
    assert "not shown for lack of space: " in shown
    assert "arm_45" in text(snapshot, 100)


def test_what_is_done_is_read_once(tmp_path, make_grid, monkeypatch):
    def read_again(*_):
        raise AssertionError("a done run was read again")

    grid = make_grid(
        arms={"bn": Arm(), **{f"arm_{n}": Arm() for n in range(49)}}, controls={}, seeds=range(20), points=5
    )
    write_runs(grid.records()[:50], tmp_path)
    watch = Watch(tmp_path, plan_of_grid(grid))
    first = watch.look()
    assert (first.total, first.done) == (1000, 50)
    monkeypatch.setattr(run_state.RunStore, "load", read_again)
    monkeypatch.setattr(run_state, "content_of", read_again)
    assert watch.look() == first


def test_runs_by_pattern_are_found_as_they_appear(tmp_path, make_grid):
    grid = make_grid(seeds=range(2))
    watch = Watch(tmp_path, patterns=["simulated-net-*"])
    assert watch.look().total == 0
    assert not watch.look().over
    assert "no run there yet" in text(watch.look())
    write_runs([grid.record("", "bn", 0)], tmp_path)
    assert watch.look().over
    write_runs([grid.record("", "bn", 1), grid.record("", "gbn_fast", 0)], tmp_path)
    snapshot = watch.look()
    assert [(arm.setting, arm.arm, arm.planned) for arm in snapshot.arms] == [
        ("simulated net", "bn", 2),
        ("simulated net", "gbn_fast", 1),
    ]


def test_arms_of_one_name_are_told_apart(tmp_path, make_grid):
    for momentum in (0.1, 0.2):
        grid = make_grid(arms={"bn": Arm(norm={"momentum": momentum})}, controls={}, seeds=range(2))
        write_runs(grid.records(), tmp_path)
    arms = Watch(tmp_path, patterns=["*"]).look().arms
    assert [arm.planned for arm in arms] == [2, 2]
    assert len({arm.arm for arm in arms}) == 2
    assert all(arm.arm.startswith("bn #") for arm in arms)


def test_a_run_without_a_summary_is_placed_by_its_configuration(tmp_path):
    from gbn.config.compose import compose
    from gbn.store.identity import run_id

    for seed in (0, 1):
        config = compose(["model=mlp", f"seed={seed}", f"results_dir={tmp_path}"])
        with RunStore(tmp_path).writer(run_id(config.as_dict(), config.defaults())) as writer:
            writer.write_config(config.as_dict())
    # The next seed has a folder and nothing in it yet but its lock.
    with RunStore(tmp_path).writer("digits-mlp-bn-s2-0123456789"):
        (arm,) = Watch(tmp_path, patterns=["digits-*"]).look().arms
        assert (arm.arm, arm.planned, list(arm.running)) == ("bn", 3, [2])
    (arm,) = Watch(tmp_path, patterns=["digits-*-s[01]-*"]).look().arms
    assert (arm.setting, arm.arm, arm.planned) == ("digits mlp", "bn", 2)


def test_following_ends_with_the_sweep(tmp_path, make_grid):
    grid = make_grid(seeds=range(1))
    records = grid.records()
    write_runs(records[:2], tmp_path)
    watch = Watch(tmp_path, plan_of_grid(grid))
    looks = []

    def look():
        looks.append(watch.look())
        if len(looks) == 2:
            write_runs(records[2:], tmp_path)
        return looks[-1]

    console = Console(width=90, height=30, file=io.StringIO(), force_terminal=True)
    last = follow(look, console, every=0.01)
    assert [snapshot.done for snapshot in looks] == [2, 2, 4]
    assert last.over
    assert "nothing is left to come" in console.file.getvalue()


class TestScript:
    def script(self, *arguments):
        return subprocess.run(
            [sys.executable, "scripts/watch.py", *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "COLUMNS": "100"},
        )

    def test_a_pipe_gets_one_plain_snapshot(self, tmp_path):
        grid = SimulatedGrid({"bn": Arm(), "gbn_cvar": Arm()}, seeds=range(2))
        write_runs(grid.records(), tmp_path)
        done = self.script("--runs", "*", "--results", tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "4/4 done" in done.stdout
        assert "\x1b" not in done.stdout

    def test_failed_runs_at_the_end_are_a_status(self, tmp_path):
        with RunStore(tmp_path).writer("digits-mlp-bn-s0-0123456789") as writer:
            writer.write_error("ValueError: no")
        done = self.script("--runs", "*", "--results", tmp_path, "--once")
        assert done.returncode == 1
        assert "s0: ValueError: no" in done.stdout

    @pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
    def test_a_terminal_is_kept_fresh_until_interrupted(self, tmp_path):
        with RunStore(tmp_path).writer("digits-mlp-bn-s0-0123456789") as writer:
            writer.append({"update": 5, "epoch": 0.5, "val_accuracy": 0.25})
            ours, theirs = os.openpty()
            watching = subprocess.Popen(
                [sys.executable, "scripts/watch.py", "--runs", "*", "--results", tmp_path, "--every", "0.1"],
                cwd=ROOT,
                stdout=theirs,
                stderr=theirs,
                # A shell's background job ignores the signal, and so would what these tests start there.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
            os.close(theirs)
            seen = b""
            while b"25.00 @ 5" not in seen:
                seen += os.read(ours, 4096)
            writer.append({"update": 7, "epoch": 0.7, "val_accuracy": 0.75})
            while b"75.00 @ 7" not in seen:
                seen += os.read(ours, 4096)
            watching.send_signal(signal.SIGINT)
            with contextlib.suppress(OSError):  # the terminal is closed at the other end
                while rest := os.read(ours, 4096):
                    seen += rest
            assert watching.wait(timeout=600) == 0
            os.close(ours)
        assert b"Traceback" not in seen
        assert seen.rstrip().endswith(b"\x1b[?25h")  # the cursor is there again

    def test_wrong_use_is_one_line(self, tmp_path):
        done = self.script("experiments/none", "--results", tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
        assert self.script().returncode == 2
        assert "0.1 to 86400" in self.script("--runs", "*", "--every", "0").stderr

    def test_torch_is_not_loaded(self):
        code = "import sys; from gbn.sweep.watch import snapshot, view; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=600)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "1 s"),
        (89, "89 s"),
        (600, "10 min"),
        (12_000, "3 h 20 min"),
        (28_800, "8 h"),
        (187_200, "2 d 4 h"),
    ],
)
def test_times_for_people(seconds, said):
    assert span(seconds) == said
