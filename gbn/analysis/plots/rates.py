"""The figure of a tuning stage: quality against the learning rate, one line per arm, its selected rate marked."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.selection import BestRate, best_rates, selecting
from gbn.analysis.looks import Look, looks_of_plan
from gbn.analysis.plots.labels import label_ends
from gbn.measures import Measure
from gbn.plot_style import DPI, RC, Picture

_WIDTH, _HEIGHT, _TOP, _BOTTOM, _ACROSS = 3.4, 2.1, 0.45, 0.55, 3


def draw(
    found: Sequence[BestRate], title: str, looks: Mapping[str, Look], seeds: int, measure: Measure
) -> Figure:
    """Draw one panel per second-stage setting.

    Args:
        found: of :func:`gbn.analysis.comparison.selection.best_rates`.
        title: the experiment's.
        looks: of its arms.
        seeds: tuning seeds, for the caption.
        measure: of :func:`gbn.analysis.comparison.selection.selecting`.
    """
    panels = [(group, list(arms)) for group, arms in groupby(found, key=lambda best: best.group)]
    across = min(_ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    with mpl.rc_context(dict(RC)):
        width, height = max(_WIDTH * across, 5.0), _HEIGHT * down + _TOP + _BOTTOM
        figure = Figure(figsize=(width, height), dpi=DPI)
        grid = figure.subplots(down, across, squeeze=False).ravel().tolist()
        names = 0.35 + 0.055 * max(len(best.arm) for best in found)
        figure.subplots_adjust(
            left=0.5 / width,
            right=1 - names / width,
            top=1 - _TOP / height,
            bottom=(_BOTTOM + 0.3) / height,
            wspace=(names + 0.5) / (_WIDTH - names),
            hspace=0.5,
        )
        for axes, (group, arms) in zip(grid, panels, strict=False):
            _panel(axes, arms, looks, measure)
            axes.set_title(group, loc="left", fontsize=8, fontweight="bold")
            label_ends(axes)
        for axes in grid[len(panels) :]:
            axes.remove()
        figure.text(0.1 / width, 1 - 0.09 / height, title, fontsize=9.5, fontweight="bold", va="top")
        caption = (
            f"Mean over {seeds} tuning seeds of {_what(measure)} at the last update; a run "
            f"that diverged counts as {_diverged(measure)}. Filled: the rate selected."
        )
        figure.text(0.1 / width, 0.07 / height, caption, fontsize=6.8, color="0.3", va="bottom", wrap=True)
        return figure


def pictures(comparison: Comparison) -> list[Picture]:
    """Draw ``<name>-rates``."""
    plan = comparison.runs.plan
    seeds = len({entry.seed for entry in plan.entries})
    figure = draw(
        best_rates(comparison.times), plan.title, looks_of_plan(plan), seeds, selecting(comparison.times)
    )
    return [Picture(f"{plan.name}-rates", figure, source=comparison.selection | {"kind": "rates"})]


def _what(measure: Measure) -> str:
    if measure.family == "accuracy":
        return "the accuracy on the whole validation set"
    return f"{measure.key} ({measure.direction})"


def _diverged(measure: Measure) -> str:
    if measure.family == "accuracy":
        return "chance"
    return "the worst value" if math.isfinite(measure.worst) else "infinite, so its mean is not drawn"


def _panel(axes: Axes, arms: Sequence[BestRate], looks: Mapping[str, Look], measure: Measure) -> None:
    for best in arms:
        look = looks[best.arm]
        color = look.light
        rates = [float(rate) for rate in best.values]
        values = [measure.shown(value) for value in best.values.values()]
        axes.plot(rates, values, **look.line, linewidth=1.1, label=best.arm)
        axes.plot(rates, values, "o", color=color, markersize=2.8, markerfacecolor="white", label="_")
        place = list(best.values).index(best.rate)
        axes.plot(rates[place], values[place], "o", color=color, markersize=5, label="_")
    axes.set_xscale("log")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates], fontsize=6.5)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("learning rate")
    axes.set_ylabel(measure.label)
