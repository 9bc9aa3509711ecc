"""Checks of a finished run: its files are the ones it ended with, and they agree with each other.

``summary.json`` is sealed (:mod:`gbn.store.files`) and holds the digests of the run's other files, so any later
change to one of them is found when that file is read. Summaries from earlier versions have no digests: for those
runs, only contradictions between the parts can be found, not every changed digit.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gbn import measures
from gbn.store.files import REMEDY, StoreError, content_of, damaged, digest, read_json, sealed, unsealed
from gbn.store.identity import canonical, run_id_of

CONFIG, METRICS, LAYERS, PROVENANCE = "config.yaml", "metrics.jsonl", "layers.jsonl", "provenance.json"
SUMMARY = "summary.json"

#: The statuses a summary may carry: such a run is done, and is skipped when started again.
DONE = ("finished", "diverged", "not_applicable")

#: The files whose digests a summary holds; absent files have none.
COVERED = (CONFIG, METRICS, LAYERS, PROVENANCE)

_FILES = "files"
_COUNTS = ("updates", "parameters", "diverged_at")
_AMOUNTS = ("seconds", "wall_seconds", "foreign_share")
_POINTS = ("final", "best_by_validation", "best_on_test")
_PLAIN = ("epoch", "images", "lr", "seconds")  # numbers in a point that are not measures

_ANY = (-math.inf, math.inf)

Digests = Mapping[str, str]


def summary_text(summary: Mapping[str, Any], contents: Mapping[str, bytes | None]) -> str:
    """Return the text of ``summary.json``: with the digests of the run's other files and its own."""
    files = {name: digest(content) for name, content in contents.items() if content is not None}
    return json.dumps(sealed({**summary, _FILES: files}), indent=2, allow_nan=False) + "\n"


def read_summary(folder: Path) -> tuple[dict[str, Any], Digests | None]:
    """Return the summary of a finished run and the digests of its other files (None from an earlier version).

    Raises:
        StoreError: it is absent, damaged, another run's, or contradicts itself.
    """
    path = folder / SUMMARY
    try:
        summary, marked = unsealed(read_json(path, dict))
    except ValueError as error:
        raise damaged(path, error) from None
    files = summary.pop(_FILES, None)
    if marked != isinstance(files, dict):
        raise damaged(path, "it has a digest of itself or of the other files, but not both")
    # with its digest it is as it was written, and then it was checked: only the folder can be another one now
    problem = _of_folder(folder.name, summary) if marked else summary_problem(folder.name, summary)
    if problem:
        raise StoreError(f"{path}: {problem}; {REMEDY}")
    return summary, files


def read(path: Path, digests: Digests | None) -> bytes | None:
    """Return the content of a file of a run, None if there is none, after checking it against its digest.

    Args:
        path: the file.
        digests: from the summary of a finished run; None skips the check.

    Raises:
        StoreError: the file cannot be read, is missing, or was changed or added after the run ended.
    """
    content = content_of(path)
    if digests is not None:
        ended = digests.get(path.name)
        if content is None and ended is not None:
            raise StoreError(f"{path} is missing, and the run had one when it ended: {REMEDY}")
        if content is not None and ended != digest(content):
            had = "had another one" if ended is not None else "had none"
            raise StoreError(f"{path} was changed after the run ended, which {had}: {REMEDY}")
    return content


def problem_of(
    run_id: str,
    summary: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    points: Sequence[Mapping[str, Any]],
    provenance: Sequence[Mapping[str, Any]],
) -> str | None:
    """Return the first contradiction between the parts of a finished run, naming the files; None if they agree."""

    def problems() -> Iterator[tuple[str, str | None]]:  # each supposes that those before it are None
        yield SUMMARY, summary_problem(run_id, summary)
        yield from ((METRICS, point_problem(point)) for point in points)
        yield f"{METRICS} and {SUMMARY}", _of_curve(summary, points[-1] if points else None)
        yield f"{PROVENANCE} and {SUMMARY}", _of_provenance(summary, provenance[-1] if provenance else {})
        yield f"{CONFIG} and {SUMMARY}", _of_config(summary, config)

    return next((f"{files}: {problem}" for files, problem in problems() if problem), None)


