"""Holm's correction as it reaches the tables: which rows are one family, and intervals that agree with it."""

import math

import pytest

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.evidence import corrected
from gbn.analysis.comparison.figures import Figure
from gbn.analysis.estimates.decisions import holm
from gbn.analysis.estimates.estimate import AA
from gbn.analysis.estimates.pairs import interval_at, mean_interval, speedup
from gbn.analysis.estimates.targets import Time
from gbn.analysis.runs.load import load_grid_runs
from gbn.store.archive import Archive
from gbn.studies.validation.simulate import Arm


def hit(value):
    return Time(value, value)


def figure(logs, arm="gbn", target=0.8, against="bn", unit="updates", setting=""):
    reference = [hit(100.0 * math.exp(x)) for x in logs]
    estimate = speedup([hit(100.0)] * len(logs), reference)
    return Figure(setting, "speedup_to_target", arm, estimate, against, target, unit)


STRONG, WEAK, NONE = [0.5, 0.52, 0.48, 0.51, 0.5], [0.3, 0.1, 0.25, 0.4, 0.05], [0.1, -0.1, 0.2, -0.2, 0.01]


def test_a_family_is_every_row_and_target_of_one_table():
    figures = [figure(STRONG), figure(WEAK, "b"), figure(WEAK, "b", target=0.6), figure(NONE, "c")]
    found = corrected(figures, "bn")
    expected = holm([one.estimate.p for one in figures])
    assert [one.estimate.p_holm for one in found] == expected
    assert [one.estimate.decided for one in found] == [True, False, False, False]
    assert 0.01 < figures[1].estimate.p < 0.05  # decided alone, not among four


@pytest.mark.parametrize("other", [{"unit": "seconds"}, {"setting": "cnn"}, {"against": "bn_matched"}])
def test_another_unit_setting_or_control_is_another_family(other):
    figures = [figure(WEAK), figure(NONE, **other)]
    assert corrected(figures, "bn")[0].estimate.p_holm == pytest.approx(figures[0].estimate.p)


def test_what_tests_nothing_is_left_alone():
    mean = Figure("", "last", "gbn", mean_interval([0.9, 0.91]))
    aa = Figure("", "speedup_to_target", AA, mean_interval([1.0, 1.0], "A/A"), "bn", 0.8, "updates")
    found = corrected([mean, aa, figure(WEAK)], "bn")
    assert found[0] is mean
    assert found[1] is aa
    assert found[2].estimate.holm_level == pytest.approx(0.95)


def test_intervals_at_holms_level_exclude_one_exactly_where_holm_decides():
    figures = [figure(STRONG), figure(WEAK, "b"), figure(WEAK, "c"), figure(NONE, "d")]
    for one in corrected(figures, "bn"):
        e = one.estimate
        assert (e.holm_low > 1 or e.holm_high < 1) == e.decided
        assert e.holm_low <= e.low
        assert e.holm_high >= e.high


@pytest.mark.parametrize("level", [0.8, 0.95, 0.995])
def test_the_interval_at_another_level_is_the_estimators_own(level):
    arm = [hit(100.0), hit(120.0), hit(90.0), hit(85.0), hit(70.0), hit(130.0), hit(95.0), hit(99.0)]
    reference = [hit(150.0), hit(110.0), hit(95.0), hit(85.5), hit(99.0), hit(190.0), hit(97.0), hit(170.0)]
    for last in (reference[-1], Time(170.0, math.inf)):
        given = [*reference[:-1], last]
        expected = speedup(arm, given, level)
        found = interval_at(speedup(arm, given), level)
        assert found == pytest.approx((expected.low, expected.high), nan_ok=True)


def test_differences_have_symmetric_intervals():
    estimate = mean_interval([0.01, 0.02, 0.03], "paired t")
    low, high = interval_at(estimate, 0.99, ratio=False)
    assert low + high == pytest.approx(2 * estimate.value_low)
    assert math.isnan(interval_at(mean_interval([0.01], "paired t"), 0.99)[0])


def test_tables_of_simulated_runs_carry_the_correction(make_grid, tmp_path):
    arms = {"bn": Arm(), "gbn_fast": Arm(speed=1.5, own_spread=0.03), "gbn_same": Arm(own_spread=0.1)}
    grid = make_grid(arms=arms, controls={})
    Archive(tmp_path).add(grid.records(), "experiments/simulated")
    comparison = Comparison(load_grid_runs(grid, tmp_path, "archive"))
    for target in (0.6, 0.8):
        fast = comparison.evidence.estimate("", "speedup_to_target", "gbn_fast", "bn", "updates", target)
        same = comparison.evidence.estimate("", "speedup_to_target", "gbn_same", "bn", "updates", target)
        assert fast.decided
        assert not same.decided
        assert fast.p < fast.p_holm <= 4 * fast.p * (1 + 1e-9)
