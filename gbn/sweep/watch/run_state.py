"""The state on disk of a run that may still be growing, cheap to read again.

Reading an unchanged run takes one or two calls of ``stat``. Files may appear and vanish between reads, and a last
line may be incomplete.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gbn import measures
from gbn.store.files import StoreError, content_of, lines_of, parse_config
from gbn.store.locks import is_locked
from gbn.store.record import Status
from gbn.store.records import CONFIG, DONE, ERROR, METRICS, SUMMARY, RunStore, idle_status


@dataclass(frozen=True)
class RunState:
    """One run at one moment.

    Attributes:
        status: see :meth:`gbn.store.records.RunStore.status`.
        values: update -> value of the measure.
        update: the last update with a point; None before the first.
        total: updates of the whole run; None if not yet known.
        epoch: the last point in epochs.
        diverged: whether its loss became non-finite.
        error: what went wrong, one line.
        took: wall seconds of a finished run (seconds of training if no others were recorded).
        pace: seconds of training per update of a running run. (File dates would depend on the system clock.)
    """

    status: Status
    values: dict[int, float] = field(default_factory=dict)
    update: int | None = None
    total: int | None = None
    epoch: float | None = None
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


_Stamp = tuple[int, int, int]


class WatchedRun:
    """Reads one run repeatedly.

    Args:
        folder: the run's folder, which need not exist yet.
        measure: the key of the curve to keep.
    """

    def __init__(self, folder: Path, measure: str) -> None:
        self.folder = folder
        self.measure = measure
        self._seen: tuple[str, _Stamp | None] = ("", None)  # the file that was read last, and its state then
        self._state = RunState("missing")  # what it said
        self._epochs: float | None = None

    def look(self) -> RunState:
        """Return the run's current state. Never raises: a read error is reported in the state's `error`."""
        stamp = _stamp(self.folder / SUMMARY)
        name, read = (METRICS, self._growing) if stamp is None else (SUMMARY, self._finished)
        seen = name, stamp or _stamp(self.folder / METRICS)
        if seen != self._seen:
            self._seen, self._state = seen, read()
        return self._state if name == SUMMARY else self._unfinished(self._state)

    def _finished(self) -> RunState:
        try:
            record = RunStore(self.folder.parents[1]).load(self.folder.name)
        except (StoreError, OSError) as error:
            return RunState("failed", error=str(error).splitlines()[0])
        summary = record.summary or {}
        return replace(
            _followed(record.curve, self.measure),
            status=record.status,
            update=summary.get("updates"),
            total=summary.get("updates"),
            diverged=record.status == "diverged",
            took=summary.get("wall_seconds") or summary.get("seconds"),
        )

    def _growing(self) -> RunState:
        try:
            return _followed(lines_of(content_of(self.folder / METRICS) or b""), self.measure)
        except StoreError as error:
            return RunState("interrupted", error=str(error))

    def _unfinished(self, state: RunState) -> RunState:
        """Return the state of a curve as that of a run, whose status may change without it."""
        try:
            status: Status = "running" if is_locked(self.folder) else idle_status(self.folder)
        except OSError:  # the folder was removed meanwhile, or belongs to another user
            status = idle_status(self.folder)
        if status == "missing":
            return RunState("missing")
        if status == "failed":
            state = replace(state, error=_error_line(self.folder / ERROR))
        epochs = self._planned_epochs()
        if epochs and state.update and state.epoch:
            state = replace(state, total=max(1, round(epochs * state.update / state.epoch)))
        return replace(state, status=status, pace=state.pace if status == "running" else None)

    def _planned_epochs(self) -> float | None:
        if self._epochs is None:
            try:
                self._epochs = float(read_config(self.folder)["trainer"]["epochs"])
            except (OSError, StoreError, LookupError, TypeError, ValueError):
                return None
        return self._epochs


def _stamp(path: Path) -> _Stamp | None:
    """Return what changes when a file does; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _followed(points: Iterable[Mapping[str, Any] | ValueError], measure: str) -> RunState:
    """Return what the points of a curve say about a run; damaged ones are counted and left out."""
    values: dict[int, float] = {}
    update, epoch, seconds, diverged, damaged = None, None, None, False, 0
    for point in points:
        if isinstance(point, ValueError) or not isinstance(point.get("update"), int):
            damaged += 1
            continue
        update, epoch, seconds = point["update"], point.get("epoch"), point.get("seconds")
        diverged = diverged or bool(point.get("diverged"))
        value = point.get(measure)
        if isinstance(value, int | float):
            values[update] = float(value)
    said = f"{METRICS}: {damaged} damaged line{'s' * (damaged > 1)} left out" if damaged else None
    pace = seconds / update if seconds and update else None
    return RunState("interrupted", values, update, epoch=epoch, diverged=diverged, error=said, pace=pace)


def read_config(folder: Path) -> dict[str, Any]:
    """Return a run's resolved configuration.

    Raises:
        StoreError: it is not there (yet), or it is damaged.
    """
    content = content_of(folder / CONFIG)
    if content is None:
        raise StoreError(f"{folder / CONFIG} is missing")
    return parse_config(folder / CONFIG, content)


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
