"""The chart of a norm benchmark: each layer compared with memory bandwidth and with BatchNorm."""

import statistics
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gbn.plot_style import COLORS, DPI, RC, WIDTH, Picture

from .goals import MILLION, NAMED, Row
from .names import COMPILED, REFERENCE

MARKERS = ("o", "^", "D", "v", "P", "X")  # distinguish arms in grayscale
BASELINES = {REFERENCE: ("#000000", "s"), COMPILED: ("#7F7F7F", "s")}
ROW_HEIGHT = 2.6  # inches


def picture(rows: Sequence[Row], name: str) -> Picture:
    """Draw the timed rows: a row of panels for each dtype and layout."""
    with mpl.rc_context(dict(RC)):
        return Picture(name, draw(rows))


def draw(rows: Sequence[Row]) -> Figure:
    """Draw, left, the limit's time over the measured time; right, the time over BatchNorm's."""
    shown = _shown(rows)
    timed = [row for row in rows if row["median_ms"] and row["provider"] in shown]
    kinds = list(dict.fromkeys((row["dtype"], row["layout"]) for row in timed)) or [("", "")]
    height = ROW_HEIGHT * len(kinds) + 0.75
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    grid = figure.subplots(len(kinds), 2, squeeze=False, sharex=True)
    looks = _looks(timed)
    for kind, (left, right) in zip(kinds, grid, strict=True):
        here = [row for row in timed if (row["dtype"], row["layout"]) == kind]
        _share_panel(left, here, looks)
        _ratio_panel(right, here, looks)
        left.set_title(" ".join(kind).replace("_", " "), loc="left", fontsize=8, fontweight="bold")
    for axes in grid[-1]:
        axes.set_xlabel("elements of the tensor")
    first = rows[0]
    figure.text(
        *(0.02, 1 - 0.09 / height),
        f"norm + ReLU, forward + backward: {first['device_kind']}, {first['date'][:10]}",
        fontsize=9.5,
        fontweight="bold",
        va="top",
    )
    handles = dict(zip(*reversed(grid[0][0].get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="lower center",
        ncols=6,
        frameon=False,
        fontsize=7.5,
        bbox_to_anchor=(0.5, 0.0),
    )
    figure.subplots_adjust(
        left=0.08, right=0.985, wspace=0.2, hspace=0.3, top=1 - 0.52 / height, bottom=0.72 / height
    )
    return figure


def _shown(rows: Sequence[Row]) -> list[str]:
    """Return the baselines and as many pairs as there are colors, those with their own goals first."""
    pairs = {row["provider"]: row["pair"] for row in rows}
    ours = sorted((name for name in pairs if pairs[name]), key=lambda name: pairs[name] not in NAMED)
    return [name for name in pairs if not pairs[name]] + ours[: len(COLORS)]


def _looks(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    names = dict.fromkeys(row["provider"] for row in rows)
    ours = [name for name in names if name not in BASELINES]
    looks = {name: (COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(ours)}
    return {name: BASELINES.get(name) or looks[name] for name in names}


def _share_panel(axes: Axes, rows: Sequence[Row], looks: dict[str, tuple[str, str]]) -> None:
    """Draw the share of the roofline that is reached."""
    for row_name, look in looks.items():
        own = [row for row in rows if row["provider"] == row_name]
        points = [
            tuple(float(row["limit_ms"]) / float(row[column]) for column in ("median_ms", "p80_ms", "p20_ms"))
            for row in own
        ]
        _points(
            axes, [int(row["elements"]) for row in own], points, row_name, look, list(looks).index(row_name)
        )
    axes.axhline(1, color="0.35", linewidth=0.9, linestyle=(0, (5, 2)), zorder=1)
    if rows:
        label = f"five passes at {float(rows[0]['bandwidth_gb_s']):,.0f} GB/s"
        _remark(axes, label, 1)
    axes.set_ylim(0, max(1.15, 1.08 * axes.dataLim.y1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}"))
    axes.set_ylabel("share of the roofline (%)", labelpad=2)
    _finish(axes)


def _ratio_panel(axes: Axes, rows: Sequence[Row], looks: dict[str, tuple[str, str]]) -> None:
    """Draw the time against BatchNorm + ReLU, with the goal."""
    for row_name, look in looks.items():
        own = [row for row in rows if row["provider"] == row_name and row["provider"] != REFERENCE]
        points = [tuple(float(row[column]) for column in ("ratio", "ratio_p20", "ratio_p80")) for row in own]
        _points(
            axes, [int(row["elements"]) for row in own], points, row_name, look, list(looks).index(row_name)
        )
    axes.axhline(1, color="#000000", linewidth=0.9, linestyle=(0, (5, 2)), zorder=1)
    _remark(axes, REFERENCE, 1)
    axes.set_ylim(0, max(1.15, 1.08 * axes.dataLim.y1))
    if rows and rows[0]["device"] == "cpu" and rows[0]["dtype"] == "float32":
        low, high = axes.get_xlim()
        for start, end, goal in ((low, MILLION, 0.9), (MILLION, high, 0.6)):
            if start < end:
                axes.plot([max(start, low), end], [goal, goal], color="0.6", linewidth=0.8, zorder=1)
        _remark(axes, "goal", 0.9, below=True)
        axes.set_xlim(low, high)
    axes.set_ylabel(f"time / time of {REFERENCE}", labelpad=2)
    _finish(axes)


def _remark(axes: Axes, text: str, y: float, below: bool = False) -> None:
    """Write text at the left end of a horizontal line."""
    axes.annotate(
        text,
        (0.01, y),
        xycoords=("axes fraction", "data"),
        xytext=(0, -2 if below else 2),
        textcoords="offset points",
        fontsize=6.8,
        va="top" if below else "bottom",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        zorder=1.6,  # below the markers
    )


def _points(
    axes: Axes,
    elements: Sequence[int],
    points: Sequence[tuple[float, ...]],
    label: str,
    look: tuple[str, str],
    index: int,
) -> None:
    """Draw a marker per case with its 20/80 bar, and a line through the geometric means of equal sizes."""
    if not points:
        return
    color, marker = look
    aside = 1.0 + 0.025 * index  # layers of one size are side by side
    x = [count * aside for count in elements]
    middles, lows, highs = zip(*points, strict=True)
    bars = [
        [max(0.0, m - low) for m, low in zip(middles, lows, strict=True)],
        [max(0.0, high - m) for m, high in zip(middles, highs, strict=True)],
    ]
    axes.errorbar(
        x, middles, yerr=bars, fmt=marker, color=color, markersize=3.6, elinewidth=0.8, label=label, zorder=3
    )
    sizes = sorted(set(x))
    means = [
        statistics.geometric_mean([m for at, m in zip(x, middles, strict=True) if at == size])
        for size in sizes
    ]
    axes.plot(sizes, means, color=color, linewidth=0.8, alpha=0.6, zorder=2)


def _finish(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.grid(True, color="0.92", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(width=0.6, length=2.5, which="major", pad=2)
    axes.tick_params(width=0.4, length=1.5, which="minor")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x / 1e6:g} M" if x >= 1e6 else f"{x / 1e3:g} k")
    )
    axes.xaxis.set_minor_formatter(NullFormatter())
