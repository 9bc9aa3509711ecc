"""Performance profiles against examples computed by hand from AlgoPerf's definition, and against known speeds."""

import json
import math

import numpy as np
import pytest

from gbn.analysis.comparison.comparison import Comparison, Options
from gbn.analysis.estimates.targets import Time
from gbn.analysis.profiles import plot
from gbn.analysis.profiles.score import profiles
from gbn.analysis.profiles.table import read_selection, render
from gbn.analysis.profiles.tasks import SettingTasks, Tasks, tasks_of
from gbn.analysis.runs.load import load_grid_runs
from gbn.studies.validation.simulate import Arm, Machine, SimulatedGrid, write_runs

MISS = Time(1000.0, math.inf)


def tasks(table, seeds=1, targets=None):
    """Tasks of arms a, b, c: {setting: {arm: [[time of a seed, ...] of a target, ...]}}; None is a miss."""
    settings = []
    for name, times in table.items():
        made = {
            arm: [[MISS if t is None else Time(t, t) for t in row] for row in rows]
            for arm, rows in times.items()
        }
        rows = next(iter(made.values()))
        settings.append(
            SettingTasks(
                name, tuple(0.5 + 0.1 * k for k in range(len(rows))), tuple(range(len(rows[0]))), made
            )
        )
    arms = tuple(next(iter(table.values())))
    return Tasks(arms, arms[0], "updates", tuple(settings), {})


#: Four tasks, one seed. r of a: 1, 2, 1, 1.5; of b: 2, 1, inf, 1; of c: 5, 4, 2.5, inf.
HAND = {
    "w1": {"a": [[10]], "b": [[20]], "c": [[50]]},
    "w2": {"a": [[40]], "b": [[20]], "c": [[80]]},
    "w3": {"a": [[30]], "b": [[None]], "c": [[75]]},
    "w4": {"a": [[30]], "b": [[20]], "c": [[None]]},
}


def test_the_hand_computed_example():
    a, b, c = profiles(tasks(HAND))
    assert a.ratios == pytest.approx((1, 2, 1, 1.5))
    assert b.ratios[:2] == pytest.approx((2, 1))
    assert math.isinf(b.ratios[2])
    assert c.ratios[:3] == pytest.approx((5, 4, 2.5))
    assert [a.rho(tau) for tau in (1, 1.49, 1.5, 2, 4)] == [0.5, 0.5, 0.75, 1, 1]
    assert [b.rho(tau) for tau in (1, 2, 4)] == [0.5, 0.75, 0.75]
    assert [c.rho(tau) for tau in (1, 2.5, 4)] == [0, 0.25, 0.5]
    # Integrals from 1 to 4: a: .5 * .5 + .75 * .5 + 1 * 2; b: .5 * 1 + .75 * 2; c: .25 * 1.5 (r = 4 adds nothing).
    assert a.score.value_low == pytest.approx((0.25 + 0.375 + 2) / 3)
    assert b.score.value_low == pytest.approx((0.5 + 1.5) / 3)
    assert c.score.value_low == pytest.approx(0.375 / 3)


@pytest.mark.parametrize("r_max", [1.5, 4.0, 10.0])
def test_the_score_is_the_integral_of_the_profile(r_max):
    random = np.random.default_rng(3)
    table = {
        f"w{k}": {
            arm: [[None if random.random() < 0.2 else float(random.lognormal(3, 0.8))]] for arm in "abc"
        }
        for k in range(12)
    }
    taus = np.linspace(1, r_max, 4_001)
    for one in profiles(tasks(table), r_max, resamples=10):
        numeric = np.trapezoid([one.rho(tau) for tau in taus], taus) / (r_max - 1)
        assert one.score.value_low == pytest.approx(numeric, abs=2e-3)


def test_the_fastest_everywhere_scores_one_and_nothing_where_nobody_arrives():
    (a, _) = profiles(tasks({"w": {"a": [[1, 1]], "b": [[2, 2]]}}))
    assert a.score.value_low == 1
    for one in profiles(tasks({"w": {"a": [[None]], "b": [[None]]}})):
        assert one.score.value_low == 0
        assert one.rho(1e9) == 0


def test_an_arms_time_is_its_median_run():
    odd = tasks({"w": {"a": [[10, 20, None]], "b": [[None, None, 10]]}})
    a, b = profiles(odd)
    assert a.ratios == (1.0,)
    assert b.ratios == (math.inf,)
    even = tasks({"w": {"a": [[10, 40]], "b": [[10, None]]}})
    a, b = profiles(even)
    assert a.ratios == (1.0,)  # sqrt(10 * 40) is the best
    assert b.ratios == (math.inf,)


def test_the_bootstrap_draws_seeds_and_is_the_same_every_time():
    table = {"w": {"a": [[10, 11, 12, 13, 14]], "b": [[20, 30, 11, 25, 40]]}}
    first, again = profiles(tasks(table)), profiles(tasks(table))
    assert [one.score for one in first] == [one.score for one in again]
    b = first[1]
    assert b.score.low < b.score.value_low < b.score.high
    # Paired: an arm that is twice as slow at every seed is so in every draw.
    table["w"]["b"] = [[2 * t for t in table["w"]["a"][0]]]
    b = profiles(tasks(table))[1]
    assert (b.score.low, b.score.high) == pytest.approx((2 / 3, 2 / 3))
    assert math.isnan(profiles(tasks(HAND))[0].score.low)  # one seed


