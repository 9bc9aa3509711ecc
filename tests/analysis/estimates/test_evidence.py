"""The evidence beside a speed-up, and the sub-tables that print it."""

import dataclasses
import math
import re

import numpy as np
import pytest

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates import blocks, evidence, holm, power, resampling
from gbn.analysis.estimates.estimate import Figure
from gbn.analysis.estimates.pairs import speedup
from gbn.analysis.estimates.targets import Time
from gbn.analysis.runs.load import load_grid_runs
from gbn.analysis.tables.evidence import _amount
from gbn.analysis.tables.sections import sections
from gbn.store.archive import Archive
from gbn.studies.validation.simulate import Arm, Machine

GPU = Machine(device_kind="Simulated GPU")


def hit(value):
    return Time(value, value)


def corrected(arm, reference):
    figure = Figure("", "speedup_to_target", "gbn", speedup(arm, reference), "bn", 0.8, "updates")
    return holm.corrected([figure], "bn")[0].estimate


def of_logs(logs):
    return corrected([hit(100.0)] * len(logs), [hit(100.0 * math.exp(x)) for x in logs])


def test_evidence_of_complete_pairs():
    logs = [0.3, -0.1, 0.2, 0.15, 0.05]
    estimate = of_logs(logs)
    (found,) = evidence.evidence([estimate])
    assert found.bootstrap.bca == pytest.approx(resampling.bootstrap(logs).bca)
    assert found.sign_flip == pytest.approx(resampling.sign_flip(logs))
    assert found.verdict == "inconclusive"
    assert found.seeds == power.seeds_needed(estimate.sd, estimate.value_low)
    assert evidence.text(estimate) == power.advice(estimate)


def test_evidence_where_a_run_missed_is_the_sign_tests():
    reference = [hit(x) for x in (150.0, 140.0, 130.0, 120.0, 110.0, 90.0)] + [Time(200.0, math.inf)]
    estimate = corrected([hit(100.0)] * 7, reference)
    (found,) = evidence.evidence([estimate])
    assert math.isnan(found.bootstrap.percentile[0])
    assert math.isnan(found.sign_flip)
    assert found.seeds == power.seeds_for_signs(power.share_of_signs(6, 1))
    assert evidence.text(estimate) == power.advice_for_signs(6, 1, 7)


def test_what_is_decided_needs_no_more_seeds():
    estimate = of_logs([0.3, 0.31, 0.29, 0.3, 0.32])
    (found,) = evidence.evidence([estimate])
    assert (found.verdict, evidence.text(estimate)) == ("faster", "faster")
    assert math.isnan(found.seeds)


def test_one_pair_decides_nothing():
    estimate = of_logs([0.5])
    (found,) = evidence.evidence([estimate])
    assert found.verdict == "inconclusive"
    assert math.isnan(found.seeds)
    assert evidence.text(estimate) == "inconclusive at n = 1"


def test_many_are_what_each_is():
    estimates = [of_logs([0.1, 0.2, -0.1, 0.05, x]) for x in (0.3, -0.2, 0.0)]
    together = evidence.evidence(estimates)
    for one, estimate in zip(together, estimates, strict=True):
        (alone,) = evidence.evidence([estimate])
        assert alone.sign_flip == pytest.approx(one.sign_flip)
        assert alone.bootstrap.bca == pytest.approx(one.bootstrap.bca)


@pytest.fixture
def compared(make_grid, tmp_path):
    def compare(arms, machines=None, **changes):
        grid = make_grid(arms=arms, controls={}, **changes)
        archive = Archive(tmp_path)
        for number, (seeds, machine) in enumerate((machines or {tuple(grid.seeds): None}).items()):
            records = [r for r in grid.records(machine) if r.config["seed"] in seeds]
            archive.add(records, f"experiments/simulated{number}")
        return Comparison(load_grid_runs(grid, tmp_path, "archive"))

    return compare


def section(comparison, heading):
    return [s for s in sections(comparison, "") if s.heading.startswith(heading)]


def test_how_sure_has_a_row_for_each_arm_and_target(compared):
    arms = {
        "bn": Arm(),
        "gbn_fast": Arm(speed=1.5, own_spread=0.03),
        "gbn_near": Arm(speed=1.05, own_spread=0.2),
    }
    for one in section(compared(arms), "How sure"):
        assert [row[:2] for row in one.rows] == [
            (arm, target) for arm in ("gbn_fast", "gbn_near") for target in ("60 %", "80 %")
        ]
        fast, near = one.rows[0], one.rows[2]
        assert fast[3] == "< 0.001"
        assert fast[7] == "0.008"  # 2/2^8, the least there is
        assert fast[8] == "faster"
        assert re.match(r"inconclusive at n = 8, (about|more than) [\d,]+ ", near[8])
        assert "2/2^8 = 0.0078" in one.notes[-1]
        assert "after Holm over these 4 comparisons" in one.notes[0]


