"""The figure of a study of gradient variance: one point per arm and state, and variance against batch size."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.looks import looks_of
from gbn.analysis.plots.labels import label_ends
from gbn.plot_style import COLORS, DPI, RC, WIDTH, Picture
from gbn.studies.gradient_variance.table import Measured

_MARKERS = ("o", "s", "^", "D", "v", "P")


def draw(measured: Measured) -> Figure:
    """Draw variance, noise scale and bias per arm (top), the part along the weight and the batch size (bottom)."""
    header = measured.header
    baseline, exact = header["baseline"], header["exact"]
    compared = exact or baseline
    with mpl.rc_context(dict(RC)):
        below = 2 if measured.sizes else 1
        height = 1.0 + below * (0.75 + 0.17 * len(measured.arms))
        figure = Figure(figsize=(WIDTH, height), dpi=DPI)
        grid = figure.subplots(below, 3, squeeze=False)
        figure.subplots_adjust(
            left=0.155, right=0.985, wspace=0.2, hspace=0.3, top=1 - 0.62 / height, bottom=0.85 / height
        )
        _arms(
            grid[0][0], measured, "variance_ratio", baseline, f"variance / {baseline}'s", one=True, names=True
        )
        _arms(grid[0][1], measured, "noise_scale", "", "noise scale (images)", log=True)
        _arms(
            grid[0][2],
            measured,
            "cosine",
            compared,
            f"cosine with {compared}'s mean",
            log=False,
            one=True,
        )
        if measured.sizes:
            _arms(grid[1][0], measured, "along_rms", "", "cos(weight, gradient), r.m.s.", names=True)
            _against_size(grid[1][1], measured, "through_variance", "variance: through S")
            _against_size(grid[1][2], measured, "statistic_variance", "variance: dS/dw")
            _make_room(grid[1][1:], max(map(len, measured.arms)))
            label_ends(grid[1][2], size=6.5)  # the names serve both panels
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(
            *(handles, labels),
            loc="upper right",
            bbox_to_anchor=(0.99, 1 - 0.2 / height),
            ncols=len(labels),
            frameon=False,
            fontsize=7,
        )
        figure.text(0.02, 1 - 0.07 / height, header["title"], fontsize=8.5, fontweight="bold", va="top")
        seeds = measured.rows.seed.nunique()
        caption = (
            f"Points: mean over {seeds} seeds, bars: 95 % t interval of that mean; every arm at the weights of "
            f"one run ({header['trajectory']}) and on the same batches.\nCosines are corrected for noise. "
        )
        if measured.sizes:
            caption += "Below right: initial state, one layer. Gray: a variance that falls as 1 / batch size."
        figure.text(0.02, 0.06 / height, caption, fontsize=6.8, color="0.3", va="bottom")
        return figure


def _make_room(panels: Sequence[Axes], letters: int) -> None:
    """Narrow two panels to make room for names to the right of the second."""
    start, end, gap = 0.465, 0.985 - (0.15 + 0.048 * letters) / WIDTH, 0.075
    width = (end - start - gap) / 2
    for index, axes in enumerate(panels):
        box = axes.get_position()
        axes.set_position((start + index * (width + gap), box.y0, width, box.height))


def _arms(
    axes: Axes, measured: Measured, quantity: str, against: str, title: str,
    *, log: bool = True, one: bool = False, names: bool = False,
) -> None:  # fmt: skip
    states, arms = measured.states, measured.arms
    if one:
        axes.axvline(1, color="0.6", linewidth=0.7, zorder=0)
    for index, update in enumerate(states):
        shift = 0.2 * (index - (len(states) - 1) / 2)
        found = [measured.over_seeds(arm, quantity, against, update=update) for arm in arms]
        y = np.arange(len(arms)) + shift
        kept = [i for i, estimate in enumerate(found) if estimate.n and np.isfinite(estimate.value_low)]
        axes.errorbar(
            [found[i].value_low for i in kept],
            y[kept],
            xerr=_bars([found[i] for i in kept]),
            fmt=_MARKERS[index % len(_MARKERS)],
            color=COLORS[index % len(COLORS)],
            markersize=3,
            linewidth=0,
            elinewidth=0.8,
            label=f"after {update} updates",
        )
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_yticks(range(len(arms)), arms if names else [""] * len(arms))
    axes.set_title(title, loc="left", fontsize=7.5)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        low, high = axes.get_xlim()
        if high / low < 30:
            axes.set_xticks([tick for tick in _round_ticks() if low <= tick <= high])
        axes.xaxis.set_minor_formatter(NullFormatter())
    _dress(axes)


def _round_ticks() -> list[float]:
    return [digit * 10.0**power for power in range(-9, 10) for digit in (1, 2, 5)]


def _bars(estimates: Sequence[Estimate]) -> Any:
    ends = np.array([(one.value_low - one.low, one.high - one.value_low) for one in estimates]).T
    return np.nan_to_num(ends.reshape(2, -1)).clip(min=0)


def _against_size(axes: Axes, measured: Measured, quantity: str, title: str) -> None:
    sizes = measured.sizes
    arms = [arm for arm in measured.arms if measured.at_size(arm, quantity, sizes[0]).n]
    looks = looks_of(measured.arms, measured.header["baseline"], {})
    for index, arm in enumerate(arms):
        found = [measured.at_size(arm, quantity, size) for size in sizes]
        middle = [one.value_low for one in found]
        axes.plot(sizes, middle, **looks[arm].curve, linewidth=1.1, label=arm)
        apart = np.array(sizes) * 1.025 ** (index - (len(arms) - 1) / 2)  # so that bars can be told apart
        axes.errorbar(
            apart, middle, yerr=_bars(found), fmt=".", markersize=2, color=looks[arm].light, elinewidth=0.6
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    for start in np.geomspace(low, high * sizes[-1] / sizes[0], 7):
        axes.plot(
            [sizes[0], sizes[-1]],
            [start, start * sizes[0] / sizes[-1]],
            color="0.87",
            linewidth=0.5,
            zorder=0,
        )
    axes.set_ylim(low, high)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_title(title, loc="left", fontsize=7.5)
    axes.set_xlabel("batch size", labelpad=2, fontsize=7)
    _dress(axes)
    axes.grid(False)


def _plain(value: float, _: Any = None) -> str:
    return f"{value:,g}" if 1e-3 <= value < 1e5 else f"$10^{{{round(np.log10(value))}}}$"


def _dress(axes: Axes) -> None:
    axes.grid(True, color="0.92", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(width=0.6, length=2.5, which="major", pad=2, labelsize=7)
    axes.tick_params(width=0.4, length=1.5, which="minor")


def picture(measured: Measured, name: str) -> Picture:
    """The figure under the name of its file."""
    return Picture(name, draw(measured))
