"""The run store: ``<results_dir>/runs/<run_id>/``, one flat folder per run.

Files of a run: ``config.yaml`` (resolved), ``metrics.jsonl`` (append-only, one line per point of the curve),
``checkpoint.pt`` (the trainer's; until the run is done, ``checkpoint.previous.pt`` is kept beside it),
``provenance.json`` (a list, one entry per segment), ``summary.json`` (written last, atomically: its presence means
done), ``error.txt`` of a failed run, ``lock``; where layers were recorded, ``layers.jsonl`` (append-only, one line
per recording); and ``stderr.txt``, what a run in its own process wrote to standard error, if anything.
A kill at any moment loses at most the points since the checkpoint; an incomplete last line is dropped.

Everything is checked when it is read: each line, each segment of the provenance and the configuration carry their
own digest (:mod:`gbn.store.files`), and the summary carries those of all files (:mod:`gbn.store.finished`).
"""

import hashlib
import json
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from gbn.store.files import (
    REMEDY,
    StoreError,
    all_finite,
    config_text,
    content_of,
    finite,
    line_of,
    parse_config,
    parse_provenance,
    points_of,
    provenance_text,
    read_curve,
    remove_leftovers,
    write_atomically,
)
from gbn.store.finished import (
    CONFIG,
    COVERED,
    LAYERS,
    METRICS,
    PROVENANCE,
    SUMMARY,
    Digests,
    problem_of,
    read,
    read_summary,
    summary_text,
)
from gbn.store.finished import DONE as DONE
from gbn.store.locks import FILE as LOCK
from gbn.store.locks import RunLock, is_locked
from gbn.store.record import Curve, Record, Status

CHECKPOINT, ERROR, STDERR = "checkpoint.pt", "error.txt", "stderr.txt"


class RunStore:
    """The runs under a results directory. Reading takes no lock: a reader of a live run sees a complete prefix."""

    def __init__(self, results_dir: str | Path) -> None:
        self.results_dir = Path(results_dir)
        self.runs_dir = self.results_dir / "runs"

    def path(self, run_id: str) -> Path:
        """Return the folder of a run, whether or not it exists.

        Raises:
            StoreError: the id is not a plain folder name.
        """
        if not run_id or Path(run_id).name != run_id or run_id.startswith("."):
            raise StoreError(f"{run_id!r} is not a run id: an id is a folder name under {self.runs_dir}")
        return self.runs_dir / run_id

    def run_ids(self) -> list[str]:
        """Return the ids of all runs on disk, sorted."""
        if not self.runs_dir.is_dir():
            return []
        with os.scandir(self.runs_dir) as entries:
            return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())

    def match(self, patterns: Sequence[str]) -> list[str]:
        """Return the run ids that match any of these ids, shell patterns or paths of run folders.

        Raises:
            StoreError: a pattern matches no run.
        """
        ids = self.run_ids()
        found: dict[str, None] = {}
        for pattern in patterns:
            fitting = [run_id for run_id in ids if fnmatchcase(run_id, Path(pattern).name)]
            if not fitting:
                raise StoreError(f"no run fits {pattern!r} under {self.runs_dir} ({len(ids)} runs there)")
            found |= dict.fromkeys(fitting)
        return list(found)

    def status(self, run_id: str) -> Status:
        """Return the status of a run; "missing" if nothing was ever written.

        Raises:
            StoreError: its summary is damaged, or its lock file cannot be opened.
        """
        folder = self.path(run_id)
        return read_summary(folder)[0]["status"] if (folder / SUMMARY).exists() else _unfinished(folder)

    def load(self, run_id: str) -> Record:
        """Read one run.

        The digests of a finished run's files show that they are those that :meth:`RunWriter.write_summary` has
        checked. Without digests, in a run of an earlier version, it is all checked again.

        Raises:
            StoreError: the run is missing, or one of its files is corrupt (the message names it).
        """
        folder = self.path(run_id)
        finished = (folder / SUMMARY).exists()
        summary, digests = read_summary(folder) if finished else (None, None)
        status = _unfinished(folder) if summary is None else summary["status"]
        if status == "missing":
            raise StoreError(f"no run {run_id} under {self.runs_dir} ({len(self.run_ids())} runs there)")
        contents = {name: read(folder / name, digests) for name in (CONFIG, METRICS, PROVENANCE)}
        lines, copy = contents[METRICS] or b"", (summary or {}).get("config")
        if digests is not None:  # no need to parse what may never be looked at, or is known to equal the copy
            contents |= {METRICS: None} | ({CONFIG: None} if copy else {})
        config, curve, provenance = _parse(folder, contents)
        if summary is not None and digests is None:
            problem = problem_of(run_id, summary, config, curve, provenance)
            if problem:
                raise StoreError(f"{folder} contradicts itself: {problem}; {REMEDY}")
        parse = partial(points_of, folder / METRICS, checked=True)
        error = content_of(folder / ERROR)
        layers = (folder / LAYERS).exists() or LAYERS in (digests or {})
        return Record(
            run_id=run_id,
            status=status,
            config=dict((copy if config is None else config) or {}),
            summary=summary,
            curve=curve if digests is None else Curve(lines, parse),
            provenance=provenance,
            error=error.decode(errors="replace") if error is not None else None,
            read_layers=partial(_read_layers, folder / LAYERS, digests) if layers else None,
        )

    def __iter__(self) -> Iterator[Record]:
        """Yield every run that left any file, in order of id."""
        for run_id in self.run_ids():
            if self.status(run_id) != "missing":
                yield self.load(run_id)

    def __len__(self) -> int:
        return len(self.run_ids())

    def __contains__(self, run_id: str) -> bool:
        return self.status(run_id) != "missing"

    def writer(self, run_id: str) -> "RunWriter":
        """Return a writer of this run, which takes the run's lock in a ``with`` block."""
        return RunWriter(self, run_id)


