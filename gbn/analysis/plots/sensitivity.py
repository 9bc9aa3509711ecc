"""The figure of speed-up against target: does a speed-up depend on where the threshold was set?

Rows and styles are those of the convergence figures (:mod:`gbn.analysis.plots.convergence`). A line is drawn where
the estimate is a number; where misses leave only a bound, a triangle points to where the ratio may lie.
"""

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.times import PER_DECADE, STEP, speedup_curve
from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.estimates.targets import Unit
from gbn.analysis.looks import Look, looks_of_plan
from gbn.analysis.plots.convergence import PanelRow, rows_of
from gbn.analysis.plots.labels import label_ends, stem, write_words
from gbn.measures import Measure
from gbn.plot_style import DPI, RC, WIDTH, Picture

ROW_HEIGHT, TOP, BOTTOM = 1.9, 0.5, 0.95  # inches
#: The limit of the vertical axis, as a factor in either direction; intervals may extend beyond it.
MOST = 4.0


def draw(comparison: Comparison, setting: str, unit: Unit) -> Figure | None:
    """Draw one setting; None if no target lies between where runs begin and what half of them reach."""
    reference = comparison.runs.plan.reference
    if reference not in comparison.runs.arms(setting):
        return None
    rows = [row for row in rows_of(comparison.runs, setting) if any(arm != reference for arm, _ in row.arms)]
    curves = {
        arm: speedup_curve(comparison.times, setting, arm, reference, unit)
        for row in rows
        for arm, _ in row.arms
        if arm != reference
    }
    if not any(len(curve) > 1 for curve in curves.values()):
        return None
    with mpl.rc_context(dict(RC)):
        height = ROW_HEIGHT * len(rows) + TOP + BOTTOM
        figure = Figure(figsize=(WIDTH, height), dpi=DPI)
        axes = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0].tolist()
        for row, one in zip(rows, axes, strict=True):
            _row(comparison, setting, row, one, curves, unit)
        names = [name for row in rows for _, name in row.arms]
        figure.subplots_adjust(
            left=0.08,
            right=1 - (0.35 + 0.06 * max(map(len, names))) / WIDTH,
            top=1 - TOP / height,
            bottom=BOTTOM / height,
            hspace=0.3,
        )
        _scales(axes, curves)
        if not comparison.measured.higher_is_better:
            _downward(axes)
        for one in axes:
            label_ends(one)
        axes[-1].set_xlabel(f"target: {comparison.measured.label}")
        write_words(figure, comparison.runs.plan, setting, _caption(comparison, unit))
        return figure


def pictures(comparison: Comparison) -> tuple[list[Picture], list[str]]:
    """Draw ``<name>-<setting>-sensitivity-<unit>``; returns the pictures and what was not drawn."""
    source = comparison.selection | {"kind": "sensitivity"}
    made, notes = [], []
    for setting in comparison.runs.plan.settings:
        for unit in comparison.times.units(setting):
            figure = draw(comparison, setting, unit)
            if figure is None:
                where = f" of {setting}" if setting else ""
                notes.append(
                    f"No figure of speed-up against target{where}: needs two arms and targets between."
                )
                break
            name = stem(comparison.runs.plan.name, setting, "sensitivity", unit)
            made.append(Picture(name, figure, source=source))
    return made, notes


def _row(
    comparison: Comparison,
    setting: str,
    row: PanelRow,
    axes: Axes,
    curves: dict[str, list[tuple[float, Estimate]]],
    unit: Unit,
) -> None:
    reference = comparison.runs.plan.reference
    for target in comparison.times.targets(setting):
        axes.axvline(comparison.measured.shown(target), color="0.6", linewidth=0.8, zorder=1)
    looks = looks_of_plan(comparison.runs.plan)
    ends = []
    for arm, name in row.arms:
        if arm != reference:
            _curve(axes, curves[arm], name, looks[arm], comparison.measured)
            ends += [comparison.measured.shown(target) for target, _ in curves[arm]]
    if ends:
        sides = [min(ends), max(ends)] if comparison.measured.higher_is_better else [max(ends), min(ends)]
        axes.plot(sides, [1, 1], **looks[reference].line, linewidth=0.9)
        axes.get_lines()[-1].set_label(reference)
    axes.set_title(row.caption, loc="left", fontsize=8, fontweight="bold")
    axes.set_ylabel(f"speed-up ({unit})")


