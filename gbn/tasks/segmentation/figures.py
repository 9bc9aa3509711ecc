"""Figures of a segmentation: predicted and drawn contours, and the areas that they enclose.

Pure functions from arrays to figures. Drawn contours are solid and predicted ones dashed, so that they differ in gray
print, too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from gbn.plot_style import COLORS, DPI, RC, WIDTH

DRAWN, PREDICTED = COLORS[5], COLORS[4]  # sky blue and orange: both stand out on gray tissue
_RC = {**RC, "axes.titlesize": 8}


@dataclass(frozen=True, eq=False)
class Overlay:
    """One slice with its contours.

    Attributes:
        title: text in its lower left corner.
        image: float (H, W).
        drawn: bool (K, H, W).
        predicted: bool (K, H, W).
    """

    title: str
    image: NDArray[np.floating[Any]]
    drawn: NDArray[np.bool_]
    predicted: NDArray[np.bool_]


def representatives(dice: Sequence[float], patients: Sequence[str]) -> dict[str, int]:
    """Return the slices that represent the best, the median and the worst patient by mean Dice.

    A patient is represented by the slice whose Dice is nearest to the patient's mean (the first of several), neither
    the best nor the worst one. The median of an even number of patients is the lower of the two in the middle.

    Args:
        dice: of each slice, NaN where nothing is drawn.
        patients: the patient of each slice.

    Returns:
        {"best": index, "median": index, "worst": index}.

    Raises:
        ValueError: lengths differ, or no slice has a Dice.
    """
    if len(dice) != len(patients):
        raise ValueError(
            f"{len(dice)} values of Dice for the patients of {len(patients)} slices: one each is needed"
        )
    own: dict[str, list[int]] = {}
    for index, (value, patient) in enumerate(zip(dice, patients, strict=True)):
        if not math.isnan(value):
            own.setdefault(patient, []).append(index)
    if not own:
        raise ValueError("no slice has a Dice: nothing is drawn on any")
    means = {
        patient: sum(dice[index] for index in indices) / len(indices) for patient, indices in own.items()
    }
    ranked = sorted(means, key=lambda patient: (means[patient], patient))
    chosen = {"best": ranked[-1], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[0]}
    return {
        name: min(own[patient], key=lambda index: (abs(dice[index] - means[patient]), index))
        for name, patient in chosen.items()
    }


def overlay_figure(cases: Mapping[str, Mapping[str, Overlay]], structures: Sequence[str]) -> Figure:
    """Draw one row per slice: the image alone, then one column per arm with drawn and predicted contours.

    Args:
        cases: name of a slice -> arm -> its contours; the same arms in every row, the same image within a row.
        structures: names of the masks' channels, for the legend.

    Raises:
        ValueError: there is no case, rows have different arms, or masks do not match their image.
    """
    if not cases or not all(cases.values()):
        raise ValueError("no case to draw")
    arms = list(next(iter(cases.values())))
    for name, row in cases.items():
        if list(row) != arms:
            raise ValueError(f"{name}: arms {', '.join(row)}, in the first row {', '.join(arms)}")
        for arm, one in row.items():
            expected = (len(structures), *one.image.shape)
            if one.drawn.shape != expected or one.predicted.shape != expected:
                raise ValueError(
                    f"{name}, {arm}: masks {one.drawn.shape} and {one.predicted.shape}, needed are {expected} for "
                    f"{', '.join(structures)} on an image {one.image.shape}"
                )
    with mpl.rc_context(_RC):
        side, left = min(1.9, (WIDTH - 0.25) / (len(arms) + 1)), 0.25
        columns = 2 if len(arms) > 1 else 1
        below = 0.33 if columns == 2 else 0.5
        size = (side * (len(arms) + 1) + left, side * len(cases) + 0.42 + below)
        figure = Figure(figsize=size, dpi=DPI)
        panels = figure.subplots(len(cases), len(arms) + 1, squeeze=False)
        for axes, (name, row) in zip(panels, cases.items(), strict=True):
            overlays = list(row.values())
            _gray(axes[0], overlays[0].image)
            axes[0].annotate(
                name, (-0.03, 0.5), xycoords="axes fraction", rotation=90, va="center", ha="right"
            )
            for panel, overlay in zip(axes[1:], overlays, strict=True):
                _gray(panel, overlay.image)
                _contours(panel, overlay)
                panel.text(0.03, 0.03, overlay.title, color="white", fontsize=6.5, transform=panel.transAxes)
        for panel, arm in zip(panels[0][1:], arms, strict=True):
            panel.set_title(arm.replace("[", "\n["), fontsize=7)
        figure.legend(handles=_handles(structures), ncols=columns, frameon=False, loc="lower center")
        figure.subplots_adjust(left / size[0], below / size[1], 1, 1 - 0.4 / size[1], 0.03, 0.03)
        return figure


def _contours(axes: Axes, overlay: Overlay) -> None:
    for drawn, predicted in zip(overlay.drawn, overlay.predicted, strict=True):
        _outline(axes, drawn, DRAWN, "-")
        _outline(axes, predicted, PREDICTED, (0, (3, 1.5)))


def _handles(structures: Sequence[str]) -> list[Line2D]:
    return [
        Line2D([], [], color=DRAWN, label=f"drawn contours of {' and '.join(structures)}"),
        Line2D([], [], color=PREDICTED, linestyle=(0, (3, 1.5)), label="predicted"),
    ]


def _gray(axes: Axes, image: NDArray[np.floating[Any]]) -> None:
    # Scaled to the brightest percent (vessels, fat), the heart would be dark.
    low, high = np.quantile(image, (0.005, 0.99))
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
    axes.set_axis_off()


def _outline(axes: Axes, mask: NDArray[np.bool_], color: str, style: Any) -> None:
    if mask.any():
        # A rim of background, so that a contour at the image's edge closes.
        padded = np.pad(mask.astype(float), 1)
        steps = [np.arange(-1, size + 1) for size in mask.shape]
        axes.contour(steps[1], steps[0], padded, [0.5], colors=[color], linestyles=[style], linewidths=1.1)
        axes.set_xlim(-0.5, mask.shape[1] - 0.5)
        axes.set_ylim(mask.shape[0] - 0.5, -0.5)


@dataclass(frozen=True)
class Agreement:
    """Limits of agreement of two measurements (Bland and Altman 1986, 2007).

    Attributes:
        bias: mean difference, predicted - drawn, over patients.
        deviation: of a single difference about the bias, between and within patients together.
        low: bias - 1.96 deviation.
        high: bias + 1.96 deviation.
        slices: number of differences.
        patients: number of patients.
    """

    bias: float
    deviation: float
    slices: int
    patients: int

    @property
    def low(self) -> float:
        """Lower limit of agreement."""
        return self.bias - 1.96 * self.deviation

    @property
    def high(self) -> float:
        """Upper limit of agreement."""
        return self.bias + 1.96 * self.deviation


def agreement(differences: Sequence[float], patients: Sequence[str]) -> Agreement:
    """Return the limits of agreement for patients with several slices each.

    A patient's slices resemble each other, so the variance is the sum of that between patients and that within
    them, from the analysis of variance with unequal numbers (Bland and Altman, J. Biopharm. Stat. 17, 2007, 571-582);
    the bias is the mean of the patients' means.

    Raises:
        ValueError: lengths differ, or there are fewer than two patients.
    """
    values = np.asarray(differences, float)
    if len(values) != len(patients):
        raise ValueError(f"{len(values)} differences for {len(patients)} slices: one each is needed")
    groups = [values[np.array(patients) == patient] for patient in dict.fromkeys(patients)]
    if len(groups) < 2:
        raise ValueError(f"limits of agreement need at least two patients, {len(groups)} was given")
    sizes = np.array([len(group) for group in groups])
    within = sum(((group - group.mean()) ** 2).sum() for group in groups)
    free = len(values) - len(groups)
    within_mean = within / free if free else 0.0
    between = sum(len(group) * (group.mean() - values.mean()) ** 2 for group in groups) / (len(groups) - 1)
    effective = (len(values) ** 2 - (sizes**2).sum()) / ((len(groups) - 1) * len(values))
    variance = max(0.0, (between - within_mean) / effective) + within_mean
    bias = float(np.mean([group.mean() for group in groups]))
    return Agreement(bias, math.sqrt(variance), len(values), len(groups))


def bland_altman_figure(
    areas: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    patients: Sequence[str],
    unit: str,
    structure: str = "cavity",
) -> Figure:
    """Draw the difference of predicted and drawn areas against their mean: a panel per arm, a point per slice.

    Lines are the bias and the limits of agreement, with their numbers above each panel.

    Args:
        areas: arm -> (predicted, drawn) areas of each slice; a missed contour has area 0.
        patients: the patient of each slice, the same for every arm.
        unit: of the areas, such as "mm²" or "px²".
        structure: the structure that has these areas.

    Raises:
        ValueError: there is no arm, lengths differ, or there are fewer than two patients.
    """
    if not areas:
        raise ValueError("no arm to draw")
    with mpl.rc_context(dict(RC)):
        columns = min(len(areas), 3)
        rows = -(-len(areas) // columns)
        figure = Figure(
            figsize=(WIDTH * max(columns, 2) / 3, 2.1 * rows + 0.6), dpi=DPI, layout="constrained"
        )
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes, (arm, (predicted, drawn)) in zip(panels.flat, areas.items(), strict=False):
            _bland_altman(axes, arm, np.asarray(predicted, float), np.asarray(drawn, float), patients)
        for axes in panels.flat[len(areas) :]:
            axes.set_axis_off()
        figure.supxlabel(f"mean of predicted and drawn area of the {structure} ({unit})", fontsize=8)
        figure.supylabel(f"predicted - drawn ({unit})", fontsize=8)
        return figure


def _bland_altman(
    axes: Axes,
    arm: str,
    predicted: NDArray[np.floating[Any]],
    drawn: NDArray[np.floating[Any]],
    patients: Sequence[str],
) -> None:
    if predicted.shape != drawn.shape:
        raise ValueError(f"{arm}: {len(predicted)} predicted areas and {len(drawn)} drawn ones")
    found = agreement(predicted - drawn, patients)  # type: ignore[arg-type]
    axes.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    axes.scatter((predicted + drawn) / 2, predicted - drawn, s=5, color=COLORS[0], alpha=0.5, linewidths=0)
    for value, style in ((found.bias, "-"), (found.low, (0, (4, 2))), (found.high, (0, (4, 2)))):
        axes.axhline(value, color="black", linewidth=0.8, linestyle=style)
    axes.set_title(f"{arm}\nbias {found.bias:+.0f}, limits {found.low:+.0f} to {found.high:+.0f}")
