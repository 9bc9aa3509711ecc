"""What is said of a dead process: its signal by name, memory only with evidence, its last words."""

import signal
from pathlib import Path

import pytest

from gbn.sweep import death
from gbn.sweep.death import Death, MemoryKills, ending, tail
from gbn.sweep.watch.run_state import _error_line


@pytest.mark.parametrize(
    ("exitcode", "words"),
    [
        (-signal.SIGABRT, "was ended by SIGABRT (abort: "),
        (-signal.SIGSEGV, "was ended by SIGSEGV (segmentation fault: "),
        (-signal.SIGKILL, "was ended by SIGKILL"),
        (-signal.SIGTERM, "was ended by SIGTERM"),
        (-63, "was ended by signal 63"),
        (3, "ended with exit status 3, without a result"),
        (0, "ended with exit status 0, without a result"),
        (3221225477, "ended with exit status 0xC0000005 (access violation)"),
    ],
)
def test_an_end_has_a_name(exitcode, words):
    assert ending(exitcode).startswith(words)


class Machine:
    """A root with the kernel's files as far as a system has them."""

    def __init__(self, root):
        self.root = root

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def group(self, count, path="sys/fs/cgroup/memory.events"):
        self.write(path, f"low 0\nhigh 0\nmax 17\noom {count}\noom_kill {count}\noom_group_kill 0\n")

    def whole(self, count):
        self.write("proc/vmstat", f"nr_free_pages 17\noom_kill {count}\nnr_zones 1\n")


@pytest.fixture
def machine(tmp_path):
    found = Machine(tmp_path)
    found.write("proc/self/cgroup", "0::/jobs/mine\n")
    return found


@pytest.mark.parametrize(
    ("groups", "path"),
    [
        ("0::/jobs/mine\n", "sys/fs/cgroup/jobs/mine/memory.events"),
        ("0::/jobs/mine\n", "sys/fs/cgroup/memory.events"),  # mounted in a container, named as on its host
        ("9:name=systemd:/\n4:cpu,memory:/a:b\n0::/\n", "sys/fs/cgroup/memory/a:b/memory.oom_control"),
        ("4:memory:/gone\n", "sys/fs/cgroup/memory/memory.oom_control"),
    ],
)
def test_the_count_of_the_control_group_is_evidence_once(machine, groups, path):
    machine.write("proc/self/cgroup", groups)
    machine.group(2, path)
    machine.whole(5)
    kills = MemoryKills(machine.root)
    machine.group(3, path)
    machine.whole(6)
    said = kills.explain(-signal.SIGKILL, "")
    assert said == f"out of memory (the count oom_kill in {machine.root / path} rose)"
    # The machine's count rose by the very same kill, and a second death has none of its own.
    assert "did not rise" in kills.explain(-signal.SIGKILL, "")


def test_two_kills_explain_two_deaths(machine):
    machine.group(0)
    kills = MemoryKills(machine.root)
    machine.group(2)
    said = [kills.explain(-signal.SIGKILL, "").partition(" (")[0] for _ in range(3)]
    assert said[:2] == ["out of memory"] * 2
    assert "did not rise" in said[2]


def test_a_kill_that_was_seen_before_its_process_was_gone_hides_no_later_one(machine, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(death.time, "monotonic", lambda: now[0])
    machine.group(0)
    kills = MemoryKills(machine.root, window=10.0)
    machine.group(1)
    now[0] += 1.0
    kills.sample()
    assert kills.explain(-signal.SIGKILL, "").startswith("out of memory")
    now[0] += 10.0
    kills.sample()  # from here on rises are counted from the sample between the kill and the death
    machine.group(2)
    assert kills.explain(-signal.SIGKILL, "").startswith("out of memory")


def test_a_kill_long_before_is_no_evidence(machine, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(death.time, "monotonic", lambda: now[0])
    machine.whole(0)
    kills = MemoryKills(machine.root, window=10.0)
    machine.whole(1)
    for _ in range(30):
        now[0] += 1.0
        kills.sample()
    assert "did not rise" in kills.explain(-signal.SIGKILL, "")
    machine.whole(2)
    now[0] += 1.0
    kills.sample()  # the count rises before the process is gone
    now[0] += 5.0
    assert kills.explain(-signal.SIGKILL, "").startswith(
        "probably out of memory: just then the kernel killed"
    )


def test_where_the_system_tells_nothing_nothing_is_claimed(tmp_path):
    kills = MemoryKills(tmp_path)  # no /proc, no /sys: macOS, Windows
    assert (
        kills.explain(-signal.SIGKILL, "")
        == "whether memory ran out is unknown, since this system does not tell"
    )
    for exitcode in (-signal.SIGABRT, -signal.SIGSEGV, 3):
        assert kills.explain(exitcode, "") == ""
    aborted = kills.explain(
        -signal.SIGABRT, "terminate called after throwing an instance of 'std::bad_alloc'"
    )
    assert aborted == "out of memory: it says std::bad_alloc"


def test_last_words_are_the_last_lines_after_an_offset_without_control_characters(tmp_path):
    path = tmp_path / "stderr.txt"
    path.write_bytes(b"of an earlier attempt\n")
    offset = path.stat().st_size
    assert tail(path, offset) == ""
    with path.open("ab") as file:
        file.write(b"".join(b"line %d\n" % number for number in range(100_000)))
        file.write(b"\x1b[31mred\x1b[0m \xff\x00 10%\r20%\n\n" + b"x" * 5000 + b"\nend")
    lines = tail(path, offset).splitlines()
    assert len(lines) == 40
    assert lines[-5:] == ["line 99999", "red � 10%", "20%", "x" * 300, "end"]
    assert tail(tmp_path / "missing", 0) == ""


def test_of_a_crash_the_innermost_frames_are_kept(tmp_path):
    path = tmp_path / "stderr.txt"
    frames = "".join(f'  File "/layer.py", line {number} in f\n' for number in range(100))
    path.write_text(f"assertion failed\nFatal Python error: Aborted\n\n{frames}\nExtension modules: a, b\n")
    lines = tail(path, 0).splitlines()
    assert lines[:3] == ["assertion failed", "Fatal Python error: Aborted", '  File "/layer.py", line 0 in f']
    assert len(lines) == 10


def test_the_account_begins_with_the_cause_for_whoever_reads_one_line(tmp_path):
    said = 'Fatal Python error: Aborted\n  File "/layer.py", line 3 in forward\nExtension modules: many'
    one = Death("digits-mlp-bn-s0-0123456789", -signal.SIGABRT, 4711, 12.3, "", said)
    path: Path = tmp_path / "error.txt"
    path.write_text(one.describe())
    assert _error_line(path) == one.line
    assert one.line.startswith("its process was ended by SIGABRT (")
    for words in (one.run_id, "4711", "Fatal Python error: Aborted", "/layer.py"):
        assert words in one.describe()
    assert not one.killed
    assert Death("one", -signal.SIGKILL, 1, 0.0, "", "").killed
