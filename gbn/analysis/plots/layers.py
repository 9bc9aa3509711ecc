"""Figures of recorded layers: one row per quantity, one column per layer, one line per arm with its band over seeds.

They complement the convergence figures (:mod:`gbn.analysis.plots.convergence`) and look like them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates.estimate import LEVEL
from gbn.analysis.estimates.pairs import t_quantile
from gbn.analysis.looks import Look, looks_of_plan
from gbn.analysis.plots.convergence import PanelRow, rows_of
from gbn.analysis.plots.labels import stem, write_words
from gbn.analysis.runs.activations import QUANTITIES, SHOWN, Quantity, layers_to_show, seed_table
from gbn.plot_style import DPI, RC, WIDTH, Picture

ROW_HEIGHT, TOP, BOTTOM = 1.0, 0.78, 0.98  # inches; the last two for title and caption
LEGEND_LINE, LEGEND_CHARACTERS = 0.15, 88  # inches per line, and characters that fit into one
FEWEST_FOR_A_BAND = 3  # with two seeds the interval is thirteen standard errors wide and hides everything
_RC = {**RC, "font.size": 7}


@dataclass(frozen=True)
class Choice:
    """The contents of a figure: quantities as rows; layers as columns (if empty: first, middle and last)."""

    quantities: tuple[str, ...] = SHOWN
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.quantities:
            if name not in QUANTITIES:
                raise ValueError(f"no quantity {name!r} is recorded; choose from {', '.join(QUANTITIES)}")


def draw(frame: pd.DataFrame, comparison: Comparison, setting: str, row: PanelRow, choice: Choice) -> Figure:
    """Draw some arms of a setting.

    Args:
        frame: from :func:`gbn.analysis.runs.activations.layer_frame`.
        comparison: of the same runs.
        setting: the setting.
        row: the arms (from :func:`gbn.analysis.plots.convergence.rows_of`).
        choice: quantities and layers; quantities that no arm has are left out.

    Raises:
        ValueError: a layer was not recorded, or no quantity is defined in these layers.
    """
    layers = layers_to_show(frame, setting, choice.layers)
    here = frame[
        (frame.setting == setting)
        & frame.arm.isin([arm for arm, _ in row.arms])
        & frame.layer.isin(layers)
        & frame.quantity.isin(choice.quantities)
    ]
    defined = set(here.quantity[here["median"].notna()])
    quantities = [name for name in choice.quantities if name in defined]
    if not quantities:
        raise ValueError(
            f"none of {', '.join(choice.quantities)} is defined in {', '.join(layers)}: choose other quantities or "
            "layers"
        )
    looks = looks_of_plan(comparison.runs.plan)
    with mpl.rc_context(_RC):
        top = TOP + LEGEND_LINE * (_legend_lines(row) - 1)
        height = ROW_HEIGHT * len(quantities) + top + BOTTOM
        figure = Figure(figsize=(WIDTH, height), dpi=DPI)
        grid = figure.subplots(len(quantities), len(layers), squeeze=False, sharex=True)
        for panels, quantity in zip(grid, quantities, strict=True):
            for axes, layer in zip(panels, layers, strict=True):
                tables = {arm: seed_table(here, setting, arm, layer, quantity) for arm, _ in row.arms}
                _panel(axes, tables, dict(row.arms), looks, quantity)
            panels[0].set_ylabel(QUANTITIES[quantity].label)
        figure.subplots_adjust(
            left=0.125, right=0.985, wspace=0.27, hspace=0.2, top=1 - top / height, bottom=BOTTOM / height
        )
        figure.align_ylabels(grid[:, 0])
        for axes, layer in zip(grid[0], layers, strict=True):
            axes.set_title(layer, loc="left", fontsize=7.5, fontweight="bold")
        for axes in grid[-1]:
            axes.set_xlabel("updates")
        _legend(figure, height, row, looks)
        _words(figure, comparison, setting, row, here)
        return figure


def pictures(
    frame: pd.DataFrame, comparison: Comparison, choice: Choice | None = None
) -> tuple[list[Picture], list[str]]:
    """Draw every figure: one per setting, or one for each arm with its controls where there are more.

    Returns:
        The pictures, and a sentence for each setting that was not drawn.

    Raises:
        ValueError: a layer was not recorded, or no quantity is defined in the selected layers.
    """
    choice = choice or Choice()
    chosen = {"quantities": list(choice.quantities), "layers": list(choice.layers)}
    source = comparison.selection | {"kind": "layers", **chosen}
    made, notes = [], []
    for setting in comparison.runs.plan.settings:
        recorded = set(frame.arm[frame.setting == setting])
        rows = [
            PanelRow(row.caption, tuple(pair for pair in row.arms if pair[0] in recorded))
            for row in rows_of(comparison.runs, setting)
        ]
        rows = [
            row for row in rows if any(arm != comparison.runs.plan.reference for arm, _ in row.arms)
        ] or rows[:1]
        if not recorded:
            notes.append(f"No figure of {setting or 'these runs'}: no run has recordings of its layers.")
            continue
        for row in rows:
            subject = next((arm for arm, _ in row.arms if arm != comparison.runs.plan.reference), "")
            plan, shown = comparison.runs.plan, subject if len(rows) > 1 else ""
            name = stem(plan.name.replace("-", "_"), setting, "layers", shown)
            made.append(Picture(name, draw(frame, comparison, setting, row, choice), _RC, source))
    return made, notes


def _panel(
    axes: Axes,
    tables: Mapping[str, pd.DataFrame],
    names: Mapping[str, str],
    looks: Mapping[str, Look],
    quantity: str,
) -> None:
    shown = QUANTITIES[quantity]
    axes.set_xscale("log")
    if shown.log:
        axes.set_yscale("log")
    lines, edges = [], []
    for arm, table in tables.items():
        table = table.dropna(how="all")
        if table.empty:
            continue
        look = looks[arm]
        updates = table.index.to_numpy(float)
        mean, half = _mean(table)
        back = np.exp if shown.log else np.asarray
        low, high = back(mean - half), back(mean + half)
        axes.plot(updates, back(mean), **look.curve, linewidth=1.1, label=names[arm])
        lines.append(mean)
        if np.isfinite(half).any():
            axes.fill_between(updates, low, high, color=look.light, alpha=0.16, linewidth=0)
            edges += [mean - half, mean + half]
    if not lines:
        axes.text(
            0.5, 0.5, "not defined here", transform=axes.transAxes, ha="center", color="0.5", fontsize=6.5
        )
        axes.set_yticks([])
        return
    low, high = _limits(np.concatenate(lines), np.concatenate(edges or [np.array([])]), shown)
    axes.set_ylim(*(np.exp((low, high)) if shown.log else (low, high)))
    if shown.neutral is not None and low <= shown.neutral <= high:
        axes.axhline(shown.neutral, color="0.75", linewidth=0.5, zorder=0)
    _ticks(axes, shown.log)


def _limits(lines: np.ndarray, edges: np.ndarray, shown: Quantity) -> tuple[float, float]:
    """Return a panel's vertical range: all lines and the nearby part of the bands.

    The bands of few seeds are so wide that they would flatten the lines.
    """
    low, high = float(np.nanmin(lines)), float(np.nanmax(lines))
    room = max(high - low, shown.room)
    inside = edges[np.isfinite(edges)]
    if inside.size:
        low, high = max(low - room, min(low, inside.min())), min(high + room, max(high, inside.max()))
    missing = max(0.0, shown.room - (high - low)) / 2
    low, high = low - missing, high + missing
    margin = 0.05 * (high - low)
    low, high = low - margin, high + margin
    if shown.bounds is None:
        return low, high
    bottom, top = shown.bounds
    # A line along a bound is easier to see slightly inside the frame.
    return max(low, bottom - margin), min(high, top + margin)


def _mean(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over seeds at each update, and half the width of its interval (NaN with few seeds)."""
    count = table.notna().sum(axis=1).to_numpy()
    quantiles = np.array(
        [t_quantile(0.5 + LEVEL / 2, n - 1) if n >= FEWEST_FOR_A_BAND else np.nan for n in count]
    )
    half = quantiles * table.std(axis=1, ddof=1).to_numpy() / np.sqrt(count)
    return table.mean(axis=1).to_numpy(), half


