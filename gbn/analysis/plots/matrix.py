"""The figure of a factorial grid: arms named ``row+column`` as a matrix of differences from the reference.

Each cell holds the mean paired difference and the half-width of its paired t interval. Color encodes the difference;
bold means that the interval excludes 0 (each cell on its own: among many cells, some do by chance).
"""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.plots.labels import stem, write_words
from gbn.analysis.tables import headings
from gbn.measures import Measure
from gbn.plot_style import DPI, Picture

_RC = {"font.size": 8, "axes.linewidth": 0.6, "pdf.fonttype": 42}  # a matrix keeps its frame


def cells(comparison: Comparison, setting: str) -> dict[tuple[str, str], str]:
    """Return (row, column) -> arm for a setting's arms named ``row+column``, in the plan's order."""
    named = (
        arm.split("+") for arm in comparison.runs.arms(setting) if arm.count("+") == 1 and "[" not in arm
    )
    return {(row, column): f"{row}+{column}" for row, column in named}


def draw(comparison: Comparison, setting: str) -> Figure | None:
    """Draw one setting; None if its arms do not form a matrix (at least two rows and two columns)."""
    found = cells(comparison, setting)
    rows, columns = (list(dict.fromkeys(key[place] for key in found)) for place in (0, 1))
    if min(len(rows), len(columns)) < 2:
        return None
    reference = comparison.runs.plan.reference
    with mpl.rc_context(_RC):
        width, height = 2 * (1.5 + 0.62 * len(columns)), 1.35 + 0.42 * len(rows)
        figure = Figure(figsize=(width, height), dpi=DPI)
        for axes, (quantity, title, measure) in zip(
            figure.subplots(1, 2), _quantities(comparison), strict=True
        ):
            estimates = {
                key: comparison.evidence.estimate(setting, quantity, arm, reference)
                for key, arm in found.items()
            }
            _matrix(axes, rows, columns, estimates, measure)
            axes.set_title(f"{title}: arm - {reference}", fontsize=8)
        measured = comparison.measured  # which color is better goes without saying for an accuracy
        better = "" if measured.family == "accuracy" else f" Blue is better: {measured.direction}."
        caption = (
            "Mean paired difference ± half-width of its 95 % t interval; bold: the interval excludes 0, one cell at "
            f"a time. Up to {max(one.n for one in estimates.values())} pairs.{better}"
        )
        write_words(figure, comparison.runs.plan, setting, caption, wrap=1000)
        figure.subplots_adjust(
            left=1.15 / width, right=1 - 0.1 / width, top=1 - 0.55 / height, bottom=0.75 / height, wspace=0.45
        )
        return figure


def pictures(comparison: Comparison) -> tuple[list[Picture], list[str]]:
    """Draw ``<name>-<setting>-matrix``; returns the pictures and what was not drawn."""
    source = comparison.selection | {"kind": "matrix"}
    made, notes = [], []
    for setting in comparison.runs.plan.settings:
        figure = draw(comparison, setting)
        if figure is None:
            notes.append(f"No matrix{f' of {setting}' if setting else ''}: no arms named row+column.")
            continue
        made.append(Picture(stem(comparison.runs.plan.name, setting, "matrix"), figure, _RC, source))
    return made, notes


def _quantities(comparison: Comparison) -> tuple[tuple[str, str, Measure], ...]:
    """Return for each panel the quantity, its name and the measure that it is a difference of."""
    measured, final = comparison.measured, comparison.figures.final
    return (
        ("area_difference", f"area under the curve{headings.counted(measured)}", measured),
        ("last_difference", f"{final.title}, last epoch{headings.counted(final)}", final),
    )


def _matrix(
    axes: Axes,
    rows: list[str],
    columns: list[str],
    estimates: dict[tuple[str, str], Estimate],
    measure: Measure,
) -> None:
    values = np.full((len(rows), len(columns)), np.nan)
    for (row, column), one in estimates.items():
        values[rows.index(row), columns.index(column)] = measure.shown(one.value_low)
    most = np.nanmax(np.abs(values)) or 1.0
    axes.imshow(
        values, cmap="RdBu" if measure.higher_is_better else "RdBu_r", vmin=-most, vmax=most, aspect="auto"
    )
    axes.set_xticks(range(len(columns)), columns, rotation=25, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for (row, column), one in estimates.items():
        value = measure.shown(one.value_low)
        digits = measure.digits - 1
        axes.text(
            columns.index(column),
            rows.index(row),
            f"{round(value, digits) + 0.0:+.{digits}f}\n±{measure.shown(one.high - one.low) / 2:.{digits}f}",
            ha="center",
            va="center",
            fontsize=6.5,
            fontweight="bold" if one.low > 0 or one.high < 0 else "normal",
            color="white" if abs(value) > 0.6 * most else "black",
        )
