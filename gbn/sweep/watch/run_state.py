"""The state on disk of a run that may still be growing, cheap to read again.

Reading an unchanged run takes one or two calls of ``stat``; only the new lines of a curve are read. Files may appear
and vanish between reads, and a last line may be incomplete.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gbn import measures
from gbn.store.files import StoreError, parse_config, point_of
from gbn.store.finished import read, read_summary
from gbn.store.locks import is_locked
from gbn.store.record import Status
from gbn.store.records import CHECKPOINT, CONFIG, DONE, ERROR, METRICS, PROVENANCE, SUMMARY


@dataclass
class GrowingCurve:
    """One measure of a curve that another process appends to.

    Attributes:
        path: the run's metrics file.
        measure: the key to keep.
        values: update -> value, where the measure was recorded.
        update: the last update with a point; None before the first.
        epoch: that point in epochs.
        seconds: that point in seconds of training. (File dates would depend on the system clock.)
        diverged: whether the loss is no longer finite.
        damaged: number of lines that are not points; they are left out.
    """

    path: Path
    measure: str
    values: dict[int, float] = field(default_factory=dict)
    update: int | None = None
    epoch: float | None = None
    seconds: float | None = None
    diverged: bool = False
    damaged: int = 0
    _read: int = 0  # bytes, up to the end of the last complete line
    _last: bytes = b""  # that line

    def refresh(self) -> None:
        """Read what was added since the last time, or everything if the file was truncated or replaced."""
        try:
            size = self.path.stat().st_size
            if size == self._read:
                return
            with open(self.path, "rb") as file:
                file.seek(self._read - len(self._last))
                added = file.read()
                # A resumed run drops its points after the checkpoint and rewrites the file.
                if size < self._read or not added.startswith(self._last):
                    self._forget()
                    file.seek(0)
                    added = file.read()
        except OSError:  # not there yet, or no longer
            self._forget()
            return
        lines = added[len(self._last) : added.rfind(b"\n") + 1].splitlines(keepends=True)
        for line in lines:
            self._take(line)
            self._read += len(line)
            self._last = line

    def _take(self, line: bytes) -> None:
        try:
            point, _ = point_of(line)
            update, epoch, seconds = int(point["update"]), point.get("epoch"), point.get("seconds")
        except (ValueError, TypeError, KeyError, AttributeError):
            self.damaged += 1
            return
        self.update, self.epoch, self.seconds = update, epoch, seconds
        self.diverged = self.diverged or bool(point.get("diverged"))
        value = point.get(self.measure)
        if isinstance(value, int | float):
            self.values[update] = float(value)

    def _forget(self) -> None:
        self.values, self.update, self.epoch, self.seconds = {}, None, None, None
        self.diverged, self.damaged = False, 0
        self._read, self._last = 0, b""


@dataclass(frozen=True)
class RunState:
    """One run at one moment.

    Attributes:
        status: see :meth:`gbn.store.records.RunStore.status`.
        values: update -> value of the measure.
        update: the last update with a point; None before the first.
        total: updates of the whole run; None if not yet known.
        diverged: whether its loss became non-finite.
        error: what went wrong, one line.
        took: wall seconds of a finished run (seconds of training if no others were recorded).
        pace: seconds of training per update of a running run.
    """

    status: Status
    values: dict[int, float] = field(default_factory=dict)
    update: int | None = None
    total: int | None = None
    diverged: bool = False
    error: str | None = None
    took: float | None = None
    pace: float | None = None

    @property
    def share(self) -> float:
        """The share of the run that is done, from 0 to 1, by its last point."""
        if self.status in DONE:
            return 1.0
        return min(1.0, self.update / self.total) if self.update and self.total else 0.0


class WatchedRun:
    """Reads one run repeatedly.

    Args:
        folder: the run's folder, which need not exist yet.
        measure: the key of the curve to keep.
    """

    def __init__(self, folder: Path, measure: str) -> None:
        self.folder = folder
        self.curve = GrowingCurve(folder / METRICS, measure)
        self._done: tuple[tuple[int, int], RunState] | None = None
        self._epochs: float | None = None

    def look(self) -> RunState:
        """Return the run's current state. Never raises: a read error is reported in the state's `error`."""
        try:
            stat = (self.folder / SUMMARY).stat()
        except OSError:
            self._done = None
            return self._unfinished()
        stamp = (stat.st_mtime_ns, stat.st_size)
        if self._done is None or self._done[0] != stamp:
            self._done = (stamp, self._finished())
        return self._done[1]

    def _finished(self) -> RunState:
        self.curve.refresh()
        try:
            summary, digests = read_summary(self.folder)
            read(self.folder / METRICS, digests)
        except (StoreError, OSError) as error:
            return RunState("failed", error=str(error).splitlines()[0])
        status, updates = summary["status"], summary.get("updates")
        return RunState(
            status,
            dict(self.curve.values),
            update=updates,
            total=updates,
            diverged=status == "diverged",
            error=self._damage(),
            took=summary.get("wall_seconds") or summary.get("seconds"),
        )

    def _unfinished(self) -> RunState:
        status = self._status()
        if status == "missing":
            return RunState("missing")
        self.curve.refresh()
        update, epoch = self.curve.update, self.curve.epoch
        epochs = self._planned_epochs()
        known = update and epoch and epochs
        return RunState(
            status,
            dict(self.curve.values),
            update=update,
            total=max(1, round(epochs * update / epoch)) if known else None,  # type: ignore[operator]
            diverged=self.curve.diverged,
            error=_error_line(self.folder / ERROR) if status == "failed" else self._damage(),
            pace=self.curve.seconds / update
            if status == "running" and update and self.curve.seconds
            else None,
        )

    def _status(self) -> Status:
        if not self.folder.is_dir():
            return "missing"
        try:
            if is_locked(self.folder):
                return "running"
        except OSError:  # the folder was removed meanwhile, or belongs to another user
            pass
        if (self.folder / ERROR).exists():
            return "failed"
        begun = any((self.folder / name).exists() for name in (CONFIG, METRICS, CHECKPOINT, PROVENANCE))
        return "interrupted" if begun else "missing"

    def _planned_epochs(self) -> float | None:
        if self._epochs is None:
            try:
                self._epochs = float(read_config(self.folder)["trainer"]["epochs"])
            except (OSError, StoreError, LookupError, TypeError, ValueError):
                return None
        return self._epochs

    def _damage(self) -> str | None:
        count = self.curve.damaged
        return f"{METRICS}: {count} damaged line{'s' * (count > 1)} left out" if count else None


def read_config(folder: Path) -> dict[str, Any]:
    """Return a run's resolved configuration.

    Raises:
        OSError: it is not there (yet).
        StoreError: it is damaged.
    """
    return parse_config(folder / CONFIG, (folder / CONFIG).read_bytes())


def _error_line(path: Path) -> str:
    """Return the exception line of a traceback: the first line after its last frame."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "its error.txt cannot be read"
    last_frame = max((n for n, line in enumerate(lines) if line.startswith('  File "')), default=-1)
    after = [line for line in lines[last_frame + 1 :] if line.strip() and not line.startswith("    ")]
    return after[0].strip() if after else "its error.txt is empty"


def bad_value(measure: str) -> float:
    """Return the value of a diverged run in a median: worse than any number."""
    found = measures.find(measure)
    return math.inf if found is None or not found.higher_is_better else -math.inf
