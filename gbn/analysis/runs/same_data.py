"""Check that the runs behind a table were trained on the same data (:mod:`gbn.store.trained_on`)."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache

from gbn.analysis.runs.columns import Row
from gbn.analysis.runs.plan import Entry, Plan
from gbn.store.trained_on import KEY, ChangedDataError, same_section, short, way


def data_notes(plan: Plan, chosen: Mapping[Entry, Row]) -> list[str]:
    """Return notes on the data behind a table: where it changed with permission.

    Runs whose identities name the same data are checked together, whatever their arm and setting. Those trained
    without the key that permits changes must agree, unless the grid has the key.

    Raises:
        ChangedDataError: they do not agree; the message names runs and digests.
    """
    notes = []
    for group in _groups(chosen).values():
        strict = _by_digest({entry: own for entry, own in group.items() if not chosen[entry].data_allowed})
        if len(strict) > 1 and not plan.changed_data_allowed:
            named = "; ".join(f"{short(digest)}: {_some(strict[digest])}" for digest in strict)
            raise ChangedDataError(
                f"{plan.name}: these runs were trained on different data ({named}): train them again on one of "
                f"these, leave the others out, or put {KEY} among the experiment's overrides, and the table says so"
            )
        found = _by_digest(group)
        usual = max(found, key=lambda digest: (len(found[digest]), digest))
        others = [
            f"{entry.setting + ': ' if entry.setting else ''}{entry.arm} seed {entry.seed} "
            f"({' then '.join(map(short, own))})"
            for entry, own in group.items()
            if own != [usual]
        ]
        if others:
            notes.append(
                f"Changed data, allowed by {KEY}: {len(group) - len(others)} of {len(group)} runs were trained on "
                f"data with the digest {short(usual)}, not so {', '.join(others)}. What differs may come of that."
            )
        elif allowed := sum(chosen[entry].data_allowed for entry in group):
            notes.append(
                f"{KEY} was set for {allowed} of {len(group)} runs; the data of all of them is the same."
            )
    return notes


def _groups(chosen: Mapping[Entry, Row]) -> dict[tuple[str, str], dict[Entry, list[str]]]:
    """Group runs whose digests are comparable: the same data by identity, and the same way to compute the digest."""
    groups: dict[tuple[str, str], dict[Entry, list[str]]] = defaultdict(dict)
    for entry, row in chosen.items():
        for digest in row.data.split(" then ") if row.data else ():
            groups[_section(row.rest or "{}"), way(digest)].setdefault(entry, []).append(digest)
    return groups


@cache
def _section(rest: str) -> str:
    return same_section(json.loads(rest))


def _by_digest(group: Mapping[Entry, list[str]]) -> dict[str, list[str]]:
    """Return the runs that were trained on each digest."""
    found: dict[str, list[str]] = defaultdict(list)
    for entry, own in group.items():
        for digest in own:
            found[digest].append(entry.run_id)
    return found


def _some(run_ids: Iterable[str], most: int = 3) -> str:
    names = sorted(set(run_ids))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