def test_censoring_is_shown_only_where_runs_miss(compared, make_grid):
    complete = compared({"bn": Arm(), "gbn": Arm(speed=1.5)}, thresholds=(0.6,))
    assert section(complete, "Where runs missed") == []


def test_misses_are_shown_as_survival_data(compared):
    comparison = compared({"bn": Arm(), "gbn_low": Arm(final=0.7), "gbn_gone": Arm(diverges_at=300)})
    updates, seconds = section(comparison, "Where runs missed")
    rows = {row[:2]: row for row in updates.rows}
    assert {target for _, target in rows} == {"80 %"}  # all reach 60 %
    assert rows["bn", "80 %"][2] == "8/8"
    assert rows["gbn_low", "80 %"][2:4] == ("0/8", "not reached")
    # nothing reached: the mean of what was watched is the horizon itself
    assert rows["gbn_low", "80 %"][4] == "2,000 ± 0"
    assert rows["bn", "80 %"][5] == "-"
    difference = re.fullmatch(r"\+([\d,]+) \[\+([\d,]+), \+([\d,]+)\]", rows["gbn_low", "80 %"][5])
    times = [comparison.time("", "bn", seed, 0.8, "updates").low for seed in range(8)]
    assert int(difference[1].replace(",", "")) == pytest.approx(2000 - np.mean(times), abs=1)
    assert "2,000 (80 %)" in updates.notes[0]
    assert seconds.rows[0][4].endswith(" s")


def test_each_machine_is_shown_beside_the_pooled_ratio(compared):
    arms = {"bn": Arm(), "gbn_fast": Arm(speed=1.5, own_spread=0.05)}
    comparison = compared(arms, {(0, 1, 2, 3): None, (4, 5, 6): GPU})
    (one,) = section(comparison, "Speed-up in updates by machine")
    assert one.columns == ("arm", "target", "A", "B", "pooled", "p of heterogeneity")
    row = one.rows[1]
    assert row[:2] == ("gbn_fast", "80 %")
    assert row[2].endswith(" (4)")
    assert row[3].endswith(" (3)")
    assert "A: Simulated CPU" in one.notes[0]
    assert "B: Simulated GPU" in one.notes[0]
    figure = comparison.lookup["", "speedup_to_target", "gbn_fast", "bn", "updates", 0.8]
    parts = blocks.by_machine(comparison, figure)
    pooled = sum(e.n * math.log(e.value_low) for e in parts.values()) / 7
    assert math.log(figure.estimate.value_low) == pytest.approx(pooled)


def test_one_machine_has_no_such_table(compared):
    assert section(compared({"bn": Arm(), "gbn": Arm()}), "Speed-up in updates by machine") == []


def test_the_f_test_is_scipys():
    from scipy import stats

    rng = np.random.default_rng(0)
    groups = [rng.normal(0, 1, n) for n in (4, 3, 6)]
    assert blocks.f_test(groups) == pytest.approx(stats.f_oneway(*groups).pvalue)
    assert math.isnan(blocks.f_test(groups[:1]))
    assert math.isnan(blocks.f_test([np.array([1.0]), np.array([2.0])]))
    assert blocks.f_test([np.array([1.0, 1.0]), np.array([2.0, 2.0])]) == 0
    assert blocks.f_test([np.array([1.0, 1.0]), np.array([1.0])]) == 1


def test_heterogeneity_is_found_where_machines_differ(compared):
    arms = {"bn": Arm(), "gbn": Arm(speed=1.5, own_spread=0.05)}
    comparison = compared(arms, {(0, 1, 2, 3): None, (4, 5, 6): GPU})
    figure = comparison.lookup["", "speedup_to_target", "gbn", "bn", "updates", 0.8]
    assert blocks.heterogeneity(comparison, figure) > 0.01
    missing = dataclasses.replace(figure, estimate=dataclasses.replace(figure.estimate, method="median"))
    assert math.isnan(blocks.heterogeneity(comparison, missing))


def test_amounts_have_their_units():
    assert _amount(1234.4, "updates") == "1,234"
    assert _amount(-12.345, "seconds", signed=True) == "-12.3 s"
