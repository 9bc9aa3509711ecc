"""Simulated runs with known speed-ups: the figures find the truth, and say where they cannot."""

import dataclasses
import math

import pytest

from gbn.analysis.comparison.comparison import Comparison, Options
from gbn.analysis.estimates.estimate import AA
from gbn.analysis.runs.load import load_grid_runs
from gbn.studies.validation.simulate import Arm, Machine, write_runs


@pytest.fixture
def compared(make_grid, tmp_path):
    def compare(arms=None, machine=None, options=None, source="store", **changes):
        grid = make_grid(**({"arms": arms, "controls": {}} if arms else {}), **changes)
        write_runs(grid.records(machine), tmp_path)
        return Comparison(load_grid_runs(grid, tmp_path, source), options or Options())

    return compare


def speedup(comparison, arm, target, against="bn", unit="updates"):
    return comparison.evidence.estimate("", "speedup_to_target", arm, against, unit, target)


def to_maximum(comparison, arm):
    return comparison.evidence.contrasts["", "speedup_to_maximum", arm, "bn", "updates", None]


@pytest.mark.parametrize("true", [0.5, 1.0, 1.3, 3.0])
def test_a_known_speedup_is_found(compared, true):
    comparison = compared({"bn": Arm(), "gbn": Arm(speed=true, own_spread=0.03)})
    for target in (0.6, 0.8):
        for unit in ("updates", "seconds"):
            estimate = speedup(comparison, "gbn", target, unit=unit)
            assert estimate.value_low == pytest.approx(true, rel=0.05)
            assert estimate.low <= true <= estimate.high
            assert estimate.n == 8


def test_without_noise_it_is_found_to_the_interpolation(compared):
    comparison = compared({"bn": Arm(noise=0, spread=0), "gbn": Arm(speed=2, noise=0, spread=0)})
    assert speedup(comparison, "gbn", 0.6).value_low == pytest.approx(2, rel=2e-3)


def test_pairing_removes_what_the_seeds_share(compared):
    comparison = compared({"bn": Arm(spread=0.5), "gbn": Arm(speed=1.2, spread=0.5)})
    paired, unpaired = speedup(comparison, "gbn", 0.8), speedup(comparison, AA, 0.8)
    assert math.log(paired.high / paired.low) < 0.2 * math.log(unpaired.high / unpaired.low)


def test_the_first_point_alone_is_late(compared):
    arms = {"bn": Arm(noise=0, spread=0.3), "gbn": Arm(speed=1.1, noise=0, spread=0.3)}
    coarse = compared(arms, options=Options(interpolation="first"))
    time = coarse.figures.estimate("", "time_to_target", "bn", "updates", 0.6)
    smooth = dataclasses.replace(coarse, options=Options())
    assert time.value_low > smooth.figures.estimate("", "time_to_target", "bn", "updates", 0.6).value_low


def test_an_arm_that_never_gets_there_is_bounded_not_invented(compared):
    comparison = compared({"bn": Arm(), "gbn": Arm(final=0.5)})
    estimate = speedup(comparison, "gbn", 0.8)
    assert estimate.value_low == 0
    assert 0 < estimate.value_high < 0.5
    assert (estimate.arm_misses, estimate.reference_misses, estimate.method) == (8, 0, "median")
    reached = comparison.figures.estimate("", "time_to_target", "gbn", "updates", 0.8)
    assert (reached.arm_misses, reached.value_high) == (8, math.inf)


def test_a_reference_that_never_gets_there_leaves_a_lower_bound(compared):
    comparison = compared({"bn": Arm(final=0.5), "gbn": Arm()})
    estimate = speedup(comparison, "gbn", 0.8)
    assert estimate.value_low > 2
    assert estimate.value_high == math.inf


def test_a_diverged_arm_counts_what_it_reached_before(compared):
    comparison = compared({"bn": Arm(), "gbn": Arm(diverges_at=400)})
    assert speedup(comparison, "gbn", 0.6).value_low == pytest.approx(1, rel=0.05)
    late = speedup(comparison, "gbn", 0.8)
    assert late.arm_misses > 0
    assert comparison.evidence.estimate("", "last_difference", "gbn", "bn").n == 0


def test_every_arm_is_compared_with_its_controls(compared):
    comparison = compared()
    for control in ("bn_matched[gbn_fast]", "bn_reparam[gbn_fast]"):
        assert speedup(comparison, "gbn_fast", 0.8, against=control).value_low == pytest.approx(1.2, rel=0.06)


