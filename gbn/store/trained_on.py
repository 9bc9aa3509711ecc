"""The data that a run was trained on: a digest in each segment of its provenance, and the checks that compare them.

A digest identifies the content of the files that a run read. Plain hexadecimal is the first method of computing it, a
prefix such as ``2:`` marks a later method; only digests computed by the same method can be compared.

Runs are compared with each other, so they have to be trained on the same data. A resumed run compares its data
with its own earlier segments (:func:`check_resumed`), a new run with the first run in the results folder that reads
the same data set in the same way (:func:`check_first`), and every table compares all its runs
(:func:`gbn.analysis.runs.notes.data_notes`). ``dataset.allow_changed=true`` turns the errors into notes.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gbn.store.files import StoreError, read_json, replace
from gbn.store.identity import canonical, digest
from gbn.store.records import PROVENANCE, RunStore

#: Under the results directory: for each way of reading a data set, a file names the first run trained on it.
#: Like everything there, it is a hint and never a source.
FOLDER = "cache"

KEY = "dataset.allow_changed=true"


class ChangedDataError(StoreError):
    """Runs, or parts of one run, were trained on different data; the message is one line that says what to do."""


def way(found: str) -> str:
    """Return the method by which a digest was computed: its prefix, empty for the first method."""
    return found.rpartition(":")[0]


def differ(one: str, other: str) -> bool:
    """Return whether two digests are known to be of different data."""
    return way(one) == way(other) and one != other


def short(found: str) -> str:
    """Return a digest shortened for display: its first twelve digits, with the prefix."""
    return found[: len(found) - len(found.rpartition(":")[2]) + 12]


def digests(segments: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the distinct digests of the segments that contributed to a run, in order of training.

    Nothing is left of a segment if a later one began at the same update or before: it had no checkpoint.
    """
    found: list[str] = []
    begun = None
    for segment in reversed(segments):
        start = segment.get("start_update") or 0
        if begun is None or start < begun:
            begun = start
            if segment.get("data_digest"):
                found.append(str(segment["data_digest"]))
    return list(dict.fromkeys(reversed(found)))


def section(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an identity that describes the data: section ``dataset``, and the data set of an attack."""
    attack = identity.get("trainer", {}).get("attack", {}).get("dataset")
    return {"dataset": identity.get("dataset"), **({"attack": attack} if attack else {})}


def same_section(identity: Mapping[str, Any]) -> str:
    """Return a key that is equal for identities whose data must be the same."""
    return canonical(section(identity))


def check_resumed(folder: Path, segments: Sequence[Mapping[str, Any]], start: int, found: str) -> None:
    """Check that the data is what the run's earlier segments were trained on.

    Args:
        folder: the run's.
        segments: its provenance so far.
        start: the update that the run resumes from.
        found: the digest of the data now.

    Raises:
        ChangedDataError: the data differs (the message names both digests), or the provenance so far is missing.
    """
    if start and not segments:
        raise ChangedDataError(
            f"{folder / PROVENANCE} is missing, so that nothing says what {folder.name} was trained on until update "
            f"{start}: remove the folder {folder} to train this run again, or go on with {KEY}"
        )
    before = digests([*segments, {"start_update": start, "data_digest": found}])
    for other in before:
        if differ(other, found):
            raise ChangedDataError(
                f"{folder.name} was trained on other data until update {start} (data digest {short(other)} then, "
                f"{short(found)} now): put the old files back, remove the folder {folder} to train this run again, "
                f"or allow it with {KEY}, which tables will say"
            )


def check_first(store: RunStore, run_id: str, identity: Mapping[str, Any], found: str) -> None:
    """Check that the data is that of the first run here with the same section; if there is none, be the first.

    Only that one run is read, to keep this cheap: if it is gone, changed data may pass, and tables find it.

    Args:
        store: where the run is, its provenance written.
        run_id: the run.
        identity: its identity.
        found: the digest of its data.

    Raises:
        ChangedDataError: the data differs; the message names both runs and digests.
    """
    about = section(identity)
    name = f"data-{identity['dataset']['name']}-{digest({**about, 'way': way(found)})}.json"
    path = store.results_dir / FOLDER / name
    with contextlib.suppress(OSError):  # a hint that cannot be written is simply absent
        if _first(store, path) is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _put(store, path, {"run_id": run_id, "data_digest": found, **about})
    first = _first(store, path)
    if first is not None and first[0] != run_id and differ(first[1], found):
        raise ChangedDataError(
            f"{run_id} would be trained on other data than {first[0]}, with which it may be compared (data digest "
            f"{short(found)} now, {short(first[1])} there): put the old files back, train in another results_dir, "
            f"remove the runs on the old data, or allow it with {KEY}, which tables will say"
        )


def _first(store: RunStore, path: Path) -> tuple[str, str] | None:
    """Return the run id and digest of a hint; None if it is absent, damaged, or contradicts the run's provenance."""
    try:
        hint = read_json(path, dict)
        run_id, found = str(hint["run_id"]), str(hint["data_digest"])
        if found in digests(read_json(store.path(run_id) / PROVENANCE, list)):
            return run_id, found
    except (OSError, StoreError, KeyError, AttributeError, TypeError):
        pass
    return None


def _put(store: RunStore, path: Path, hint: Mapping[str, Any]) -> None:
    """Write a hint atomically, unless another process was first."""
    own = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        own.write_text(json.dumps(hint) + "\n", encoding="utf-8")
        try:
            os.link(own, path)  # fails if there is one already, unlike a rename
        except OSError:
            if _first(store, path) is None:  # the existing one is invalid, or there are no hard links here
                replace(own, path)
    finally:
        own.unlink(missing_ok=True)
