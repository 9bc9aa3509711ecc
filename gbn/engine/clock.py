"""Detect whether a run had its machine to itself: seconds from a shared machine are never compared.

The kernel counts the processor time of all processes together; whatever this process did not use, others did.
"""

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")

#: If others use more than this share of the machine's processor time, seconds mean little.
LIMIT = 0.05


class Neighbors:
    """Measures, from its creation on, how much of the machine other processes use."""

    def __init__(self) -> None:
        self._began = self._read()

    def share(self) -> float | None:
        """Return the share of all processor time that others used; None if the system does not report it."""
        now = self._read()
        if self._began is None or now is None:
            return None
        wall, busy, own = (after - before for after, before in zip(now, self._began, strict=True))
        return max(0.0, busy - own) / (wall * (os.cpu_count() or 1)) if wall > 0 else None

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        """Return (wall clock, processor seconds of all processes, processor seconds of this one)."""
        try:
            fields = _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        except OSError:  # not Linux
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = (float(field) for field in fields)
        ticks = os.sysconf("SC_CLK_TCK")
        own = os.times()
        busy = (user + nice + system + irq + softirq + steal) / ticks
        return time.monotonic(), busy, own.user + own.system


def clock_of(wanted: str, jobs: int, resumed: bool, share: float | None) -> str:
    """Return ``exclusive`` or ``shared``, as recorded in a run's summary.

    Args:
        wanted: the configured ``trainer.clock``; auto decides by the arguments below.
        jobs: parallel runs of the same command.
        resumed: whether the run resumed from a checkpoint: its earlier part may have shared the machine.
        share: from :class:`Neighbors`; None (not measurable) counts as 0.
    """
    if wanted != "auto":
        return wanted
    return "shared" if jobs > 1 or resumed or (share or 0.0) > LIMIT else "exclusive"
