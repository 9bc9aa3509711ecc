"""Speed-up against target: it finds a known one at every target, and a figure of it can be drawn."""

import itertools
import math

import pytest

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.times import PER_DECADE, speedup_curve, thresholds
from gbn.analysis.plots import sensitivity as sensitivity_plot
from gbn.analysis.runs.load import load_grid_runs
from gbn.measures import ACCURACY
from gbn.plot_style import save
from gbn.store.archive import Archive
from gbn.studies.validation.simulate import Arm, Machine, SimulatedGrid, write_runs


@pytest.fixture
def compared(make_grid, tmp_path):
    def compare(arms, machine=None, **changes):
        grid = make_grid(arms=arms, controls={}, **changes)
        Archive(tmp_path).add(grid.records(machine), "experiments/simulated")
        return Comparison(load_grid_runs(grid, tmp_path, "archive"))

    return compare


def test_a_known_speedup_is_found_at_every_target(compared):
    comparison = compared({"bn": Arm(), "gbn": Arm(speed=1.5, own_spread=0.02)})
    curve = speedup_curve(comparison.times, "", "gbn", "bn")
    assert len(curve) > 30
    targets = [target for target, _ in curve]
    assert targets == pytest.approx([targets[0] + 0.01 * i for i in range(len(targets))])
    for target, estimate in curve:
        if target < 0.85:  # above, a run or another ends before
            assert estimate.value_low == pytest.approx(1.5, rel=0.08)
    fixed = comparison.evidence.estimate("", "speedup_to_target", "gbn", "bn", "updates", 0.8)
    at = next(estimate for target, estimate in curve if target == 0.8)
    assert (at.value_low, at.low, at.high, at.n) == (fixed.value_low, fixed.low, fixed.high, fixed.n)


def test_the_grid_begins_where_runs_were_measured_and_ends_where_half_of_the_reference_is(compared):
    arms = {"bn": Arm(noise=0, spread=0.3), "gbn": Arm(noise=0, spread=0.3, speed=3)}
    comparison = compared(arms, seeds=range(5))
    grid = thresholds(comparison.times, "", "gbn", "bn")
    first = max(comparison.times.curves["", arm, seed].values[0] for arm in arms for seed in range(5))
    peaks = sorted(comparison.times.curves["", "bn", seed].best for seed in range(5))
    assert first < grid[0] <= first + 0.01
    assert peaks[2] - 0.01 < grid[-1] <= peaks[2]
    reached = sum(comparison.times.time("", "bn", seed, grid[-1], "updates").reached for seed in range(5))
    assert reached >= 3


def test_an_effect_that_depends_on_the_target_shows(compared):
    # faster to low accuracies, never to high ones
    comparison = compared({"bn": Arm(noise=0), "gbn": Arm(noise=0, speed=2, final=0.8)})
    curve = dict(speedup_curve(comparison.times, "", "gbn", "bn"))
    assert curve[0.5].low > 1
    assert curve[0.84].value_high < 1
    assert curve[0.84].arm_misses == 8


def test_seconds_follow_the_tables_refusal(compared):
    comparison = compared({"bn": Arm(), "gbn": Arm()}, machine=Machine(clock="shared"))
    with pytest.raises(ValueError, match="seconds of these runs are not compared: shared clock"):
        speedup_curve(comparison.times, "", "gbn", "bn", "seconds")


def test_without_a_pair_there_is_no_curve(compared):
    comparison = compared({"bn": Arm(), "gbn": Arm()}, seeds=[0])
    assert speedup_curve(comparison.times, "", "nothing", "bn") == []


def test_the_figure_names_its_arms_and_says_what_it_shows(compared, tmp_path):
    arms = {"bn": Arm(), "gbn_fast": Arm(speed=1.5), "gbn_low": Arm(final=0.7)}
    pictures, notes = sensitivity_plot.pictures(compared(arms))
    assert [picture.name for picture in pictures] == [
        f"simulated-sensitivity-{unit}" for unit in ("updates", "seconds")
    ]
    assert all(path.stat().st_size > 5000 for path in save(pictures, tmp_path / "figures"))
    assert notes == []
    figure = sensitivity_plot.draw(compared(arms, name="again"), "", "updates")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert {"gbn_fast", "gbn_low", "bn"} <= set(lines)
    assert max(lines["gbn_low"].get_xdata()) < 70  # beyond, its runs miss and bounds stand
    low, high = axes.get_ylim()
    assert low * high == pytest.approx(1)  # faster and slower have the same room


def test_one_arm_has_no_figure(compared, tmp_path):
    pictures, notes = sensitivity_plot.pictures(compared({"bn": Arm()}))
    assert pictures == []
    assert notes[0].startswith("No figure of speed-up against target")


def test_a_line_is_broken_where_numbers_are_missing():
    x, y = sensitivity_plot._with_gaps([(50.0, 1.1), (51.0, 1.2), (55.0, 1.3)], ACCURACY)
    assert x == [50, 51, 55, 55]
    assert math.isnan(y[2])
    assert [y[0], y[1], y[3]] == [1.1, 1.2, 1.3]


def test_where_lower_is_better_targets_fall_by_a_fixed_factor(tmp_path):
    arms = {"bn": Arm(final=0.02), "gbn": Arm(speed=1.5, final=0.02, own_spread=0.02)}
    grid = SimulatedGrid(arms, range(5), measure="kid_own_1a2b3c4d", start=0.4, thresholds=(0.1, 0.05))
    write_runs(grid.records(), tmp_path)
    comparison = Comparison(load_grid_runs(grid, tmp_path))
    targets = thresholds(comparison.times, "", "gbn", "bn")
    runs = [comparison.times.curves["", arm, seed] for arm in arms for seed in range(5)]
    assert max(targets) == targets[0] < min(curve.values[0] for curve in runs)
    bests = sorted(comparison.times.curves["", "bn", seed].best for seed in range(5))
    assert targets[-1] >= bests[2] > targets[-1] / 1.05
    factors = [one / other for one, other in itertools.pairwise(targets)]
    assert factors == pytest.approx([10 ** (1 / PER_DECADE)] * len(factors), rel=1e-3)
    for target, estimate in speedup_curve(comparison.times, "", "gbn", "bn"):
        if target > 0.05:
            assert estimate.value_low == pytest.approx(1.5, rel=0.1)
    figure = sensitivity_plot.draw(comparison, "", "updates")
    left, right = figure.axes[0].get_xlim()
    assert left > right  # harder to the right
    assert figure.axes[-1].get_xlabel() == "target: KID x 1000 (own network 1a2b3c4d)"
