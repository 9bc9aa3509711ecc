"""What runs came to: on the test set where there is one, else the measure itself; mirrored where lower is better."""

import dataclasses
import math

import pytest

from gbn.analysis.comparison.comparison import Comparison, Options
from gbn.analysis.comparison.figures import TESTED, UNSPLIT
from gbn.analysis.runs.load import load_grid_runs
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_files

KID = "kid_own_1a2b3c4d"
ARMS = {"bn": Arm(final=0.02), "gbn": Arm(speed=1.5, final=0.018), "bad": Arm(final=0.02, diverges_at=300)}


def compared(grid, folder, records=None, options=None):
    write_files(grid.records() if records is None else records, folder)
    return Comparison(load_grid_runs(grid, folder), options or Options())


@pytest.fixture
def generators(tmp_path):
    grid = SimulatedGrid(ARMS, range(4), measure=KID, start=0.4, thresholds=(0.1, 0.05))
    return grid, compared(grid, tmp_path)


def test_a_generators_run_has_a_last_and_a_best_value_and_no_test_set(generators):
    grid, comparison = generators
    assert comparison.figures.final.key == KID
    values = comparison.figures.of_runs["", "gbn"]
    assert list(values) == [*UNSPLIT, "area", "training_loss"]
    for seed in range(4):
        curve = [point[KID] for point in grid.record("", "gbn", seed).curve]
        assert values["last"][seed] == curve[-1]
        assert values["best"][seed] == min(curve)
    assert {quantity for _, quantity, *_ in comparison.figures.of_arms}.isdisjoint({"best_val", "best_test"})


def test_a_run_that_diverged_has_no_last_value_but_a_best_one(generators):
    grid, comparison = generators
    values = comparison.figures.of_runs["", "bad"]
    assert values["last"].isna().all()
    curve = [point[KID] for point in grid.record("", "bad", 0).curve[:-1]]
    assert values["best"][0] == min(curve)


def test_a_split_measure_is_told_by_the_test_set_as_far_as_runs_have_it(tmp_path):
    arms = {"bn": Arm(), "gbn": Arm(speed=2)}
    grid = SimulatedGrid(arms, range(3), measure="val_dice")
    comparison = compared(grid, tmp_path / "tested")
    assert comparison.figures.final.key == "test_dice"
    values = comparison.figures.of_runs["", "gbn"]
    assert list(values) == [*TESTED, "area", "training_loss"]
    tested = [point for point in grid.record("", "gbn", 1).curve if "test_dice" in point]
    assert values["last"][1] == tested[-1]["test_dice"]
    assert values["best_val"][1] == max(tested, key=lambda point: point["val_dice"])["test_dice"]
    assert values["best_test"][1] == max(point["test_dice"] for point in tested)
    untested = [
        dataclasses.replace(
            record, curve=[{k: v for k, v in point.items() if k != "test_dice"} for point in record.curve]
        )
        for record in grid.records()
    ]
    comparison = compared(grid, tmp_path / "untested", untested)
    assert comparison.figures.final.key == "val_dice"
    assert list(comparison.figures.of_runs["", "bn"]) == [*UNSPLIT, "area", "training_loss"]


def numbers(comparison):
    return [*comparison.figures.of_arms.values(), *comparison.evidence.contrasts.values()]


def upside_down(record):
    """A classifier's record with losses that are its negated accuracies, and no accuracy."""
    names = {"val_accuracy": "val_loss", "test_accuracy": "test_loss"}
    curve = []
    for point in record.curve:
        kept = {key: value for key, value in point.items() if key not in (*names, "val_loss")}
        known = ((names[key], point[key]) for key in names if key in point)
        curve.append(kept | {key: None if value is None else -value for key, value in known})
    return dataclasses.replace(record, curve=curve)


def test_a_comparison_upside_down_is_the_same_with_mirrored_differences(tmp_path):
    arms = {"bn": Arm(), "gbn": Arm(speed=1.4, own_spread=0.05, final=0.91), "bad": Arm(diverges_at=200)}
    grid = SimulatedGrid(arms, range(5), thresholds=(0.6, 0.85))
    mirrored = dataclasses.replace(grid, measure="val_loss", thresholds=(-0.6, -0.85))
    up = compared(grid, tmp_path / "up")
    # The records of the first grid, so that both have the same numbers.
    down = compared(mirrored, tmp_path / "down", [upside_down(record) for record in grid.records()])
    assert down.times.targets("") == (-0.6, -0.85)
    assert [(f.quantity, f.arm, f.against, f.unit, f.saved) for f in numbers(down)] == [
        (f.quantity, f.arm, f.against, f.unit, f.saved) for f in numbers(up)
    ]
    for one, other in zip(numbers(down), numbers(up), strict=True):
        mine, theirs = one.estimate, other.estimate
        assert (mine.n, mine.method) == (theirs.n, theirs.method)
        for name in ("p", "p_holm", "sd"):
            assert getattr(mine, name) == pytest.approx(getattr(theirs, name), nan_ok=True)
        ends = (theirs.value_low, theirs.value_high, theirs.low, theirs.high)
        if one.quantity in (*TESTED, "area", "last_difference", "area_difference"):
            ends = (-theirs.value_high, -theirs.value_low, -theirs.high, -theirs.low)
        found = (mine.value_low, mine.value_high, mine.low, mine.high)
        assert found == pytest.approx(ends, nan_ok=True), one.quantity


@pytest.mark.parametrize("true", [0.6, 1.0, 2.0])
def test_a_known_speedup_is_found_where_lower_is_better(tmp_path, true):
    arms = {"bn": Arm(final=0.02), "gbn": Arm(speed=true, final=0.02, own_spread=0.03)}
    comparison = compared(SimulatedGrid(arms, measure=KID, start=0.4, thresholds=(0.1, 0.06)), tmp_path)
    for target in (0.1, 0.06):
        for unit in ("updates", "seconds"):
            key = ("", "speedup_to_target", "gbn", "bn", unit, target)
            estimate = comparison.evidence.estimate(*key)
            assert estimate.value_low == pytest.approx(true, rel=0.06)
            assert estimate.low <= true <= estimate.high


def test_misses_and_divergence_are_what_they_are_where_higher_is_better(generators):
    _, comparison = generators
    for target in comparison.times.targets(""):
        never = comparison.times.of_arm("", "bad", 0.01, "updates")
        assert all(math.isinf(time.low) for time in never.values())
        censored = comparison.times.of_arm("", "bn", 0.001, "updates")
        assert all(time.low == 2000 and not time.reached for time in censored.values())
        assert all(time.reached for time in comparison.times.of_arm("", "gbn", target, "updates").values())


def test_targets_of_another_measure_are_not_asked(tmp_path):
    grid = SimulatedGrid({"bn": Arm(), "gbn": Arm(speed=2)}, range(3))
    comparison = compared(grid, tmp_path, options=Options("val_loss"))
    assert comparison.times.targets("") == ()
    assert comparison.figures.final.key == "val_loss"
    assert compared(grid, tmp_path / "again", options=Options("test_accuracy")).times.targets("") == (
        0.6,
        0.8,
    )