def _ticks(axes: Axes, log: bool) -> None:
    axes.set_axisbelow(True)
    axes.grid(True, color="0.92", linewidth=0.5)
    axes.tick_params(width=0.6, length=2.5, which="major", pad=1.5)
    axes.tick_params(width=0.4, length=1.5, which="minor")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    if log and high > 10 * low:
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    if log:
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(_short))


def _short(value: float, _: int) -> str:
    """Format a tick in few characters: 0.25, 1e-3, 8.5e-4."""
    if value and abs(value) < 0.0099:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def _legend_lines(row: PanelRow) -> int:
    """Return how many lines the names need; columns are as wide as their longest name."""
    widest = max(len(name) for _, name in row.arms) + 10  # room for the line sample and the gap
    return math.ceil(len(row.arms) * widest / LEGEND_CHARACTERS)


def _legend(figure: Figure, height: float, row: PanelRow, looks: Mapping[str, Look]) -> None:
    handles = [Line2D([], [], **looks[arm].curve, linewidth=1.2, label=name) for arm, name in row.arms]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.013, 1 - 0.36 / height),
        ncols=math.ceil(len(handles) / _legend_lines(row)),
        frameon=False,
        fontsize=7.5,
        handlelength=3.2,
        columnspacing=1.6,
    )


def _words(figure: Figure, comparison: Comparison, setting: str, row: PanelRow, here: pd.DataFrame) -> None:
    subtitle = " · ".join(filter(None, ("what the normalizers saw and did", row.caption)))
    counts = sorted(here.groupby("arm").seed.nunique().unique())
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    few = "fewer than three seeds have no band. "
    band = "bands: pointwise 95 % t interval of that mean. " if counts[-1] >= FEWEST_FOR_A_BAND else few
    text = (
        f"Lines: mean over {seeds} seed{'s' if counts[-1] > 1 else ''} of the median over a layer's channels (of the "
        f"logarithm, where the axis is logarithmic); {band}S and D: what a layer subtracts and divides by, on one "
        "fixed batch of training images; mean and std of the same values. Grey: batch normalization's value, or a "
        "Gaussian's. A channel is dead where its ReLU passes nothing of the batch. Gradients are those of the update "
        "made at the point; weight: that of the convolution or linear layer before the normalizer. Scales differ "
        "between panels; a band that is far wider than the lines are apart is cut."
    )
    write_words(figure, comparison.runs.plan, setting, text, subtitle=subtitle, size=6.5, wrap=128)