class RunWriter:
    """The one process that writes a run; a context manager that holds the run's lock.

    On entry, an incomplete last line is cut off, the temporary files of killed writers are removed, and the error of
    a failed attempt is cleared. If the block ends in an Exception, its traceback becomes ``error.txt`` unless
    :meth:`write_error` was called (a keyboard interrupt is not a failure: the run stays "interrupted").

    Raises (on entry):
        LockedError: another process is writing this run.
        StoreError: the run is already done, and its files are never touched again.
    """

    def __init__(self, store: RunStore, run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        self.folder = store.path(run_id)
        self._lock = RunLock(self.folder)

    @property
    def checkpoint_path(self) -> Path:
        """The path of the trainer's checkpoint."""
        return self.folder / CHECKPOINT

    def __enter__(self) -> "RunWriter":
        self._lock.acquire()
        try:
            self._prepare()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, Exception) and not (self.folder / ERROR).exists():
                self.write_error("".join(traceback.format_exception(error)))
        finally:
            self._lock.release()

    def _prepare(self) -> None:
        if (self.folder / SUMMARY).exists():
            raise StoreError(
                f"run {self.run_id} is done ({self.store.status(self.run_id)}) and is not written again; "
                f"remove {self.folder} to train it again"
            )
        remove_leftovers(self.folder, older_than=0.0)
        (self.folder / ERROR).unlink(missing_ok=True)
        for name in (METRICS, LAYERS):
            if (self.folder / name).exists():
                self._rewrite(name, read_curve(self.folder / name))

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Store the resolved configuration (plain containers)."""
        self._locked()
        write_atomically(self.folder / CONFIG, config_text(config))

    def append(self, point: Mapping[str, Any]) -> None:
        """Append a point to the curve and flush it to the operating system at once.

        NaN and infinity, which JSON cannot represent, become null, and the point is marked ``"diverged": true``.
        """
        clean = finite(point)
        if not all_finite(point):
            clean["diverged"] = True
        self._append(METRICS, clean)

    def append_layers(self, recording: Mapping[str, Any]) -> None:
        """Add a recording of the layers, with its ``update``; undefined quantities become null."""
        self._append(LAYERS, finite(recording))

    def curve(self) -> list[dict[str, Any]]:
        """Return the points on disk."""
        return read_curve(self.folder / METRICS)

    def provenance(self) -> list[dict[str, Any]]:
        """Return the segments on disk."""
        path = self.folder / PROVENANCE
        content = content_of(path)
        return [] if content is None else parse_provenance(path, content)

    def truncate(self, n_points: int) -> None:
        """Drop all but the first `n_points` points: those after the checkpoint that a run resumes from.

        Layer recordings after the last kept point are dropped too.

        Raises:
            StoreError: the curve has fewer points than that.
        """
        self._locked()
        for name, lines in self._first(n_points).items():
            self._rewrite(name, lines)

    def sync(self, n_points: int) -> str:
        """Flush curve and recordings to disk; return the digest of what :meth:`truncate` would keep."""
        self._locked()
        for name in (METRICS, LAYERS):
            if (self.folder / name).exists():
                with open(self.folder / name, "rb+") as file:
                    os.fsync(file.fileno())
        return self.digest(n_points)

    def digest(self, n_points: int) -> str:
        """Return the SHA-256 (hexadecimal) of the first `n_points` points and the recordings up to them."""
        return hashlib.sha256(json.dumps(self._first(n_points)).encode()).hexdigest()

    def _first(self, n_points: int) -> dict[str, list[dict[str, Any]]]:
        points = self.curve()
        if not 0 <= n_points <= len(points):
            raise StoreError(
                f"run {self.run_id}: cannot keep {n_points} points of a curve that has {len(points)}; the "
                f"checkpoint and {METRICS} do not belong together: remove {self.folder} to start again"
            )
        kept = {METRICS: points[:n_points]}
        if (self.folder / LAYERS).exists():
            last = points[n_points - 1]["update"] if n_points else 0
            recorded = read_curve(self.folder / LAYERS)
            kept[LAYERS] = [layers for layers in recorded if layers["update"] <= last]
        return kept

    def add_provenance(self, segment: Mapping[str, Any]) -> None:
        """Append the entry of this segment (one per start or resume)."""
        self._locked()
        self._write_provenance([*self.provenance(), finite(segment)])

    def amend_provenance(self, segment: Mapping[str, Any]) -> None:
        """Replace this segment's entry with an updated one."""
        self._locked()
        self._write_provenance([*self.provenance()[:-1], finite(segment)])

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Finish the run. NaN and infinity become null.

        The summary stores the digests of the run's other files.

        Raises:
            StoreError: the summary contradicts itself or those files, so no reader would accept it.
        """
        self._locked()
        kept = {"run_id": self.run_id} | finite(summary)
        contents = {name: content_of(self.folder / name) for name in COVERED}
        problem = problem_of(self.run_id, kept, *_parse(self.folder, contents))
        if problem:
            raise StoreError(f"{self.folder} gets no {SUMMARY}: {problem}")
        write_atomically(self.folder / SUMMARY, summary_text(kept, contents))

    def write_error(self, text: str) -> None:
        """Mark the run as failed; it is retried when started again."""
        self._locked()
        write_atomically(self.folder / ERROR, text if text.endswith("\n") else text + "\n")

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        self._locked()
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(line_of(line))

    def _rewrite(self, name: str, lines: list[dict[str, Any]]) -> None:
        write_atomically(self.folder / name, "".join(map(line_of, lines)))

    def _write_provenance(self, segments: Sequence[Mapping[str, Any]]) -> None:
        write_atomically(self.folder / PROVENANCE, provenance_text(segments))

    def _locked(self) -> None:
        if not self._lock.held:
            raise StoreError(f"enter the writer of {self.run_id} (with ...) before writing to it")


def _unfinished(folder: Path) -> Status:
    """Return the status of a run without a summary.

    Raises:
        StoreError: its lock file cannot be opened.
    """
    try:
        return "running" if folder.is_dir() and is_locked(folder) else idle_status(folder)
    except OSError as error:
        raise StoreError(f"{folder / LOCK} cannot be opened ({error.strerror or error})") from None


def idle_status(folder: Path) -> Status:
    """Return the status of a run that has no summary and that no process is writing."""
    if (folder / ERROR).exists():
        return "failed"
    begun = any((folder / name).exists() for name in (CONFIG, METRICS, CHECKPOINT, PROVENANCE))
    return "interrupted" if begun else "missing"


Parts = tuple[dict[str, Any] | None, list[dict[str, Any]], list[dict[str, Any]]]


def _parse(folder: Path, contents: Mapping[str, bytes | None]) -> Parts:
    """Parse the configuration (None if there is no file), points and segments of a run."""
    config, provenance = contents[CONFIG], contents[PROVENANCE]
    return (
        None if config is None else parse_config(folder / CONFIG, config),
        points_of(folder / METRICS, contents[METRICS] or b""),
        [] if provenance is None else parse_provenance(folder / PROVENANCE, provenance),
    )


def _read_layers(path: Path, digests: Digests | None) -> list[dict[str, Any]]:
    return points_of(path, read(path, digests) or b"", checked=digests is not None)