def test_the_aa_row_of_a_target_is_one_and_as_wide_as_the_seeds_spread(compared):
    estimate = speedup(compared(), AA, 0.8)
    assert estimate.value_low == 1
    assert estimate.low < 0.95
    assert estimate.high > 1.05


def test_one_seed_has_no_aa_row_and_no_interval(compared):
    comparison = compared(seeds=[3])
    assert speedup(comparison, AA, 0.8).n == 0
    assert to_maximum(comparison, AA).estimate.n == 0
    estimate = speedup(comparison, "gbn_fast", 0.8)
    assert estimate.n == 1
    assert math.isnan(estimate.low)


def test_half_a_point_more_accuracy_looks_like_speed_in_the_metric_of_the_maximum(compared):
    arms = {"bn": Arm(noise=0.002), "same": Arm(noise=0.002), "better": Arm(noise=0.002, final=0.91)}
    comparison = compared(arms, seeds=range(20), points=60)
    same, better, aa = (to_maximum(comparison, arm) for arm in ("same", "better", AA))
    # equal speed, a point more final accuracy: most pairs "save" 31 % or more ...
    assert better.saved > 10
    assert better.estimate.value_low > 1.3
    # ... while an equal arm misses about half of the time, as the A/A row shows in advance
    assert 5 <= same.estimate.arm_misses <= 15
    assert aa.estimate.n == 20 * 19
    assert 0.3 < aa.estimate.arm_misses / aa.estimate.n < 0.7
    # and the fixed targets see no such speed
    assert speedup(comparison, "better", 0.6).value_low < 1.06


def test_the_reference_reaches_its_own_maximum_at_its_own_seed(compared):
    figure = to_maximum(compared({"bn": Arm(), "slow": Arm(speed=0.5)}), "slow")
    assert figure.estimate.reference_misses == 0
    assert figure.estimate.arm_misses > 0


def test_pairs_are_the_common_seeds(make_grid, tmp_path):
    grid = make_grid()
    write_runs(
        [r for r in grid.records() if not (r.config["norm"]["name"] == "bn" and r.config["seed"] > 4)],
        tmp_path,
    )
    comparison = Comparison(load_grid_runs(grid, tmp_path))
    assert speedup(comparison, "gbn_fast", 0.8).n == 5
    assert comparison.figures.estimate("", "last", "gbn_fast").n == 8


def test_seconds_are_compared_on_an_exclusive_clock_only(compared):
    assert compared().times.seconds_reasons[""] is None


def test_seconds_of_a_shared_clock_are_never_compared(compared):
    comparison = compared(machine=Machine(clock="shared"))
    assert comparison.times.seconds_reasons[""].startswith("shared clock (32 of 32")
    assert {unit for *_, unit, _ in (*comparison.figures.of_arms, *comparison.evidence.contrasts)} == {
        "",
        "updates",
    }


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Machine(device_kind="Simulated GPU"), "mixed devices"),
        (Machine(threads=1), "different numbers of threads"),
        (Machine(torch="2.11.0"), "mixed devices"),
    ],
)
def test_seconds_of_several_machines_are_never_pooled(make_grid, tmp_path, other, reason):
    grid = make_grid()
    write_runs([r for r in grid.records() if r.config["seed"] < 4], tmp_path)
    write_runs([r for r in grid.records(other) if r.config["seed"] >= 4], tmp_path)
    comparison = Comparison(load_grid_runs(grid, tmp_path))
    assert comparison.times.seconds_reasons[""].startswith(reason)
    assert speedup(comparison, "gbn_fast", 0.8).n == 8  # updates are pooled


def test_a_setting_is_compared_within_itself(compared):
    comparison = compared(settings=("cnn", "resnet"), seeds=range(3))
    contrasts = comparison.evidence.contrasts.values()
    keys = {(f.setting, f.arm, f.against) for f in contrasts if f.quantity == "speedup_to_target"}
    assert ("cnn", "gbn_fast", "bn") in keys
    assert ("resnet", "gbn_fast", "bn") in keys


def test_without_a_reference_there_is_no_speedup(make_grid, tmp_path):
    grid = make_grid()
    write_runs([r for r in grid.records() if r.config["norm"]["name"] == "gbn_fast"], tmp_path)
    comparison = Comparison(load_grid_runs(grid, tmp_path))
    assert not comparison.evidence.contrasts
    assert comparison.figures.estimate("", "last", "gbn_fast").n == 8


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"unknown measure 'loss'.*did you mean 'val_loss'"):
        Options(measure="loss")
    with pytest.raises(ValueError, match="interpolation='linear'"):
        Options(interpolation="linear")
