"""Convergence figures: the measure and the loss against updates and against seconds, one line per arm with a band.

Each arm that has controls gets a row of its own with the reference and these controls, so a panel holds few
lines; other arms share rows of at most six. To the right is the paired difference of the measure, where arms
can be distinguished. A measure of which lower is better has a logarithmic axis; a task without a validation loss
(generated images) has no panel for it. An arm looks as it does in every figure (:mod:`gbn.analysis.looks`); names at
the ends of the last panel's lines tell arms apart in gray print too. Sizes are a printed page's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates.targets import Unit
from gbn.analysis.looks import Look, looks_of_plan
from gbn.analysis.plots.labels import label_ends, stem, write_words
from gbn.analysis.plots.lines import Line, difference_line, mean_line
from gbn.analysis.runs.load import Runs
from gbn.analysis.tables import headings
from gbn.measures import Measure
from gbn.plot_style import DPI, RC, WIDTH, Picture

ROW_HEIGHT, TOP, BOTTOM = 2.0, 0.55, 0.85  # inches; the last two for title and caption
MOST_ARMS = 6  # in a row, besides the reference


@dataclass(frozen=True)
class PanelRow:
    """One row of panels: a caption, and its arms as (arm, short name)."""

    caption: str
    arms: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Panels:
    """The axes of one row: the measure, and, if present, its loss and its difference from the reference."""

    value: Axes
    loss: Axes | None
    difference: Axes | None


def rows_of(runs: Runs, setting: str) -> list[PanelRow]:
    """Distribute the arms of a setting over rows."""
    plan, arms = runs.plan, runs.arms(setting)
    reference = [(plan.reference, plan.reference)] if plan.reference in arms else []
    rows, placed = [], {plan.reference}
    for arm, controls in plan.controls.items():
        inside = [control for control in controls if control in arms]
        if arm in arms and inside:
            short = [(control, control.removesuffix(f"[{arm}]")) for control in inside]
            rows.append(PanelRow(f"{arm} and its controls", (*reference, (arm, arm), *short)))
            placed |= {arm, *inside}
    rest = [(arm, arm) for arm in arms if arm not in placed]
    for start in range(0, len(rest), MOST_ARMS):
        caption = "other arms" if rows else ""
        rows.append(PanelRow(caption, (*reference, *rest[start : start + MOST_ARMS])))
    return rows or [PanelRow("", tuple(reference))]


def draw(comparison: Comparison, setting: str, unit: Unit, linear: bool = False) -> Figure:
    """Draw one setting against `unit`, on a logarithmic axis unless `linear`."""
    with mpl.rc_context(dict(RC)):
        rows = rows_of(comparison.runs, setting)
        compared = comparison.runs.plan.reference in comparison.runs.arms(setting) and any(
            len(row.arms) > 1 for row in rows
        )
        height = ROW_HEIGHT * len(rows) + TOP + BOTTOM
        figure = Figure(figsize=(WIDTH, height), dpi=DPI)
        loss = loss_key(comparison)
        grid = figure.subplots(len(rows), 1 + (loss is not None) + compared, squeeze=False, sharex=True)
        panels_of = [
            Panels(panels[0], panels[1] if loss else None, panels[-1] if compared else None)
            for panels in grid
        ]
        first = panels_of[0]
        for row, panels in zip(rows, panels_of, strict=True):
            if panels is not first:  # one bad arm would flatten a shared scale of differences
                panels.value.sharey(first.value)
                if panels.loss is not None and first.loss is not None:
                    panels.loss.sharey(first.loss)
            _row(comparison, setting, row, panels, unit, loss)
        _scales(grid, linear)
        for panels in panels_of:
            _heights(panels, comparison.measured)
        names = [name for row in rows for _, name in row.arms]
        figure.subplots_adjust(
            left=0.062 if comparison.measured.share else 0.08,  # tick labels of a KID are long
            right=1 - (0.28 + 0.055 * max(map(len, names))) / WIDTH,
            wspace=0.33,
            hspace=0.3,
            top=1 - TOP / height,
            bottom=BOTTOM / height,
        )
        for panels, row_of_axes in zip(panels_of, grid, strict=True):
            if comparison.measured.share:
                low, high = (
                    panels.value.get_ylim()
                )  # bands of few seeds extend beyond the range of an accuracy
                panels.value.set_ylim(max(low, 0), min(high, 1.02))
            label_ends(row_of_axes[-1])
        for axes in grid[-1]:
            axes.set_xlabel("updates" if unit == "updates" else "seconds of training")
        caption = _caption(comparison, setting, compared, linear, loss is not None)
        write_words(figure, comparison.runs.plan, setting, caption)
        return figure


def pictures(comparison: Comparison, linear: bool = False) -> tuple[list[Picture], list[str]]:
    """Draw every figure; `linear`: with a linear horizontal axis.

    Returns:
        The pictures, and a sentence for each figure that was not drawn.
    """
    source = comparison.selection | {"kind": "convergence", "linear": linear}
    made, notes = [], []
    for setting in comparison.runs.plan.settings:
        if not comparison.runs.arms(setting):
            notes.append(f"No figure of {setting}: no finished run.")
            continue
        units = comparison.times.units(setting)
        if "seconds" not in units:
            where = f" of {setting}" if setting else ""
            notes.append(f"No figure{where} against seconds: {comparison.times.seconds_reasons[setting]}.")
        for unit in units:
            figure = draw(comparison, setting, unit, linear)
            made.append(Picture(stem(comparison.runs.plan.name, setting, unit), figure, source=source))
    return made, notes


def loss_key(comparison: Comparison) -> str | None:
    """Return the key of the loss for the same images and statistics as the measure; None if there is none."""
    measured = comparison.measured
    if measured.family == "loss" or not measured.split:
        return None
    key = "test_loss" if measured.split == "test" else f"val_loss{'_exact' if measured.exact else ''}"
    return key if measured.family == "accuracy" or comparison.runs.has(key) else None


def _row(
    comparison: Comparison, setting: str, row: PanelRow, panels: Panels, unit: Unit, loss: str | None
) -> None:
    measured, reference = comparison.measured, comparison.runs.plan.reference
    measure = measured.key
    looks = looks_of_plan(comparison.runs.plan)
    for arm, name in row.arms:
        look = looks[arm]
        _plot(panels.value, mean_line(comparison.runs, setting, arm, measure, unit), name, look)
        if panels.loss is not None and loss is not None:
            _plot(panels.loss, mean_line(comparison.runs, setting, arm, loss, unit), name, look)
        if panels.difference is not None and arm != reference:
            line = difference_line(comparison.runs, setting, arm, reference, measure, unit)
            _plot(panels.difference, line, name, look)
    for target in comparison.times.targets(setting):
        panels.value.axhline(target, color="0.75", linewidth=0.5, zorder=0)
    # The name of a feature network is long, so it goes into the caption.
    panels.value.set_ylabel(measured.label.removesuffix(f" ({measured.network})"), labelpad=2)
    if panels.loss is not None:
        panels.loss.set_ylabel(f"{measured.split} loss", labelpad=2)
    if panels.difference is not None:
        start, end = panels.value.dataLim.intervalx
        panels.difference.plot([start, end], [0, 0], **looks[reference].line, linewidth=0.9)
        panels.difference.get_lines()[-1].set_label(reference)
        panels.difference.set_ylabel(f"{measured.name} - {reference}{headings.counted(measured)}", labelpad=2)
    panels.value.set_title(row.caption, loc="left", fontsize=8, fontweight="bold")


def _plot(axes: Axes, line: Line | None, label: str, look: Look) -> None:
    if line is None:
        return
    color = look.light
    axes.plot(line.x, line.mean, **look.curve, linewidth=1.2, label=label)
    if line.low is not None and line.high is not None:
        axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.16, linewidth=0)
    if line.cut_by_divergence:
        axes.plot(line.x[-1:], line.mean[-1:], marker="x", color=color, markersize=5, linestyle="none")


def _scales(grid: Any, linear: bool) -> None:
    for axes in grid.flat:
        axes.set_xscale("linear" if linear else "log")
        axes.grid(True, color="0.92", linewidth=0.5)
        axes.tick_params(width=0.6, length=2.5, which="major", pad=2)
        axes.tick_params(width=0.4, length=1.5, which="minor")
        start, end = axes.dataLim.intervalx
        if not linear and 0 < start < end < 30 * start:
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _heights(panels: Panels, measured: Measure) -> None:
    """Set the vertical scales: the measure's own unit; logarithmic for the loss, and if lower is better."""
    shown = measured.shown
    if panels.loss is not None:
        _logarithmic(panels.loss, lambda y: y)
    if measured.higher_is_better:
        panels.value.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{shown(y):g}"))
    else:
        _logarithmic(panels.value, shown)
    if panels.difference is not None:
        panels.difference.yaxis.set_major_formatter(
            FuncFormatter(lambda y, _: f"{shown(y):+g}" if abs(y) > 1e-9 else "0")
        )


