"""A key tells its measure: direction, unit, how it is written, what it compares with."""

import math

import pytest

from gbn.measures import find, measure, ranked

OWN = "kid_own_1a2b3c4d"


@pytest.mark.parametrize(
    ("key", "higher", "label", "target", "difference", "final"),
    [
        ("val_accuracy", True, "validation accuracy (%)", "95 %", "+1.23", "test_accuracy"),
        ("val_accuracy_exact", True, "validation accuracy (%)", "95 %", "+1.23", "test_accuracy"),
        ("val_full_accuracy", True, "validation accuracy (%)", "95 %", "+1.23", "test_accuracy"),
        ("test_accuracy", True, "test accuracy (%)", "95 %", "+1.23", "test_accuracy"),
        ("val_loss_exact", False, "validation loss", "loss 0.95", "+0.0123", "test_loss"),
        ("generator_loss", False, "generator loss", "generator loss 0.95", "+0.0123", "generator_loss"),
        ("fid_inception", False, "FID (Inception)", "FID 0.95", "+0.01", "fid_inception"),
        ("fid_own_1a2b3c4d", False, "FID (own network 1a2b3c4d)", "FID 0.95", "+0.01", "fid_own_1a2b3c4d"),
        (OWN, False, "KID x 1000 (own network 1a2b3c4d)", "KID 950", "+12.30", OWN),
        (f"{OWN}_exact", False, "KID x 1000 (own network 1a2b3c4d)", "KID 950", "+12.30", f"{OWN}_exact"),
        ("val_dice", True, "validation Dice", "Dice 0.95", "+0.012", "test_dice"),
        (
            *("val_dice_cavity_exact", True, "validation Dice of the cavity", "Dice of the cavity 0.95"),
            *("+0.012", "test_dice_cavity"),
        ),
        ("val_apd_mm", False, "validation APD (mm)", "APD 0.95 mm", "+0.01", "test_apd_mm"),
        (
            *("val_apd_px_epicardium", False, "validation APD of the epicardium (px)"),
            *("APD of the epicardium 0.95 px", "+0.01", "test_apd_px_epicardium"),
        ),
        ("val_good_contours", True, "validation good contours (%)", "good contours 95 %", "+1.23",
         "test_good_contours"),
        ("val_good_contours_mm", True, "validation good contours, limit in mm (%)", "good contours 95 %", "+1.23",
         "test_good_contours_mm"),
    ],
)  # fmt: skip
def test_a_key_tells_its_measure(key, higher, label, target, difference, final):
    one = measure(key)
    assert one.key == key
    assert one.higher_is_better is higher
    assert one.label == label
    assert one.target(0.95) == target
    assert one.number(0.0123, "+") == difference
    assert one.final.key == final
    assert one.final.final == one.final
    assert one.direction == ("higher is better" if higher else "lower is better")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("loss", "val_loss"),
        ("val_acuracy", "val_accuracy"),
        ("fid_incepton", "fid_inception"),
        ("kid_own_xyz", "kid_own_<digest>"),
        ("val_apd", "val_apd_px"),
        ("val_dice_px", "val_dice"),
    ],
)
def test_an_unknown_key_is_one_line_that_says_what_was_meant(key, meant):
    with pytest.raises(ValueError, match="unknown measure") as caught:
        measure(key)
    assert f"did you mean {meant!r}?" in str(caught.value)
    assert "[fid|kid]_[inception|own_<8 hex digits>]" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_stands_in_a_curve_beside_measures_is_none():
    for key in (
        "update",
        "seconds",
        "lr",
        "val_loss_px",
        "val_accuracy_cavity",
        "discriminator_accuracy_real",
    ):
        assert find(key) is None


def test_zero_has_no_sign_of_its_own():
    assert measure("test_accuracy").number(-1e-9, "+") == "+0.00"
    assert measure("test_accuracy").number(-1e-9) == "0.00"
    assert measure("val_dice").number(-0.002, "+") == "-0.002"


def test_targets_stand_from_the_easiest_to_the_hardest_and_within_the_range():
    assert measure("val_accuracy").checked([0.9, 0.5]) == (0.5, 0.9)
    assert measure("fid_inception").checked([40, 60]) == (60, 40)
    with pytest.raises(ValueError, match=r"'90' is no accuracy between 0 and 1 \(0.9 means 90 %\)"):
        measure("val_accuracy").checked([0.5, 90])
    with pytest.raises(ValueError, match=r"'1\.5' is no target of val_dice between 0 and 1"):
        measure("val_dice").checked([1.5])
    for wrong in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="give a positive number"):
            measure(OWN).checked([wrong])


def test_values_of_other_features_or_units_do_not_compare():
    assert measure("val_accuracy").comparable(measure("test_accuracy"))
    assert measure(OWN).comparable(measure(f"{OWN}_exact"))
    for one, other in (
        (OWN, "kid_own_ffffffff"),
        ("fid_inception", "kid_inception"),
        ("val_apd_mm", "val_apd_px"),
        ("val_good_contours_mm", "val_good_contours_px"),
        ("val_accuracy", "val_dice"),
    ):
        assert not measure(one).comparable(measure(other))


def test_runs_are_compared_by_the_plainest_measure_that_they_have():
    classifier = ["update", "train_loss", "val_loss", "val_accuracy_exact", "val_accuracy", "test_accuracy"]
    assert ranked(classifier) == ["val_accuracy", "val_accuracy_exact", "val_loss"]
    generator = ["generator_loss", f"{OWN}_exact", "fid_own_1a2b3c4d", OWN]
    assert ranked(generator) == [OWN, f"{OWN}_exact", "fid_own_1a2b3c4d"]
    assert ranked(["val_loss", "val_dice_cavity", "val_dice", "val_apd_mm"])[:2] == [
        "val_dice",
        "val_dice_cavity",
    ]
    assert ranked(["update", "seconds"]) == []


def test_better_is_the_measures_own_direction():
    assert measure("val_dice").better(0.9, 0.8)
    assert measure("val_apd_mm").better(2, 3)
    assert not measure("val_apd_mm").better(2, 2)
