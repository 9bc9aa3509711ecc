"""The evidence beside a speed-up, and the sub-tables that print it."""

import math
import re

import numpy as np
import pytest

from gbn.analysis.comparison import evidence
from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.figures import Figure
from gbn.analysis.comparison.times import heterogeneity
from gbn.analysis.estimates import power, resampling
from gbn.analysis.estimates.decisions import decision
from gbn.analysis.estimates.pairs import f_test, speedup
from gbn.analysis.estimates.targets import Time
from gbn.analysis.runs.load import load_grid_runs
from gbn.analysis.tables.evidence import amount
from gbn.analysis.tables.sections import sections
from gbn.store.archive import Archive
from gbn.studies.validation.simulate import Arm, Machine

GPU = Machine(device_kind="Simulated GPU")


def hit(value):
    return Time(value, value)


def corrected(arm, reference):
    figure = Figure("", "speedup_to_target", "gbn", speedup(arm, reference), "bn", 0.8, "updates")
    return evidence.corrected([figure], "bn")[0].estimate


def of_logs(logs):
    return corrected([hit(100.0)] * len(logs), [hit(100.0 * math.exp(x)) for x in logs])


def test_evidence_of_complete_pairs():
    logs = [0.3, -0.1, 0.2, 0.15, 0.05]
    estimate = of_logs(logs)
    (found,) = evidence.resample([estimate])
    assert found.bootstrap.bca == pytest.approx(resampling.bootstrap(logs).bca)
    assert found.sign_flip == pytest.approx(resampling.sign_flip(logs))
    assert decision(estimate) == "inconclusive"
    assert power.seeds_to_decide(estimate) == power.seeds_needed(estimate.sd, estimate.value_low)
    assert power.decision_in_words(estimate) == power.advice(estimate)


def test_evidence_where_a_run_missed_is_the_sign_tests():
    reference = [hit(x) for x in (150.0, 140.0, 130.0, 120.0, 110.0, 90.0)] + [Time(200.0, math.inf)]
    estimate = corrected([hit(100.0)] * 7, reference)
    (found,) = evidence.resample([estimate])
    assert math.isnan(found.bootstrap.percentile[0])
    assert math.isnan(found.sign_flip)
    assert power.seeds_to_decide(estimate) == power.seeds_for_signs(power.share_of_signs(6, 1))
    assert (
        power.decision_in_words(estimate)
        == "inconclusive at n = 7, about 25 seeds would decide by the sign test"
    )


def test_what_is_decided_needs_no_more_seeds():
    estimate = of_logs([0.3, 0.31, 0.29, 0.3, 0.32])
    assert (decision(estimate), power.decision_in_words(estimate)) == ("faster", "faster")
    assert math.isnan(power.seeds_to_decide(estimate))


def test_one_pair_decides_nothing():
    estimate = of_logs([0.5])
    assert decision(estimate) == "inconclusive"
    assert math.isnan(power.seeds_to_decide(estimate))
    assert power.decision_in_words(estimate) == "inconclusive at n = 1"


def test_many_are_what_each_is():
    estimates = [of_logs([0.1, 0.2, -0.1, 0.05, x]) for x in (0.3, -0.2, 0.0)]
    together = evidence.resample(estimates)
    for one, estimate in zip(together, estimates, strict=True):
        (alone,) = evidence.resample([estimate])
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
    times = [comparison.times.time("", "bn", seed, 0.8, "updates").low for seed in range(8)]
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
    estimate = comparison.evidence.estimate("", "speedup_to_target", "gbn_fast", "bn", "updates", 0.8)
    blocks = comparison.times.by_machine("", "gbn_fast", "bn", 0.8).values()
    pooled = sum(len(block.seeds) * math.log(block.speedup().value_low) for block in blocks) / 7
    assert math.log(estimate.value_low) == pytest.approx(pooled)


def test_one_machine_has_no_such_table(compared):
    assert section(compared({"bn": Arm(), "gbn": Arm()}), "Speed-up in updates by machine") == []


def test_the_f_test_is_scipys():
    from scipy import stats

    rng = np.random.default_rng(0)
    groups = [rng.normal(0, 1, n) for n in (4, 3, 6)]
    assert f_test(groups) == pytest.approx(stats.f_oneway(*groups).pvalue)
    assert math.isnan(f_test(groups[:1]))
    assert math.isnan(f_test([np.array([1.0]), np.array([2.0])]))
    assert f_test([np.array([1.0, 1.0]), np.array([2.0, 2.0])]) == 0
    assert f_test([np.array([1.0, 1.0]), np.array([1.0])]) == 1


def test_heterogeneity_is_found_where_machines_differ(compared):
    arms = {"bn": Arm(), "gbn": Arm(speed=1.5, own_spread=0.05)}
    comparison = compared(arms, {(0, 1, 2, 3): None, (4, 5, 6): GPU})
    blocks = list(comparison.times.by_machine("", "gbn", "bn", 0.8).values())
    assert heterogeneity(blocks) > 0.01
    missed = blocks[0]._replace(arm=(Time(2000, math.inf), *blocks[0].arm[1:]))
    assert math.isnan(heterogeneity([missed, blocks[1]]))


def test_amounts_have_their_units():
    assert amount(1234.4, "updates") == "1,234"
    assert amount(-12.345, "seconds", signed=True) == "-12.3 s"
