"""The archive: records of finished runs in ``<results_dir>/archive/``, written once and committed.

A record is filed under its run id *and* its setting (device kind, versions, kernels, threads): the same run
on another machine is separate evidence, since rounding differs there. The same run in the same
setting with other numbers is a contradiction and is refused: something outside the identity has changed the
result, and a person has to decide which of the two is right, by a retraction with a reason.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from gbn.store import shards
from gbn.store.files import StoreError, content_of, remove_leftovers, write_atomically
from gbn.store.finished import point_problem, problem_of
from gbn.store.identity import canonical
from gbn.store.record import Record
from gbn.store.records import DONE

RETRACTIONS = "retractions.yaml"
Key = tuple[str, ...]


@dataclass
class Added:
    """The result of one call of :meth:`Archive.add`.

    Attributes:
        shard: the new file; None if there was nothing new.
        added: ids of the records now in it.
        known: ids whose record the archive already had, with the same numbers. A record that only adds recordings of
            the layers is new.
        unfinished: (id, status) of the runs that are not done.
        refused: (id, reason) of the records that contradict the archive or are inconsistent.
    """

    shard: Path | None = None
    added: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    unfinished: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


class Archive:
    """The committed records under a results directory; iteration yields those not retracted.

    Raises (when read):
        StoreError: a shard is damaged, two shards contradict each other (after a merge, say), or a
            retraction has no reason or names a record that does not exist.
    """

    def __init__(self, results_dir: str | Path) -> None:
        self.folder = Path(results_dir) / "archive"
        self._records: dict[Key, Record] | None = None

    def shards(self) -> list[Path]:
        """Return the shard files, sorted by name."""
        return sorted(self.folder.glob("*.parquet"))

    def __iter__(self) -> Iterator[Record]:
        return iter(self._load().values())

    def __len__(self) -> int:
        return len(self._load())

    def find(self, run_id: str) -> list[Record]:
        """Return the records of a run, one per setting; empty if there are none."""
        return [record for record in self if record.run_id == run_id]

    def add(
        self, records: Iterable[Record], experiment: str, date: str | None = None, dry_run: bool = False
    ) -> Added:
        """Pack the new records into one new shard ``<experiment>-<date>-<hash>.parquet``.

        Args:
            records: runs from the store; unfinished ones are reported, not packed.
            experiment: names the shard; only a label, since a run can serve several experiments.
            date: YYYY-MM-DD; today (UTC) by default.
            dry_run: only report what would be added.
        """
        result = Added()
        fresh: dict[Key, Record] = {}
        known = dict(self._load())
        for record in records:
            if record.status not in DONE:
                result.unfinished.append((record.run_id, record.status))
                continue
            problem = _inconsistent(record)
            other = known.get(key(record)) or fresh.get(key(record))
            if problem is None and other is not None:
                problem = contradiction(other, record)
            if problem is not None:
                result.refused.append((record.run_id, problem))
            elif other is not None and (other.read_layers or not record.read_layers):
                result.known.append(record.run_id)
            else:
                fresh[key(record)] = record
        if fresh:
            result.added = sorted(record.run_id for record in fresh.values())
            if not dry_run:
                result.shard = self._write(list(fresh.values()), experiment, date)
        return result

    def retract(
        self, run_id: str, reason: str, shard: str | None = None, date: str | None = None
    ) -> list[str]:
        """Retract a run's records, in all shards or in one; the shards themselves do not change.

        Returns:
            The names of the shards whose records are retracted.

        Raises:
            StoreError: there is no reason, or no such record.
        """
        if not reason.strip():
            raise StoreError(f"a retraction needs a reason: say why {run_id} is taken back")
        found = [record.shard for record in self.find(run_id) if shard in (None, record.shard)]
        if not found:
            where = f"shard {shard}" if shard else f"{self.folder}"
            raise StoreError(f"{where} holds no record of {run_id} to retract")
        day = date or _today()
        entries = self._retractions() + [
            {"run_id": run_id, "shard": name, "date": day, "reason": reason.strip()} for name in found
        ]
        remove_leftovers(self.folder)
        text = "# Records taken back, each with its reason; the shards themselves never change.\n"
        write_atomically(self.folder / RETRACTIONS, text + yaml.safe_dump(entries, sort_keys=False))
        self._records = None
        return [str(name) for name in found]

    def _write(self, records: list[Record], experiment: str, date: str | None) -> Path:
        records.sort(key=key)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        path = shards.write(self.folder, records, experiment, date or _today())
        self._records = None
        return path

    def _load(self) -> dict[Key, Record]:
        if self._records is None:
            retracted = {(entry["run_id"], entry["shard"]) for entry in self._retractions()}
            kept: dict[Key, Record] = {}
            seen = set()
            for path in self.shards():
                for record in shards.read(path):
                    seen.add((record.run_id, record.shard))
                    if (record.run_id, record.shard) in retracted:
                        continue
                    other = kept.setdefault(key(record), record)
                    problem = contradiction(other, record)
                    if record.read_layers and not other.read_layers:
                        kept[key(record)] = record  # the same run, archived again for its layers
                    if problem:
                        raise StoreError(
                            f"{path.name} and {other.shard} disagree on {record.run_id}: {problem}; "
                            f"take one back in {self.folder / RETRACTIONS}"
                        )
            for run_id, shard in sorted(retracted - seen):
                raise StoreError(
                    f"{self.folder / RETRACTIONS} takes back {run_id} of {shard}, which is not there"
                )
            self._records = kept
        return self._records

    def _retractions(self) -> list[dict[str, Any]]:
        path = self.folder / RETRACTIONS
        try:
            entries = yaml.safe_load(content_of(path) or b"") or []
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            raise StoreError(
                f"{path} is damaged ({' '.join(str(error).split())}): check it out again"
            ) from None
        if not isinstance(entries, list):
            raise StoreError(f"{path} holds a {type(entries).__name__}, expected a list: check it out again")
        for entry in entries:
            if not isinstance(entry, dict) or not all(
                entry.get(name) and isinstance(entry[name], str) for name in ("run_id", "shard", "reason")
            ):
                raise StoreError(f"{path}: an entry needs run_id, shard and reason; got {entry!r}")
        return entries


def key(record: Record) -> Key:
    """Return the key that a record is filed under: run id, machine, threads."""
    return (record.run_id, record.machine, str(record.environment.get("threads", "")))


def contradiction(archived: Record, other: Record) -> str | None:
    """Return the first difference between two records of one run and setting; None if they agree.

    Times may differ (they are measurements of the machine); everything else is determined by the run. Layers need
    not have been recorded in both; recordings made the same way at the same update must agree.
    """
    if archived is other:
        return None
    for name in ("status", "identity", "updates", "diverged_at", "parameters"):
        old, new = ((record.summary or {}).get(name) for record in (archived, other))
        if canonical(old) != canonical(new):
            return f"{name} was {old!r}, is {new!r}"
    old_points, new_points = _numbers(archived), _numbers(other)
    if len(old_points) != len(new_points):
        return f"the curve had {len(old_points)} points, has {len(new_points)}"
    for old_point, new_point in zip(old_points, new_points, strict=True):
        for name in sorted(old_point.keys() | new_point.keys()):
            if old_point.get(name) != new_point.get(name):
                return (
                    f"{name} at update {old_point.get('update')} was {old_point.get(name)!r}, "
                    f"is {new_point.get(name)!r}"
                )
    old_layers, new_layers = _recordings(archived), _recordings(other)
    for place in old_layers.keys() & new_layers.keys():
        if old_layers[place] != new_layers[place]:
            return f"the layers recorded at update {place[0]} differ"
    return None


def _recordings(record: Record) -> dict[tuple[Any, ...], Any]:
    """Return the recordings of the layers by update and by how they were made (:mod:`gbn.engine.recording`)."""
    return {
        (recording.get("update"), recording.get("revision"), recording.get("images")): recording.get("layers")
        for recording in record.layers
    }


def _numbers(record: Record) -> list[dict[str, Any]]:
    """Return the curve without times and without missing measurements."""
    return [
        {name: value for name, value in point.items() if value is not None and "second" not in name}
        for point in record.curve
    ]


def _inconsistent(record: Record) -> str | None:
    """Return the inconsistency that keeps a record out of any archive; None if there is none."""
    summary = record.summary or {}
    if not isinstance(summary.get("identity"), dict):
        return "its summary has no identity"
    problem = problem_of(record.run_id, summary, record.config, record.curve, record.provenance)
    try:
        problem = problem or next(filter(None, map(point_problem, record.layers)), None)
    except StoreError as error:  # layers are read only now
        return str(error)
    return problem


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")
