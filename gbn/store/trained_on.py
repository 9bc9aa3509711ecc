"""What data a run was trained on: the digest in each segment of its provenance, and where digests are compared.

A digest identifies the content of the files that a run read. Plain hexadecimal is the first way of computing one, a
prefix as in ``2:`` a later way; only digests made in one way tell anything about each other.

Runs are compared with each other, so they have to be trained on the same data. A run that goes on compares its data
with its own earlier segments (:func:`check_resumed`), one that starts with the first run of the results folder that
reads the same data set in the same way (:func:`check_first`), and every table with all runs behind it
(:mod:`gbn.analysis.runs.same_data`). ``dataset.allow_changed=true`` turns the errors into notes.
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

#: Under the results directory: for each data set, as it is read, a file names the first run that was trained on it.
#: A hint, never a source, as all that is there.
FOLDER = "cache"

KEY = "dataset.allow_changed=true"


class ChangedDataError(StoreError):
    """Runs, or parts of one run, that were trained on different data; one line that says what to do."""


def way(found: str) -> str:
    """How a digest was computed: its prefix, empty for the first way."""
    return found.rpartition(":")[0]


def differ(one: str, other: str) -> bool:
    """Whether two digests are of different data, as far as they tell."""
    return way(one) == way(other) and one != other


def short(found: str) -> str:
    """A digest for people: its first twelve digits, with the prefix."""
    return found[: len(found) - len(found.rpartition(":")[2]) + 12]


def digests(segments: Sequence[Mapping[str, Any]]) -> list[str]:
    """The different digests of the segments that left something in a run, in order of training.

    Nothing is left of a segment where a later one began at the same update or before: it had no checkpoint.
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
    """What an identity says of the data: its section ``dataset``, and the data set of an attack."""
    attack = identity.get("trainer", {}).get("attack", {}).get("dataset")
    return {"dataset": identity.get("dataset"), **({"attack": attack} if attack else {})}


def same_section(identity: Mapping[str, Any]) -> str:
    """The same text for identities whose data has to be the same."""
    return canonical(section(identity))


def check_resumed(folder: Path, segments: Sequence[Mapping[str, Any]], start: int, found: str) -> None:
    """Refuse data that is not what the run's earlier segments were trained on.

    Args:
        folder: the run's.
        segments: its provenance so far.
        start: the update that the run goes on from.
        found: the digest of the data now.

    Raises:
        ChangedDataError: it names both digests; or there is no provenance of what was trained so far.
    """
    if start and not segments:
        raise ChangedDataError(
            f"{folder / PROVENANCE} is missing, so that nothing says what {folder.name} was trained on until update "
            f"{start}: remove the folder {folder} to train this run anew, or go on with {KEY}"
        )
    before = digests([*segments, {"start_update": start, "data_digest": found}])
    for other in before:
        if differ(other, found):
            raise ChangedDataError(
                f"{folder.name} was trained on other data until update {start} (data digest {short(other)} then, "
                f"{short(found)} now): put the old files back, remove the folder {folder} to train this run anew, or "
                f"allow it with {KEY}, which tables will say"
            )


def check_first(store: RunStore, run_id: str, identity: Mapping[str, Any], found: str) -> None:
    """Refuse data that is not what the first run here with the same section was trained on; be the first if none is.

    It looks at one run, so that it costs nothing: where that run is gone changed data may pass, and tables find it.

    Args:
        store: where the run is, its provenance written.
        run_id: the run.
        identity: its identity.
        found: the digest of its data.

    Raises:
        ChangedDataError: it names both runs and digests.
    """
    about = section(identity)
    name = f"data-{identity['dataset']['name']}-{digest({**about, 'way': way(found)})}.json"
    path = store.results_dir / FOLDER / name
    with contextlib.suppress(OSError):  # a hint that cannot be written is not there
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
    """Run id and digest of a hint; None where it is absent, damaged, or not what that run's provenance says."""
    try:
        hint = read_json(path, dict)
        run_id, found = str(hint["run_id"]), str(hint["data_digest"])
        if found in digests(read_json(store.path(run_id) / PROVENANCE, list)):
            return run_id, found
    except (OSError, StoreError, KeyError, AttributeError, TypeError):
        pass
    return None


def _put(store: RunStore, path: Path, hint: Mapping[str, Any]) -> None:
    """Write a hint whole, unless another process was first."""
    own = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        own.write_text(json.dumps(hint) + "\n", encoding="utf-8")
        try:
            os.link(own, path)  # fails where there is one, unlike a rename
        except OSError:
            if _first(store, path) is None:  # it counts for nothing, or there are no hard links here
                replace(own, path)
    finally:
        own.unlink(missing_ok=True)
