"""Whether seconds may be compared: a machine shared with other work is noticed."""

import subprocess
import sys
import time

import pytest

from gbn.engine.clock import LIMIT, Neighbours, clock_of

BUSY = "import time; end = time.time() + 3\nwhile time.time() < end: sum(range(10000))"


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/stat")
def test_another_process_is_noticed_and_ones_own_work_is_not_held_against_it():
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        time.sleep(0.3)
        neighbours = Neighbours()
        time.sleep(1.0)
        assert neighbours.share() > LIMIT
    finally:
        other.kill()
        other.wait()
    read = iter([(0.0, 100.0, 10.0), (10.0, 118.0, 28.0)])  # 18 s of processor time, all of it its own
    neighbours = Neighbours.__new__(Neighbours)
    neighbours._read = lambda: next(read)
    neighbours._began = neighbours._read()
    assert neighbours.share() == 0.0
