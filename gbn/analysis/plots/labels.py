"""Words of a figure: its title and caption, names at the ends of lines, the name of its file."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gbn.analysis.runs.plan import Plan

_POINTS = 8.0  # distance between neighboring names


def write_words(
    figure: Figure,
    plan: Plan,
    setting: str,
    caption: str,
    *,
    subtitle: str = "",
    size: float = 6.8,
    wrap: int = 125,
) -> None:
    """Write the title (experiment and setting) above the panels and the caption, wrapped, below them."""
    height = figure.get_figheight()
    title = plan.title + (f": {setting}" if setting else "")
    figure.text(0.02, 1 - 0.09 / height, title, fontsize=9.5, fontweight="bold", va="top")
    if subtitle:
        figure.text(0.02, 1 - 0.27 / height, subtitle, fontsize=7.5, color="0.3", va="top")
    lines = "\n".join(textwrap.wrap(caption, wrap))
    figure.text(0.02, 0.07 / height, lines, fontsize=size, color="0.3", va="bottom")


def stem(*parts: str) -> str:
    """Return the name of a figure's file, without its ending: the parts that are not empty, joined by hyphens."""
    kept = "-".join(filter(None, parts))
    return "".join(one if one.isalnum() or one in "-._=+" else "_" for one in kept)


def label_ends(axes: Any, size: float = 6.8) -> None:
    """Write the name of each labeled line next to its end, to the right of the axes, in the line's color.

    Call this once limits and margins are final, since the positions are computed from them.
    """
    lines = [
        line for line in axes.get_lines() if not line.get_label().startswith("_") and len(line.get_xdata())
    ]
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(axes.get_ylim())
    into = axes.transData + axes.transAxes.inverted()
    ends = [(into.transform((line.get_xdata()[-1], line.get_ydata()[-1])), line) for line in lines]
    ends.sort(key=lambda end: end[0][1])
    height = axes.get_position().height * axes.figure.get_figheight() * 72
    heights = spread([float(end[1]) for end, _ in ends], gap=_POINTS / height)
    for (end, line), y in zip(ends, heights, strict=True):
        axes.annotate(
            line.get_label(),
            xy=tuple(end),
            xytext=(1.06, y),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=line.get_color(),
            fontsize=size,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": line.get_color(),
                "linewidth": 0.4,
                "relpos": (0, 0.5),  # from the name's left edge, never through the name
                "shrinkA": 1,
                "shrinkB": 1,
            },
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Return positions at least `gap` apart, in the given (ascending) order, as close to the wanted ones as possible.

    Labels that touch form a group, centered on the mean of its members' wanted positions.
    """
    groups: list[list[float]] = []
    for place in wanted:
        groups.append([place])
        while len(groups) > 1 and _last(groups[-2], gap) + gap > _first(groups[-1], gap):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_first(group, gap) + gap * i for group in groups for i in range(len(group))]


def _first(group: Sequence[float], gap: float) -> float:
    return float(np.mean(group)) - gap * (len(group) - 1) / 2


def _last(group: Sequence[float], gap: float) -> float:
    return _first(group, gap) + gap * (len(group) - 1)
