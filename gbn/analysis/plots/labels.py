"""Names at the ends of lines, pushed apart to avoid overlaps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_POINTS = 8.0  # distance between neighboring names


def label_ends(axes: Any, size: float = 6.8) -> None:
    """Write each labeled line's name beside its end, to the right of the axes, in the line's color.

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
