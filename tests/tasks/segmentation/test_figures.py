"""Overlays and Bland-Altman plots: which slices stand for whom, limits of agreement, what is drawn."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.contour import QuadContourSet

from gbn.tasks.segmentation.figures import (
    DRAWN,
    PREDICTED,
    Overlay,
    agreement,
    bland_altman_figure,
    overlay_figure,
    representatives,
)


def test_the_slice_nearest_to_its_patients_mean_stands_for_it():
    dice = [0.9, 0.7, 0.83, 0.2, 0.6, 0.5, np.nan, 0.95, 0.97]
    patients = ["a", "a", "a", "b", "b", "b", "b", "c", "c"]
    # Means: a .81, b .4333, c .96.
    assert representatives(dice, patients) == {"best": 7, "median": 2, "worst": 5}


def test_of_an_even_number_the_lower_middle_and_of_one_the_same():
    assert representatives([0.1, 0.2, 0.3, 0.4], list("abcd")) == {"best": 3, "median": 1, "worst": 0}
    assert representatives([0.5], ["a"]) == {"best": 0, "median": 0, "worst": 0}


def test_representatives_of_nothing():
    with pytest.raises(ValueError, match="no slice has a Dice"):
        representatives([np.nan], ["a"])
    with pytest.raises(ValueError, match="2 values of Dice for the patients of 1 slices"):
        representatives([0.5, 0.6], ["a"])


def case(title, radius, shift=0, side=40):
    rows, columns = np.mgrid[:side, :side]
    discs = [
        np.hypot(rows - 20, columns - 20 - move) < r for r in (radius, radius + 4) for move in (0, shift)
    ]
    image = np.random.default_rng(0).random((side, side))
    return Overlay(title, image, np.stack(discs[::2]), np.stack(discs[1::2]))


def outlines(axes, color):
    """The contours of a color in an axes: one array of points each."""
    sets = [one for one in axes.collections if isinstance(one, QuadContourSet)]
    own = [one for one in sets if to_hex(one.get_edgecolor()[0]) == color.lower()]
    return [path.vertices for one in own for path in one.get_paths()]


def test_overlays_hold_image_and_both_contours():
    shifts = {"best": 0, "median": 2, "worst": 5}
    cases = {name: {"bn": case(f"Dice {shift}", 8, shift)} for name, shift in shifts.items()}
    figure = overlay_figure(cases, ["cavity", "epicardium"])
    for (name, shift), plain, axes in zip(shifts.items(), figure.axes[::2], figure.axes[1::2], strict=True):
        assert plain.texts[0].get_text() == name
        assert not plain.collections
        for one in (plain, axes):
            assert np.array_equal(one.images[0].get_array(), cases[name]["bn"].image)
        assert axes.texts[0].get_text() == f"Dice {shift}"
        for color, move in ((DRAWN, 0), (PREDICTED, shift)):
            cavity, epicardium = outlines(axes, color)
            np.testing.assert_allclose(cavity.mean(0), (20 + move, 20), atol=0.3)
            assert np.abs(np.hypot(*(cavity - (20 + move, 20)).T) - 8).max() < 1
            assert np.abs(np.hypot(*(epicardium - (20 + move, 20)).T) - 12).max() < 1
        assert axes.get_xlim() == (-0.5, 39.5)
        assert axes.get_ylim() == (39.5, -0.5)
    assert figure.axes[1].get_title() == "bn"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["drawn contours of cavity and epicardium", "predicted"]


def test_a_missed_contour_and_one_at_the_edge():
    missed = case("missed", 8)
    missed.predicted[:] = False
    edge = case("edge", 8)
    edge.predicted[:] = True
    axes = overlay_figure({"slice": {"missed": missed, "edge": edge}}, ["cavity", "epicardium"]).axes[1:]
    assert len(outlines(axes[0], DRAWN)) == 2
    assert outlines(axes[0], PREDICTED) == []
    closed = outlines(axes[1], PREDICTED)[0]
    assert np.array_equal(closed[0], closed[-1])
    assert closed.min() == -0.5


def test_an_image_without_contrast_is_drawn():
    flat = case("flat", 8)
    gray = Overlay("flat", np.zeros((40, 40)), flat.drawn, flat.predicted)
    overlay_figure({"slice": {"bn": gray}}, ["cavity", "epicardium"])


def test_wrong_overlays():
    with pytest.raises(ValueError, match="no case"):
        overlay_figure({}, ["cavity"])
    with pytest.raises(
        ValueError, match=r"best, bn: masks \(2, 40, 40\) and \(2, 40, 40\), needed are \(1, 40, 40\)"
    ):
        overlay_figure({"best": {"bn": case("", 8)}}, ["cavity"])


def test_one_slice_a_patient_is_the_classical_plot():
    differences = np.array([3.0, -1.0, 4.0, 0.0, 7.5])
    found = agreement(differences, list("abcde"))
    assert found.bias == pytest.approx(differences.mean())
    assert found.deviation == pytest.approx(differences.std(ddof=1))
    assert found.low == pytest.approx(found.bias - 1.96 * found.deviation)
    assert found.high == pytest.approx(found.bias + 1.96 * found.deviation)
    assert (found.slices, found.patients) == (5, 5)


def test_equal_numbers_by_hand():
    """Three patients of two slices: the textbook's analysis of variance."""
    values = [1.0, 3.0, 2.0, 6.0, 9.0, 9.0]
    means = np.array([2.0, 4.0, 9.0])
    within = (2 + 8 + 0) / 3
    between = 2 * ((means - 5) ** 2).sum() / 2
    found = agreement(values, list("aabbcc"))
    assert found.bias == 5
    assert found.deviation**2 == pytest.approx((between - within) / 2 + within)


