"""The time left against sweeps whose truth is known."""

import pytest

from gbn.analysis.runs.plan import Entry
from gbn.sweep.watch.run_state import RunState
from gbn.sweep.watch.time_left import time_left


def states(*runs):
    """(setting, arm, state) in order; each its own seed."""
    return {
        Entry(setting, arm, seed, f"{setting}-{arm}-{seed}"): state
        for seed, (setting, arm, state) in enumerate(runs)
    }


def finished(took):
    return RunState("finished", update=100, total=100, took=took)


MISSING = RunState("missing")


def running(update, pace=None):
    return RunState("running", update=update, total=100, pace=pace)


def test_runs_to_come_take_what_their_arm_took():
    left = time_left(
        states(
            ("", "bn", finished(10)),
            ("", "bn", finished(14)),
            ("", "slow", finished(100)),
            ("", "bn", running(50)),
            ("", "slow", running(25)),
            ("", "slow", MISSING),
            ("", "bn", RunState("failed")),
        )
    )
    assert left.work == pytest.approx(6 + 75 + 100)
    assert left.seconds == pytest.approx(181 / 2)
    assert (left.processes, left.uncovered) == (2, 0)


def test_a_begun_run_is_not_spread_over_the_others():
    left = time_left(states(("", "bn", finished(100)), ("", "bn", running(10)), ("", "bn", running(90))))
    assert left.seconds == pytest.approx(90)


def test_an_arm_without_a_finished_run_takes_what_its_setting_does():
    left = time_left(states(("a", "bn", finished(10)), ("a", "new", MISSING), ("b", "bn", MISSING)))
    assert left.work == pytest.approx(10)
    assert left.uncovered == 1
    assert left.seconds is None


def test_with_nothing_finished_the_running_runs_tell():
    left = time_left(states(("", "bn", running(50, pace=2.0)), ("", "bn", MISSING)))
    assert left.seconds == pytest.approx(100 + 200)
    assert time_left(states(("", "bn", running(0)), ("", "bn", MISSING))).seconds is None


def test_a_diverged_run_says_nothing_of_how_long_others_take():
    short = RunState("diverged", update=3, total=3, took=1.0)
    assert time_left(states(("", "bn", short), ("", "bn", MISSING))).uncovered == 1


def test_an_interrupted_run_needs_the_rest():
    half = RunState("interrupted", update=50, total=100)
    assert time_left(states(("", "bn", finished(10)), ("", "bn", half))).work == pytest.approx(5)
