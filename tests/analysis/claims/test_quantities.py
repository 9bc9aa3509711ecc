"""A rule measures what the tables print."""

import math

import numpy as np
import pytest

from gbn.analysis.claims.quantities import Measurement, measure
from gbn.analysis.claims.schema import Rule
from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.figures import figures_of
from gbn.analysis.estimates.targets import Time
from gbn.analysis.runs.load import load_grid_runs
from gbn.studies.validation.simulate import Arm, write_runs


@pytest.fixture
def comparison(grid, results):
    return Comparison(load_grid_runs(grid, results))


def rule(quantity, **keys):
    keys = {"target": 0.8} | keys if quantity == "speedup_to_target" else keys
    return Rule(
        rule="direction", quantity=quantity, arm="gbn_fast", against=["bn"], pairs=2, relevant=2.0, **keys
    )


@pytest.mark.parametrize(
    ("quantity", "target", "unit"),
    [
        ("speedup_to_target", 0.8, "updates"),
        ("speedup_to_target", 0.8, "seconds"),
        ("speedup_to_maximum", None, "updates"),
        ("last_difference", None, ""),
        ("area_difference", None, ""),
    ],
)
def test_as_in_the_tables(comparison, quantity, target, unit):
    asked = rule(quantity, **({"unit": unit} if unit else {}))
    ours = measure(comparison.times, comparison.figures, asked, "gbn_fast", "bn", asked.target).estimate()
    table = comparison.evidence.estimate("", quantity, "gbn_fast", "bn", unit, target)
    assert (ours.value_low, ours.low, ours.high, ours.n) == (table.value_low, table.low, table.high, table.n)
    assert ours.p == table.p


def test_mean_training_loss_counts_each_point_by_the_updates_since_the_last(comparison, monkeypatch):
    """A point's training loss is the mean since the point before it; before the first update there is none."""
    curves = {"gbn_fast": ([0, 10, 40], [math.nan, 2.0, 1.0]), "bn": ([10, 40], [2.0, 2.5])}
    columns = type(comparison.runs).columns

    def with_losses(self, setting, arm, seed, names):
        if "train_loss" not in names or arm not in curves:
            return columns(self, setting, arm, seed, names)
        return tuple(np.array(part, dtype=float) for part in curves[arm])

    monkeypatch.setattr(type(comparison.runs), "columns", with_losses)
    asked, figures = rule("training_loss_difference"), comparison.figures
    found = measure(comparison.times, figures, asked, "gbn_fast", "bn", None)
    assert len(found.seeds) == len(comparison.runs.pairs("", "gbn_fast", "bn")) > 1
    assert found.estimate().value_low == pytest.approx(1.25 - 2.375)
    assert not asked.compared(comparison.measured, figures.final).higher_is_better
    curves["bn"] = ([10, 40], [math.nan, math.nan])  # not recorded
    figures = figures_of(comparison.times)
    assert measure(comparison.times, figures, asked, "gbn_fast", "bn", None).seeds == ()


def test_best_by_validation_is_no_best_on_test(comparison):
    found = measure(comparison.times, comparison.figures, rule("best_val_difference"), "gbn_fast", "bn", None)
    values = [comparison.figures.of_runs["", arm]["best_val"] for arm in ("gbn_fast", "bn")]
    assert found.estimate().value_low == pytest.approx((values[0] - values[1]).mean())


def test_a_saving_is_one_minus_the_inverse_ratio(tmp_path, make_grid):
    grid = make_grid(
        arms={"bn": Arm(noise=0.0), "gbn_fast": Arm(speed=1.5, own_spread=0.1, noise=0.0)}, controls={}
    )
    write_runs(grid.records(), tmp_path)
    comparison = Comparison(load_grid_runs(grid, tmp_path))
    ratio = measure(comparison.times, comparison.figures, rule("speedup_to_maximum"), "gbn_fast", "bn", None)
    share = measure(comparison.times, comparison.figures, rule("saving_to_maximum"), "gbn_fast", "bn", None)
    for level in (0.9, 0.99):
        one, other = ratio.estimate(level), share.estimate(level)
        assert other.value_low == pytest.approx(1 - 1 / one.value_low)
        assert (other.low, other.high) == pytest.approx((1 - 1 / one.low, 1 - 1 / one.high))
        assert (other.n, other.p) == (one.n, one.p)


def test_a_saving_of_one_that_never_arrives_is_minus_infinity():
    reached, never = Time(100, 100), Time(math.inf, math.inf)
    share = Measurement("saving_to_maximum", (never,) * 8, (reached,) * 8, tuple(range(8))).estimate()
    assert (share.value_low, share.low, share.high) == (-math.inf,) * 3


def test_a_stricter_level_widens_the_interval(comparison):
    for quantity in ("speedup_to_target", "area_difference"):
        asked = rule(quantity)
        found = measure(
            comparison.times, comparison.figures, asked, "gbn_fast", "bn_matched[gbn_fast]", asked.target
        )
        wide, narrow = found.estimate(0.99), found.estimate(0.95)
        assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("n", [0, 2])
def test_advice_where_nothing_can_be_said(n):
    found = Measurement("last_difference", (0.5, 0.6)[:n], (0.5, 0.6)[:n], tuple(range(n)))
    assert found.advice(0.95).startswith(f"inconclusive at n = {n}")


def test_advice_speaks_of_a_difference_where_it_is_one():
    found = Measurement("last_difference", (0.50, 0.61, 0.70), (0.51, 0.60, 0.70), (0, 1, 2))
    assert found.advice(0.95).endswith("a difference so small")


def test_advice_where_runs_missed():
    reached, missed = Time(100, 100), Time(200, math.inf)
    found = Measurement("speedup_to_target", (missed, missed, Time(90, 90)), (reached,) * 3, (0, 1, 2))
    assert found.advice(0.95).endswith("seeds would decide by the sign test")