def summary_problem(run_id: str, summary: Mapping[str, Any]) -> str | None:
    """Return what is impossible in a summary of this run; None if nothing is."""
    status = summary.get("status")
    if status not in DONE:
        return f"it has status {status!r}; allowed: {', '.join(DONE)}"
    if problem := _of_folder(run_id, summary):
        return problem
    if "identity" in summary:
        try:
            belongs = run_id_of(summary["identity"])
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            return f"its identity is invalid ({error})"
        if belongs != run_id:
            return f"its identity is that of {belongs}: the folder was renamed or the summary edited"
        if other := _of_config({"identity": summary["identity"]}, summary.get("config")):
            return other
    for name in _COUNTS:
        value = summary.get(name)
        if value is not None and not (_is_number(value) and isinstance(value, int) and value >= 0):
            return f"{name} is {value!r}, expected a whole number"
    for name in _AMOUNTS:
        value = summary.get(name)
        if value is not None and not (_is_number(value) and value >= 0):
            return f"{name} is {value!r}, expected a number of at least 0"
    for name in (*_POINTS, "best", "environment"):
        if not isinstance(summary.get(name) or {}, Mapping):
            return f"{name} is {summary[name]!r}, expected a mapping"
    for name, point in _points_of(summary):
        problem = point_problem(point)
        if problem:
            return f"{name}: {problem}"
    if "diverged_at" in summary and (status == "diverged") != (summary["diverged_at"] is not None):
        return f"status {status} and diverged_at={summary['diverged_at']!r} contradict each other"
    return None


def _of_folder(run_id: str, summary: Mapping[str, Any]) -> str | None:
    """Return whose summary it is, if not that of the run whose folder holds it."""
    named = summary.get("run_id", run_id)
    if named != run_id:
        return f"it is the summary of {named!r}, not of {run_id}: the folder was copied or renamed"
    return None


def _points_of(summary: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the points of the curve that a summary quotes; ``best`` has a value and its update for each measure."""
    for name in _POINTS:
        yield name, summary.get(name) or {}
    for key, best in (summary.get("best") or {}).items():
        if isinstance(best, Mapping):
            yield "best", {"update": best.get("update"), key: best.get("value")}


def point_problem(point: Mapping[str, Any]) -> str | None:
    """Return what is impossible in a curve's point (text for a number, an accuracy of 7); None if nothing is."""
    update = point.get("update")
    for key, value in point.items():
        bounds = range_of(key)
        if value is None or bounds is None:
            continue
        whole = key != "update" or isinstance(value, int)
        if not (_is_number(value) and whole and bounds[0] <= value <= bounds[1]):
            what = f"{'a whole' if key == 'update' else 'a'} number"
            what += f" from {bounds[0]:g} to {bounds[1]:g}" if bounds != _ANY else ""
            return f"{key} at update {update} is {value!r}, expected {what}"
    return None


def range_of(key: str) -> tuple[float, float] | None:
    """Return the least and greatest allowed value of a curve's key; None for an unknown key."""
    if key in _PLAIN:
        return _ANY
    if key == "update":
        return 0.0, math.inf
    known = measures.find(key)
    return known.range if known else None


def _of_curve(summary: Mapping[str, Any], last: Mapping[str, Any] | None) -> str | None:
    """Return how a summary contradicts the last point of the curve (None if it has no point)."""
    status, updates = summary.get("status"), summary.get("updates")
    if status != "not_applicable":
        if last is None:
            return f"it is {status} without a single point in its curve"
        if updates is not None and last.get("update") != updates:
            return f"it ended after {updates} updates, its curve at update {last.get('update')}"
    if "final" in summary:
        final, end = summary["final"] or {}, last or {}
        for key in sorted(final.keys() | end.keys()):
            if final.get(key) != end.get(key):
                return f"{key} at the end is {final.get(key)!r} in the summary, {end.get(key)!r} in the curve"
    return None


def _of_provenance(summary: Mapping[str, Any], last: Mapping[str, Any]) -> str | None:
    """Return how a summary contradicts the last segment of the provenance."""
    environment = summary.get("environment") or {}
    for key in sorted((environment.keys() & last.keys()) - {"date"}):
        if environment[key] != last[key]:
            return f"{key} is {environment[key]!r} in the summary, {last[key]!r} in the provenance"
    return None


def _of_config(summary: Mapping[str, Any], config: object) -> str | None:
    """Return how a configuration contradicts the summary's copy or identity; what is not a mapping does not."""
    copy, kept = summary.get("config"), summary.get("identity")
    if not isinstance(config, Mapping):
        return None
    if isinstance(copy, Mapping) and _differ(copy, config):
        return "the configuration is not the one in the summary"
    path = next(_other(kept, config), None) if isinstance(kept, Mapping) else None
    return f"{path} of the configuration is not that of the run's identity" if path else None


def _differ(one: object, other: object) -> bool:
    try:
        return canonical(one) != canonical(other)
    except ValueError:  # not plain data: no configuration of ours
        return True


def _other(kept: Mapping[str, Any], config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of an identity that are missing from a configuration or have another value there."""
    for key, value in kept.items():
        own = config.get(key)
        if isinstance(value, Mapping) and isinstance(own, Mapping):
            yield from _other(value, own, f"{prefix}{key}.")
        elif key not in config or _differ(own, value):
            yield prefix + key


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
