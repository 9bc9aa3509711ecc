"""Notes on the runs behind a table, in plain sentences, that its reader has to know."""

import pandas as pd

from gbn.analysis.runs.columns import EXACT, Curves
from gbn.analysis.runs.plan import Plan


def absences(runs: pd.DataFrame) -> list[str]:
    """Describe the planned runs that are missing or did not finish, arm by arm."""
    notes = []
    for (setting, arm), rows in runs.groupby(["setting", "arm"], sort=False):
        where = f"{setting}: {arm}" if setting else str(arm)
        for status, group in rows[rows.status != "finished"].groupby("status", sort=True):
            if status != "left out":  # the note on mixed devices reports these
                seeds = ", ".join(str(seed) for seed in sorted(group.seed))
                notes.append(f"{where}: {str(status).replace('_', ' ')}: seeds {seeds}.")
    return notes


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