def _logarithmic(axes: Axes, shown: Callable[[float], float]) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{shown(y):g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _caption(comparison: Comparison, setting: str, compared: bool, linear: bool, loss: bool) -> str:
    arms = comparison.runs.arms(setting)
    counts = sorted({len(comparison.runs.usable(setting, arm)) for arm in arms})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    text = f"Lines: mean over {seeds} seed{'s' if counts[-1] > 1 else ''}; "
    text += "bands: pointwise 95 % t interval of that mean. " if counts[-1] > 1 else "one seed has no band. "
    if compared:
        text += (
            "Right: paired difference, the same seed of both arms at the same place (own scale in each row). "
        )
    measured = comparison.measured
    if not measured.higher_is_better:
        text += f"{measured.direction.capitalize()}{': below 0 the arm is better' if compared else ''}. "
    text += f"Features: {measured.network}. " if measured.network else ""
    text += f"Normalizers with {'exact' if measured.exact else 'running'} statistics. "
    text += "Grey: fixed targets. " if comparison.times.targets(setting) else ""
    if any((comparison.runs.usable(setting, arm).status == "diverged").any() for arm in arms):
        text += "×: a seed diverged, the mean ends there. "
    logarithmic = [*(["the loss"] if loss else []), *([] if measured.higher_is_better else [measured.name])]
    return (text + _logarithms(logarithmic, linear)).strip()


def _logarithms(measures: Sequence[str], linear: bool) -> str:
    """Say which axes are logarithmic: the horizontal ones, and "the loss", "KID" or both."""
    named, verb = " and ".join(measures), "are" if len(measures) > 1 else "is"
    if linear:
        return f"{named[0].upper()}{named[1:]} {verb} logarithmic." if named else ""
    return f"Horizontal axes are logarithmic{f', as {verb} {named}' if named else ''}."
