"""Dice, perpendicular distance and good contours against discs, and the means over patients by hand."""

import sys
import warnings

import pytest
import torch

from gbn.data.image_set import DataError
from gbn.tasks.segmentation.contours import GOOD, score_patients, score_slices, summary


def disc(radius, side=240, row=None, column=None):
    middle = (side - 1) / 2
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    row, column = middle if row is None else row, middle if column is None else column
    return ((rows - row) ** 2 + (columns - column) ** 2) <= radius**2


def score(predicted, drawn, size=(1.0, 1.0)):
    scores = score_slices(predicted[None, None], drawn[None, None], torch.tensor([size]))
    return scores.dice.item(), scores.apd.item()


@pytest.mark.parametrize(
    ("predicted", "drawn", "dice", "distance"),
    [
        # Concentric: Dice 2 r^2 / (R^2 + r^2), distance R - r.
        (60, 57, 0.9488, 3),
        (57, 60, 0.9488, 3),
        (100, 90, 0.895, 10),
        (100, 100, 1, 0),
    ],
)
def test_concentric_discs(predicted, drawn, dice, distance):
    measured = score(disc(predicted), disc(drawn))
    assert measured[0] == pytest.approx(dice, abs=0.001)
    # A contour is a ring of pixels, up to one wide along diagonals: the nearest of them lies a little nearer.
    assert measured[1] == pytest.approx(distance, abs=0.2)
    if predicted == drawn:
        assert measured == (1, 0)


def test_spacing_scales_distances_and_not_dice():
    plain = score(disc(60), disc(57))
    assert score(disc(60), disc(57), (1.5, 1.5)) == pytest.approx((plain[0], 1.5 * plain[1]))


def test_rows_and_columns_have_their_own_spacing():
    down, across = torch.zeros(20, 20, dtype=bool), torch.zeros(20, 20, dtype=bool)
    drawn = torch.zeros(20, 20, dtype=bool)
    drawn[5, 5] = down[8, 5] = across[5, 9] = True
    assert score(down, drawn, (2.0, 0.5)) == (0, 6)
    assert score(across, drawn, (2.0, 0.5)) == (0, 2)


def test_the_distance_is_from_the_predicted_contour_to_the_drawn_one():
    """A spot far off is seen when it is predicted, not when it is missed."""
    drawn = disc(20, side=100)
    more = drawn | disc(5, side=100, row=90, column=90)
    assert score(more, drawn)[1] > 5
    assert score(drawn, more)[1] == 0


def test_the_inside_of_a_mask_is_no_contour():
    ring = disc(60) & ~disc(30)
    filled = score(disc(60), disc(60))
    assert filled == (1, 0)
    dice, distance = score(ring, disc(60))
    assert distance > 8  # the inner edge is 30 away
    assert dice == pytest.approx(2 * 0.75 / 1.75, abs=0.005)


def masks(*slices):
    """(N, 1, H, W) of radii; None is an empty slice."""
    return torch.stack(
        [disc(radius, 80) if radius else torch.zeros(80, 80, dtype=bool) for radius in slices]
    )[:, None]


