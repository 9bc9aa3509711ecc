"""Notes on the runs behind a table, in plain sentences, that its reader has to know."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import pandas as pd

from gbn.analysis.runs.columns import EXACT, Curves
from gbn.analysis.runs.plan import Entry, Plan
from gbn.analysis.runs.rows import Row
from gbn.store.trained_on import KEY, ChangedDataError, same_section, short, way


def absences(runs: pd.DataFrame) -> list[str]:
    """Describe the planned runs that are missing or did not finish, arm by arm."""
    found: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for setting, arm, status, seed in zip(runs.setting, runs.arm, runs.status, runs.seed, strict=True):
        found[setting, arm][status].append(seed)
    return [
        f"{setting + ': ' if setting else ''}{arm}: {status.replace('_', ' ')}: seeds "
        f"{', '.join(map(str, sorted(seeds)))}."
        for (setting, arm), by_status in found.items()
        for status, seeds in sorted(by_status.items())
        if status not in ("finished", "left out")  # the note on mixed devices reports the latter
    ]


def stand_ins(plan: Plan, points: Curves) -> list[str]:
    """Name the arms without batch statistics if the measure asks for exact statistics."""
    notes = []
    for setting in plan.settings:
        entries = [entry for entry in plan.entries if entry.setting == setting]
        arms = {e.arm: None for e in entries if points.stands_in((setting, e.arm, e.seed), plan.measure)}
        if arms:
            notes.append(
                f"{setting + ': ' if setting else ''}{', '.join(arms)}: no statistics over batches, so that "
                f"{plan.measure.removesuffix(EXACT)} is {plan.measure} there."
            )
    return notes


def mixtures(plan: Plan, runs: pd.DataFrame) -> list[str]:
    """Describe arms with unequal seeds and settings that span several machines."""
    notes = []
    done = runs[runs.status.isin(["finished", "diverged"])]
    for setting in plan.settings:
        inside = done[done.setting == setting]
        where = f"{setting}: " if setting else ""
        seeds = {str(arm): tuple(sorted(rows.seed)) for arm, rows in inside.groupby("arm", sort=False)}
        if len(set(seeds.values())) > 1:
            shared = sorted(set.intersection(*(set(own) for own in seeds.values())))
            counts = ", ".join(f"{arm} {len(own)}" for arm, own in seeds.items())
            notes.append(
                f"{where}unequal seeds ({counts}; {len(shared)} shared by all): each comparison pairs the "
                "seeds that both arms have, and its n is the number of those pairs."
            )
        machines = sorted(inside.machine.dropna().unique())
        if len(machines) > 1:
            notes.append(
                f"{where}mixed devices: pairs pooled over {len(machines)} machines for updates, seconds not "
                f"compared: {'; '.join(machines)}."
            )
    return notes


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
        for digest in row.data:
            groups[same_section(row.identity or {}), way(digest)].setdefault(entry, []).append(digest)
    return groups


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