def test_unequal_numbers_recover_the_variance_of_a_single_difference():
    rng = np.random.default_rng(3)
    sizes = rng.integers(2, 12, 3000)
    patients = np.repeat([str(index) for index in range(3000)], sizes)
    differences = np.repeat(rng.normal(1.0, 3.0, 3000), sizes) + rng.normal(0.0, 2.0, sizes.sum())
    found = agreement(differences, list(patients))
    assert found.deviation == pytest.approx(np.sqrt(3**2 + 2**2), rel=0.03)
    assert found.bias == pytest.approx(1.0, abs=0.15)


def test_resemblance_within_patients_widens_the_limits():
    """All slices as if independent would weigh the patient with most slices most, and miss the others' spread."""
    values, patients = [0.0] * 40 + [10.0, -10.0], ["a"] * 40 + ["b", "c"]
    assert agreement(values, patients).deviation > 2 * np.std(values, ddof=1)


def test_agreement_of_too_little():
    with pytest.raises(ValueError, match="at least two patients, 1 was given"):
        agreement([1.0, 2.0], ["a", "a"])
    with pytest.raises(ValueError, match="2 differences for 1 slices"):
        agreement([1.0, 2.0], ["a"])


def test_bland_altman_panels():
    drawn = np.array([100.0, 200.0, 300.0, 400.0])
    areas = {"bn": (drawn + np.array([10, -10, 20, 0]), drawn), "gbn_cvar": (drawn * 0, drawn)}
    patients = ["a", "a", "b", "c"]
    figure = bland_altman_figure(areas, patients, "px²")
    panels = [axes for axes in figure.axes if axes.axison]
    for axes, (arm, (predicted, _)) in zip(panels, areas.items(), strict=True):
        (points,) = (one for one in axes.collections if isinstance(one, PathCollection))
        np.testing.assert_allclose(
            points.get_offsets(), np.column_stack(((predicted + drawn) / 2, predicted - drawn))
        )
        found = agreement(predicted - drawn, patients)
        lines = sorted(line.get_ydata()[0] for line in axes.lines)
        assert lines == pytest.approx(sorted([0, found.bias, found.low, found.high]))
        assert (
            axes.get_title() == f"{arm}\nbias {found.bias:+.0f}, limits {found.low:+.0f} to {found.high:+.0f}"
        )
    assert figure.get_supxlabel() == "mean of predicted and drawn area of the cavity (px²)"


def test_wrong_areas():
    with pytest.raises(ValueError, match="no arm"):
        bland_altman_figure({}, [], "px²")
    with pytest.raises(ValueError, match="bn: 2 predicted areas and 3 drawn ones"):
        bland_altman_figure({"bn": ([1, 2], [1, 2, 3])}, list("abc"), "px²")


def test_figures_do_without_torch():
    code = "import sys, gbn.tasks.segmentation.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_arms_side_by_side_a_row_a_slice():
    def overlay(shift):
        image, mask = np.random.default_rng(0).random((20, 20)), np.zeros((1, 20, 20), bool)
        mask[0, 4:9, 4:9] = True
        return Overlay(f"Dice 0.{shift}", image, mask, np.roll(mask, shift, axis=1))

    shifts = {
        "best: patient 1": {"bn": 1, "bn_matched[gbn]": 2},
        "worst: patient 2": {"bn": 3, "bn_matched[gbn]": 12},
    }
    cases = {name: {arm: overlay(shift) for arm, shift in arms.items()} for name, arms in shifts.items()}
    figure = overlay_figure(cases, ["cavity"])
    panels = np.array(figure.axes).reshape(2, 3)
    assert [axes.get_title() for axes in panels[0]] == ["", "bn", "bn_matched\n[gbn]"]
    assert [axes.texts[0].get_text() for axes in panels[:, 0]] == list(cases)
    assert [axes.texts[0].get_text() for axes in panels[1, 1:]] == ["Dice 0.3", "Dice 0.12"]
    outlines = [[c for c in axes.collections if isinstance(c, QuadContourSet)] for axes in panels.flat]
    assert [len(found) for found in outlines] == [0, 2, 2, 0, 2, 2]
    with pytest.raises(ValueError, match="no case"):
        overlay_figure({}, ["cavity"])
    cases["worst: patient 2"].pop("bn")
    with pytest.raises(
        ValueError, match=r"worst: patient 2: arms bn_matched\[gbn\], in the first row bn, bn_m"
    ):
        overlay_figure(cases, ["cavity"])