def _curve(
    axes: Axes, curve: Sequence[tuple[float, Estimate]], name: str, look: Look, measured: Measure
) -> None:
    color = look.light
    x = [measured.shown(target) for target, _ in curve]
    known = [
        (at, e.value_low)
        for at, (_, e) in zip(x, curve, strict=True)
        if e.value_low == e.value_high and 0 < e.value_low < math.inf
    ]
    if known:
        axes.plot(*_with_gaps(known, measured), **look.curve, linewidth=1.2, label=name)
    low = [max(e.low, 1 / MOST / 2) for _, e in curve]
    high = [min(e.high, MOST * 2) for _, e in curve]
    axes.fill_between(x, low, high, color=color, alpha=0.14, linewidth=0)
    for place, (_, estimate) in zip(x, curve, strict=True):
        if estimate.value_low < estimate.value_high:
            for value, marker in ((estimate.value_low, "^"), (estimate.value_high, "v")):
                if 0 < value < math.inf:
                    axes.plot([place], [value], marker=marker, color=color, markersize=2.5, linestyle="none")


def _with_gaps(points: Sequence[tuple[float, float]], measured: Measure) -> tuple[list[float], list[float]]:
    """Return x and y of a line that is broken where targets are missing and ends at the last number."""
    x, y = [points[0][0]], [points[0][1]]
    for at, value in points[1:]:
        apart = measured.shown(1.5 * STEP) if measured.share else x[-1] * (1 - 10 ** (-1.5 / PER_DECADE))
        if abs(at - x[-1]) > apart:
            x.append(at)
            y.append(math.nan)
        x.append(at)
        y.append(value)
    return x, y


def _scales(axes: Sequence[Axes], curves: dict[str, list[tuple[float, Estimate]]]) -> None:
    """Use one logarithmic scale for all rows, wide enough for the numbers but not for every interval."""
    numbers = [
        value
        for curve in curves.values()
        for _, e in curve
        for value in (e.value_low, e.value_high)
        if 0 < value < math.inf
    ]
    most = min(MOST, max(1.3, *(1.15 * max(value, 1 / value) for value in numbers)))
    for one in axes:
        one.set_yscale("log")
        one.set_ylim(1 / most, most)
        one.yaxis.set_major_locator(FixedLocator([0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0]))
        one.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        one.yaxis.set_minor_locator(NullLocator())
        one.set_axisbelow(True)
        one.grid(True, color="0.92", linewidth=0.5)
        one.tick_params(width=0.6, length=2.5, pad=2)


def _downward(axes: Sequence[Axes]) -> None:
    """Handle measures where lower is better: harder targets are still on the right, on a logarithmic axis."""
    for one in axes:
        one.set_xscale("log")
        start, end = one.dataLim.intervalx
        one.set_xlim(1.02 * end, start / 1.02)
        one.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        one.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        one.xaxis.set_minor_formatter(NullFormatter())


def _caption(comparison: Comparison, unit: Unit) -> str:
    reference = comparison.runs.plan.reference
    return (
        f"Speed-up = {unit} of {reference} / {unit} of the arm: geometric mean over pairs, median where a run "
        "misses; above 1 the arm is faster. Bands: 95 % interval, a target at a time. Triangles: bounds that misses "
        "leave. "
        f"Targets {_spacing(comparison.measured)} every first evaluation to what half of the reference's runs reach. "
        "Grey: the targets of the tables."
    )


def _spacing(measured: Measure) -> str:
    if measured.share:
        return "one point apart, from above"
    return f"{100 * (10 ** (1 / PER_DECADE) - 1):.1f} % apart, harder to the right ({measured.direction}), from below"
