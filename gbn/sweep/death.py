"""Reports on a process that died during a run: its signal, whether memory ran out, its last output."""

import re
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MEANING = {
    "SIGABRT": "abort: a failed assertion or another fatal error in compiled code",
    "SIGBUS": "bus error: compiled code accessed memory with nothing behind it",
    "SIGFPE": "arithmetic fault in compiled code",
    "SIGILL": "illegal instruction: code compiled for another processor",
    "SIGSEGV": "segmentation fault: compiled code accessed memory that is not its own",
}

#: Exit statuses on Windows for what are signals elsewhere.
_WINDOWS = {0xC0000005: "access violation", 0xC000001D: "illegal instruction", 0xC0000409: "abort"}

_LINES, _WIDTH, _BYTES, _FRAMES = 40, 300, 1 << 16, 8
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\t\u00a0-\U0010ffff]")


@dataclass(frozen=True)
class Death:
    """The death of a process during a run.

    Attributes:
        run_id: the run.
        exitcode: as in :class:`multiprocessing.Process`: minus the signal's number, or an exit status.
        pid: the process id.
        seconds: how long it worked on the run.
        memory: whether memory ran out, in words; empty if the question does not arise.
        tail: the last lines of its standard error during the run.
    """

    run_id: str
    exitcode: int
    pid: int
    seconds: float
    memory: str
    tail: str

    @property
    def killed(self) -> bool:
        """True if it was killed from outside, the only death that says nothing about the run itself."""
        return _signal_name(self.exitcode) == "SIGKILL"

    @property
    def line(self) -> str:
        """One line for a person."""
        ended = f"its process {ending(self.exitcode)} after {self.seconds:.0f} s"
        return ": ".join(filter(None, (ended, self.memory)))

    def describe(self) -> str:
        """Return the full report for ``error.txt``, the process's output indented, since it is not our traceback."""
        text = f"{self.line}\nrun {self.run_id}, process {self.pid}\n"
        if not self.tail:
            return text + "It wrote nothing to its standard error.\n"
        lines = "".join(f"    {line}\n" for line in self.tail.splitlines())
        return text + f"The last lines of its standard error:\n{lines}"


def ending(exitcode: int) -> str:
    """Return the way a process ended: "was ended by SIGABRT (abort: ...)", or its exit status."""
    if name := _signal_name(exitcode):
        return f"was ended by {name} ({_MEANING[name]})" if name in _MEANING else f"was ended by {name}"
    if exitcode in _WINDOWS:
        return f"ended with exit status 0x{exitcode:X} ({_WINDOWS[exitcode]})"
    return f"ended with exit status {exitcode}, without a result,"


def _signal_name(exitcode: int) -> str:
    if exitcode >= 0:
        return ""
    try:
        return signal.Signals(-exitcode).name
    except ValueError:  # a real-time signal
        return f"signal {-exitcode}"


def tail(path: Path, offset: int) -> str:
    """Return the last lines of a file after its first `offset` bytes, without control characters."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset, size - _BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [_CONTROL.sub("", line).rstrip()[:_WIDTH] for line in re.split(r"[\r\n]+", text)]
    return "\n".join(_telling(filter(None, lines))[-_LINES:])


def _telling(lines: Iterable[str]) -> list[str]:
    """Keep the innermost frames of Python's crash reports; drop the many outer ones and the list of modules."""
    kept, frames = [], 0
    for line in lines:
        frames = frames + 1 if line.startswith('  File "') else 0
        if frames <= _FRAMES and not line.startswith("Extension modules: "):
            kept.append(line)
    return kept


class MemoryKills:
    """The kernel's count of processes that it killed because memory ran out.

    Only a count that rose when a process died is evidence. Linux counts per control group, which a worker shares with
    its parent; if that is not visible, the count of the whole machine is used. Other systems do not report it.

    Args:
        root: the folder of ``/proc`` and ``/sys``.
        window: seconds. The count rises when the kernel selects its victim, which may take a while to die.
    """

    def __init__(self, root: Path = Path("/"), window: float = 10.0) -> None:
        self._window = window
        machine = root / "proc/vmstat"
        self._path = next((path for path in [*_groups(root), machine] if _count(path) is not None), None)
        self._whole_machine = self._path == machine
        self._samples: deque[tuple[float, int]] = deque()
        self._explained = 0
        self.sample()

    def sample(self) -> None:
        """Remember the current count; to be called about once per second."""
        now = time.monotonic()
        self._samples.append((now, self._unexplained()))
        # The newest sample before the window stays: it is the base of the window's rise.
        while len(self._samples) > 1 and self._samples[1][0] <= now - self._window:
            self._samples.popleft()

    def explain(self, exitcode: int, last_words: str) -> str:
        """Return the evidence that a process that has just died ran out of memory, or that there is none.

        Each kill counted by the kernel explains one death.
        """
        if "std::bad_alloc" in last_words:
            return "out of memory: it says std::bad_alloc"
        if _signal_name(exitcode) != "SIGKILL":
            return ""
        if self._path is None:
            return "whether memory ran out is unknown, since this system does not tell"
        if self._unexplained() <= self._samples[0][1]:
            return "not by the kernel for lack of memory, whose count did not rise: something else did it"
        self._explained += 1
        left = self._unexplained()
        self._samples = deque((at, min(count, left)) for at, count in self._samples)
        evidence = f"the count oom_kill in {self._path} rose"
        if self._whole_machine:
            return (
                f"probably out of memory: just then the kernel killed a process of this machine ({evidence})"
            )
        return f"out of memory ({evidence})"

    def _unexplained(self) -> int:
        count = _count(self._path) if self._path is not None else None
        return (count or 0) - self._explained


def _groups(root: Path) -> Iterator[Path]:
    """Yield the files that may hold the count of this process's control group in a line ``oom_kill N``."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if "memory" in controllers.split(","):
            folder, file = root / "sys/fs/cgroup/memory", "memory.oom_control"
        elif not controllers:  # version 2
            folder, file = root / "sys/fs/cgroup", "memory.events"
        else:
            continue
        yield folder / name.lstrip("/") / file
        yield folder / file  # in a container, the name may be the host's and its own group the root


def _count(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("oom_kill ")))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