def test_the_mean_speedup_weighs_tasks_alike():
    table = {
        "one": {"a": [[20, 40, 30]], "b": [[10, 20, 15]]},
        "two": {"a": [[10, 10], [30, 60]], "b": [[10, 10], [10, 20]]},
    }
    b = profiles(tasks(table))[1]
    assert b.speedup.value_low == pytest.approx((2 * 1 * 3) ** (1 / 3))
    assert b.tasks_reached == 3
    assert b.speedup == b.reached_speedup
    assert profiles(tasks(table))[0].speedup.n == 0  # the reference


def test_a_miss_leaves_bounds_and_the_rest_is_told_apart():
    table = {
        "one": {"a": [[20, 40, 30]], "b": [[10, 20, 15]]},
        "two": {"a": [[500, 500, 500]], "b": [[None, None, None]]},
    }
    b = profiles(tasks(table))[1]
    assert b.speedup.value_low == 0
    assert b.speedup.value_high == pytest.approx(math.sqrt(2 * 0.5))  # 500 / more than 1000
    assert math.isnan(b.speedup.low)
    assert b.speedup.arm_misses == 3
    assert b.reached_speedup.value_low == pytest.approx(2)
    assert b.tasks_reached == 1
    # Open above and below at once: nothing is known, and no number is made up.
    table["three"] = {"a": [[None, None, None]], "b": [[500, 500, 500]]}
    b = profiles(tasks(table))[1]
    assert (b.speedup.value_low, b.speedup.value_high) == (0, math.inf)


def test_nothing_to_integrate_is_refused():
    with pytest.raises(ValueError, match="r_max=1"):
        profiles(tasks(HAND), r_max=1)


@pytest.fixture
def compared(tmp_path):
    def compare(name="one", arms=None, machine=None, **changes):
        arms = arms or {"bn": Arm(), "gbn": Arm(speed=2.0, own_spread=0.03)}
        grid = SimulatedGrid(arms=arms, name=name, **changes)
        write_runs(grid.records(machine), tmp_path / name)
        return Comparison(load_grid_runs(grid, tmp_path / name), Options()).times

    return compare


def test_simulated_runs_find_their_truth(compared):
    made = tasks_of([compared(settings=("x", "y")), compared("two")])
    assert made.names == [
        f"{name} to {target} %" for name in ("one x", "one y", "two") for target in (60, 80)
    ]
    bn, gbn = profiles(made)
    assert gbn.score.value_low == 1
    assert bn.score.value_low == pytest.approx(2 / 3, abs=0.02)
    assert gbn.speedup.value_low == pytest.approx(2, rel=0.03)
    assert gbn.speedup.low < 2 < gbn.speedup.high


def test_arms_that_a_setting_lacks_are_left_out_and_named(compared):
    both = [compared(), compared("two", {"bn": Arm(), "gbn": Arm(), "gbn_more": Arm()})]
    made = tasks_of(both)
    assert made.arms == ("bn", "gbn")
    assert made.left_out == {"gbn_more": "no run in one"}
    with pytest.raises(ValueError, match="'gbn_more' has no run in one"):
        tasks_of(both, arms=["gbn_more"])
    with pytest.raises(ValueError, match="no run in one, two"):
        tasks_of(both, arms=["nobody"])


def test_controls_are_profiled_on_request(compared):
    arms = {"bn": Arm(), "gbn": Arm(), "bn_matched[gbn]": Arm()}
    one = compared(arms=arms, controls={"gbn": ["bn_matched[gbn]"]})
    assert tasks_of([one]).arms == ("bn", "gbn")
    assert set(tasks_of([one], controls=True).arms) == set(arms)
    assert tasks_of([one], arms=["bn_matched[gbn]"]).arms == ("bn", "bn_matched[gbn]")


def test_seconds_only_where_they_are_compared(compared):
    assert tasks_of([compared()], "seconds").unit == "seconds"
    with pytest.raises(ValueError, match="shared clock"):
        tasks_of([compared("two", machine=Machine(clock="shared"))], "seconds")


def test_what_cannot_be_profiled_is_refused(compared):
    other = compared("two", {"gbn": Arm(), "bn": Arm()}, reference="gbn")
    with pytest.raises(ValueError, match="2 references"):
        tasks_of([compared(), other])
    with pytest.raises(ValueError, match="no task"):
        tasks_of([compared("three", thresholds=())])
    with pytest.raises(ValueError, match="no arm besides bn"):
        tasks_of([compared("four", {"bn": Arm()})])
    with pytest.raises(ValueError, match="0 references"):
        tasks_of([])


def test_the_table_and_the_figure(tmp_path):
    made = tasks(HAND)
    found = profiles(made)
    texts = render(made, found, {"experiments": ["experiments/x"]}, 4.0)
    assert "| a   | 0.875 | 2/4  |" in texts[".md"]
    assert "missed" in texts[".md"]
    for suffix, text in texts.items():
        path = tmp_path / f"profile{suffix}"
        path.write_text(text)
        assert read_selection(path) == {"experiments": ["experiments/x"]}
    (tmp_path / "other.md").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="not one of our performance profiles"):
        read_selection(tmp_path / "other.md")
    (axes,) = plot.draw(made, found, 4.0).axes
    lines = {line.get_label().split()[0]: line for line in axes.get_lines()}
    assert set(lines) == {"a", "b", "c"}
    for one in found:
        x, y = lines[one.arm].get_data()
        assert (x[0], x[-1]) == (1, 4)
        assert list(y) == [one.rho(tau) for tau in x]
