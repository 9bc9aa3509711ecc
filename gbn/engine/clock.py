"""Whether a run had its machine to itself: seconds from a shared machine are never compared with others.

The kernel counts the time that all processes together kept the processors busy; what this process did not use
itself, others did.
"""

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")

#: Above this share of the machine's processor time, used by others, seconds mean little.
LIMIT = 0.05


class Neighbours:
    """Measures from its making on how much of the machine other processes used."""

    def __init__(self) -> None:
        self._began = self._read()

    def share(self) -> float | None:
        """Processor time used by others, as a share of all there was; None where the system does not tell."""
        now = self._read()
        if self._began is None or now is None:
            return None
        wall, busy, own = (after - before for after, before in zip(now, self._began, strict=True))
        return max(0.0, busy - own) / (wall * (os.cpu_count() or 1)) if wall > 0 else None

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        """(wall clock, processor seconds of all processes, processor seconds of this one)."""
        try:
            fields = _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        except OSError:  # no Linux
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = (float(field) for field in fields)
        ticks = os.sysconf("SC_CLK_TCK")
        own = os.times()
        busy = (user + nice + system + irq + softirq + steal) / ticks
        return time.monotonic(), busy, own.user + own.system


def clock_of(wanted: str, jobs: int, resumed: bool, share: float | None) -> str:
    """``exclusive`` or ``shared``, as a run's summary records it.

    Args:
        wanted: the configured ``trainer.clock``; auto decides by what follows.
        jobs: parallel runs of the same command.
        resumed: whether the run went on from a checkpoint: what its earlier part shared is not known here.
        share: of :class:`Neighbours`; None (not measurable) does not speak against the run.
    """
    if wanted != "auto":
        return wanted
    return "shared" if jobs > 1 or resumed or (share or 0.0) > LIMIT else "exclusive"
