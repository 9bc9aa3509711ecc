"""Whether seconds may be compared: a machine shared with other work is noticed."""

import os
import sys

import pytest

from gbn.engine import clock
from gbn.engine.clock import LIMIT, Neighbors, clock_of


@pytest.mark.parametrize(
    ("wanted", "jobs", "resumed", "share", "expected"),
    [
        ("auto", 1, False, 0.0, "exclusive"),
        ("auto", 1, False, None, "exclusive"),
        ("auto", 1, False, 2 * LIMIT, "shared"),
        ("auto", 2, False, 0.0, "shared"),
        ("auto", 1, True, 0.0, "shared"),
        ("shared", 1, False, 0.0, "shared"),
        ("exclusive", 4, True, 0.9, "exclusive"),
    ],
)
def test_the_clock_is_exclusive_only_where_nobody_else_worked(wanted, jobs, resumed, share, expected):
    assert clock_of(wanted, jobs, resumed, share) == expected


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of two processors: (seconds since its start, busy seconds of all processes, of this one) -> None."""
    monkeypatch.setattr(clock, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(clock.os, "cpu_count", lambda: 2)
    ticks = os.sysconf("SC_CLK_TCK")

    def at(wall, busy, own):
        user, rest = ticks * (busy - 4), ticks * 1
        line = f"cpu  {user} {rest} {rest} 99999 99999 {rest} 0 {rest} 0 0\ncpu0 0 0 0 0\n"
        clock._STAT.write_text(line, encoding="ascii")
        monkeypatch.setattr(clock.time, "monotonic", lambda: float(wall))
        monkeypatch.setattr(clock.os, "times", lambda: os.times_result((own - 1, 1, 0, 0, wall)))

    return at


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="/proc counts in a unit that sysconf tells")
def test_what_others_used_is_a_share_of_the_machine(machine):
    machine(100, 50, 10)
    neighbors = Neighbors()
    machine(110, 68, 28)  # ten seconds later all that was done is this process's own
    assert neighbors.share() == 0.0
    machine(110, 73, 28)  # and here five seconds of twenty were others'
    assert neighbors.share() == pytest.approx(0.25)
    machine(100, 50, 10)
    assert neighbors.share() is None  # no time has passed


def test_a_system_that_does_not_count_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "_STAT", tmp_path / "none")
    assert Neighbors().share() is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/stat")
def test_linux_counts():
    assert clock.Neighbors._read() is not None
