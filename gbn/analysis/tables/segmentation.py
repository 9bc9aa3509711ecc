"""Segmentation: results per structure, in addition to the single final number, and per patient.

Scores per patient come from the summaries of finished runs (``patients``), one row per structure and test patient.
They show which patients an arm segments better, not only how well it does on average.
"""

import math
from collections.abc import Iterable, Mapping

import pandas as pd

from gbn.analysis.comparison.figures import last_values
from gbn.analysis.estimates.pairs import mean_interval
from gbn.analysis.runs.load import Runs
from gbn.analysis.runs.plan import GridLike
from gbn.analysis.tables import numbers
from gbn.analysis.tables.section import Section
from gbn.measures import Measure, companions
from gbn.store.record import Record

#: The name of the row with the mean over patients.
ALL = "all"
COLUMNS = (
    *("setting", "arm", "seed", "patient", "structure", "slices"),
    *("dice", "apd", "good", "missed", "spurious"),
)


def structures(runs: Runs, final: Measure, setting: str) -> Section | None:
    """Return last values of the companions of the final measure; None if it has none, or no run has any."""
    arms = runs.arms(setting)
    found = {one: [last_values(runs, setting, arm, one.key) for arm in arms] for one in companions(final)}
    known = {
        one: [[value for value in values if not math.isnan(value)] for values in by_arm]
        for one, by_arm in found.items()
    }
    known = {one: by_arm for one, by_arm in known.items() if any(by_arm)}
    if not known:
        return None
    rows = []
    for place, arm in enumerate(arms):
        row = [arm]
        for one, by_arm in known.items():
            values = by_arm[place]
            fewer = values and len(values) < len(found[one][place])
            text = numbers.value(mean_interval(values), one)
            row.append(text + (f" ({len(values)} runs)" if fewer else ""))
        rows.append(tuple(row))
    return Section(
        "The test set after the last epoch: mean ± standard deviation over seeds of means over patients",
        ("arm", *(one.label.removeprefix("test ") for one in known)),
        tuple(rows),
        (
            "With running statistics. A contour that is not found has a Dice of 0 and is not good; it has no "
            "distance, so an APD is an average over the contours found.",
        ),
    )


def patient_frame(grid: GridLike, records: Iterable[Record]) -> pd.DataFrame:
    """Return one row per run, test patient and structure, the mean over patients included.

    Args:
        grid: selects the runs.
        records: where to look for them; the first record of a run counts.

    Raises:
        LookupError: no finished run of the grid has scores per patient.
    """
    known: dict[str, Record] = {}
    for record in records:
        known.setdefault(record.run_id, record)
    rows = [
        {"setting": cell.setting, "arm": cell.label, "seed": seed, **scores}
        for cell in grid.cells
        for seed, run_id in cell.run_ids.items()
        if run_id in known
        for scores in (known[run_id].summary or {}).get("patients", ())
    ]
    if not rows:
        raise LookupError(
            f"no finished run of {grid.name} has scores per patient: train runs with task=segmentation"
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def patient_sections(frame: pd.DataFrame, reference: str) -> Mapping[str, Section]:
    """Return, by setting, the Dice of each test patient: one column per arm, worst patient first.

    Values are means over structures and seeds. Each mean except the reference's is followed by the number of seeds in
    which the arm is above the reference.
    """
    return {str(setting): _section(part, reference) for setting, part in frame.groupby("setting", sort=False)}


def _section(part: pd.DataFrame, reference: str) -> Section:
    dice = part.pivot_table("dice", ["arm", "seed"], "patient", aggfunc="mean", sort=False)
    arms = list(dict.fromkeys(part.arm))
    patients = [name for name in dice.columns if name != ALL]
    order = dice.loc[reference if reference in arms else arms[0]].mean()
    rows = []
    for patient in [*sorted(patients, key=lambda name: (order[name], name)), ALL]:
        row = ["mean of all" if patient == ALL else patient]
        for arm in arms:
            mine = dice.loc[arm][patient]
            text = f"{mean:.3f}" if (mean := mine.mean()) == mean else "-"
            if arm != reference and reference in arms:
                pairs = (
                    mine.to_frame("own")
                    .join(dice.loc[reference][patient].rename("other"), how="inner")
                    .dropna()
                )
                text += f" ({int((pairs.own > pairs.other).sum())}/{len(pairs)})"
            row.append(text)
        rows.append(tuple(row))
    slices = part[part.patient != ALL].groupby("patient").slices.max().sum()
    return Section(
        f"Dice of each test patient: mean over structures and seeds (seeds above {reference}/pairs)",
        ("patient", *arms),
        tuple(rows),
        (f"{len(patients)} patients, {slices} slices. A contour that is not found has a Dice of 0.",),
    )