def test_misses_and_spurious_contours_make_no_noise():
    drawn, predicted = masks(30, 30, None, None), masks(30, None, 20, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score_slices(predicted, drawn, torch.ones(4, 2))
    assert scores.dice.flatten()[:2].tolist() == [1, 0]
    assert scores.dice.flatten()[2:].isnan().all()
    assert scores.apd.flatten()[0] == 0
    assert scores.apd.flatten()[1:].isnan().all()
    (row, overall) = score_patients(scores, torch.zeros(4, dtype=torch.int64), ["a"], ["cavity"])
    assert (row.slices, row.missed, row.spurious) == (2, 1, 1)
    assert (row.dice, row.apd, row.good) == (0.5, 0, 0.5)
    assert (overall.patient, overall.dice, overall.missed) == ("all", 0.5, 1)


def test_patients_weigh_the_same_however_many_slices_they_have():
    drawn = masks(30, 30, 30, 30)
    predicted = masks(30, 30, 30, 20)  # three perfect slices of one patient, one of the other ten pixels off
    scores = score_slices(predicted, drawn, torch.ones(4, 2))
    first, second, overall = score_patients(
        scores, torch.tensor([2, 2, 2, 0]), ["a", "b", "c"], ["epicardium"]
    )
    assert [first.patient, second.patient] == ["a", "c"]
    assert (second.dice, second.apd, second.good) == (1, 0, 1)
    assert first.dice == pytest.approx(2 * 400 / 1300, abs=0.01)
    assert first.apd == pytest.approx(10, abs=0.35)
    assert first.good == 0
    assert overall.dice == pytest.approx((first.dice + 1) / 2)
    assert overall.apd == pytest.approx(first.apd / 2)
    assert (overall.good, overall.slices) == (0.5, 4)


def test_good_is_below_five():
    drawn = torch.zeros(3, 1, 40, 40, dtype=bool)
    predicted = drawn.clone()
    drawn[:, 0, 10, 10] = True
    for index, distance in enumerate((4, 5, 6)):
        predicted[index, 0, 10 + distance, 10] = True
    patients = torch.zeros(3, dtype=torch.int64)
    assert GOOD == 5
    for size, share in ((1.0, 1 / 3), (0.8, 1), (1.3, 0)):
        scores = score_slices(predicted, drawn, torch.full((3, 2), size))
        assert score_patients(scores, patients, ["a"], ["cavity"])[-1].good == pytest.approx(share)


def test_a_patient_without_the_structure_is_left_out_but_its_spurious_contours_count():
    scores = score_slices(masks(30, 25), masks(30, None), torch.ones(2, 2))
    rows = score_patients(scores, torch.tensor([0, 1]), ["a", "b"], ["cavity"])
    assert [row.patient for row in rows] == ["a", "all"]
    assert (rows[-1].dice, rows[-1].spurious) == (1, 1)


def test_all_missed_has_no_distance():
    scores = score_slices(masks(None, None), masks(30, 20), torch.ones(2, 2))
    overall = score_patients(scores, torch.tensor([0, 1]), ["a", "b"], ["cavity"])[-1]
    assert (overall.dice, overall.good, overall.missed) == (0, 0, 2)
    assert overall.apd != overall.apd


def test_the_summary_names_structures_and_unit():
    drawn = torch.cat((masks(20, 20), masks(30, 30)), 1)
    predicted = torch.cat((masks(20, 20), masks(20, 30)), 1)
    scores = score_slices(predicted, drawn, torch.ones(2, 2))
    rows = score_patients(scores, torch.tensor([0, 1]), ["a", "b"], ["cavity", "epicardium"])
    numbers = summary(rows, "mm")
    assert list(numbers) == [
        *("dice", "dice_cavity", "dice_epicardium"),
        *("apd_mm", "apd_mm_cavity", "apd_mm_epicardium"),
        *("good_contours_mm", "good_contours_mm_cavity", "good_contours_mm_epicardium"),
    ]
    assert (numbers["dice_cavity"], numbers["good_contours_mm"]) == (1, 0.75)
    assert numbers["dice"] == (1 + numbers["dice_epicardium"]) / 2
    assert list(summary(rows[:3], "px")) == ["dice", "apd_px", "good_contours_px"]


def test_nothing_to_score():
    scores = score_slices(masks(30), masks(None), torch.ones(1, 2))
    with pytest.raises(ValueError, match="the cavity is drawn on none of 1 slices"):
        score_patients(scores, torch.tensor([0]), ["a"], ["cavity"])


def test_wrong_shapes_and_types():
    with pytest.raises(ValueError, match=r"predicted masks \(1, 1, 80, 80\).*needed are"):
        score_slices(masks(30), masks(30, 30), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"masks are torch\.float32"):
        score_slices(masks(30).float(), masks(30), torch.ones(1, 2))


def test_without_monai(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.metrics", None)
    with pytest.raises(DataError, match=r"needs MONAI.*pip install monai"):
        score_slices(masks(30), masks(30), torch.ones(1, 2))
