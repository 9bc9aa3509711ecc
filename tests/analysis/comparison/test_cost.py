"""Cost files whose truth is known: what a block shares does not matter; what does not belong is refused."""

import csv
import dataclasses
import math
import random

import pytest

from gbn.analysis.comparison import cost
from gbn.analysis.comparison.comparison import Comparison, Options
from gbn.analysis.runs.load import load_grid_runs
from gbn.analysis.tables.causes import effects
from gbn.analysis.tables.formats import footnotes
from gbn.analysis.tables.frame import frame
from gbn.studies.validation.simulate import Arm, Machine, SimulatedGrid, write_runs

HERE = {"device_kind": "Simulated CPU", "threads": 2, "torch": "2.13.0", "kernels": "reference"}
SECONDS = {"bn": 0.010, "gbn_fast": 0.008}


def rows_of(grid, *, blocks=8, drift=1.0, noise=0.0, seconds=SECONDS, **changes):
    """A row a block and arm; each block is `drift` times as slow as the one before, for all arms."""
    wobble = random.Random(0)
    ids = {(cell.setting, cell.label): cell.run_ids[grid.seeds[0]] for cell in grid.cells}
    return [
        {
            "experiment": grid.name,
            "setting": setting,
            "arm": arm,
            "run_id": ids[setting, arm],
            "block": block,
            "status": "ok",
            "seconds_per_update": value * drift**block * math.exp(wobble.gauss(0, noise)),
            "commit": "c" * 40,
            "date": "2026-01-02T03:04:05+00:00",
            **HERE,
            **changes,
        }
        for setting in grid.settings
        for block in range(blocks)
        for arm, value in seconds.items()
    ]


def write(folder, rows, name="cost-simulated-simulated-cpu-2026-01-02.csv"):
    path = folder / "benchmarks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def runs(grid, results):
    return load_grid_runs(grid, results)


@pytest.mark.parametrize("drift", [1.0, 1.3, 0.8])
def test_a_drift_that_a_block_shares_leaves_no_trace(grid, tmp_path, drift):
    costs = cost.read(write(tmp_path, rows_of(grid, drift=drift)))
    ratio = cost.ratio(costs, "", "gbn_fast", "bn")
    assert ratio.value_low == pytest.approx(1.25)
    assert ratio.high - ratio.low < 1e-9
    assert ratio.n == 8


def test_the_interval_is_that_of_the_blocks(grid, tmp_path):
    costs = cost.read(write(tmp_path, rows_of(grid, drift=1.2, noise=0.02)))
    ratio = cost.ratio(costs, "", "gbn_fast", "bn")
    assert ratio.low < 1.25 < ratio.high
    assert 0.01 < ratio.sd < 0.06  # sqrt(2) * 0.02, whatever the drift
    inverse = cost.ratio(costs, "", "bn", "gbn_fast")
    assert (1 / inverse.high, 1 / inverse.low) == pytest.approx((ratio.low, ratio.high))


def test_busy_blocks_do_not_count(grid, tmp_path):
    rows = rows_of(grid)
    for row in rows:
        if row["block"] == 3 and row["arm"] == "bn":
            row |= {"status": "busy", "seconds_per_update": 1.0}
        if row["block"] == 4:
            row |= {"status": "busy", "seconds_per_update": ""}
    costs = cost.read(write(tmp_path, rows))
    assert cost.ratio(costs, "", "gbn_fast", "bn").n == 6
    assert costs.dropped == {"busy": 3}
    assert cost.seconds_per_update(costs, "", "bn") == pytest.approx(0.010)
    assert math.isnan(cost.seconds_per_update(costs, "", "nobody"))
    assert cost.ratio(costs, "", "nobody", "bn").n == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"seconds_per_update": "fast"}, "positive number"),
        ({"seconds_per_update": 0}, "positive number"),
        ({"seconds_per_update": "inf"}, "positive number"),
    ],
)
def test_a_time_must_be_one(grid, tmp_path, change, why):
    with pytest.raises(ValueError, match=why):
        cost.read(write(tmp_path, rows_of(grid, **change)))


def test_what_is_no_cost_file_is_refused(grid, tmp_path):
    with pytest.raises(ValueError, match="no file"):
        cost.read(tmp_path / "cost.csv")
    with pytest.raises(ValueError, match="lacks experiment"):
        cost.read(write(tmp_path, [{"arm": "bn"}]))
    mixed = [*rows_of(grid), *rows_of(grid, device_kind="Other CPU")]
    with pytest.raises(ValueError, match="mixes device_kind"):
        cost.read(write(tmp_path, mixed))


def test_a_file_of_these_runs_is_found(grid, results, runs):
    write(results, rows_of(grid))
    costs, reasons = cost.choose(runs)
    assert costs is not None
    assert not reasons
    assert costs.machine == runs.runs.machine.iloc[0]


def test_the_newest_that_belongs_counts(grid, results, runs):
    write(results, rows_of(grid))
    newer = rows_of(grid, seconds={"bn": 0.01, "gbn_fast": 0.005}, date="2026-01-03T00:00:00+00:00")
    write(results, newer, "cost-simulated-simulated-cpu-2026-01-03.csv")
    write(results, rows_of(grid, kernels="numba", date="2026-01-04"), "cost-simulated-zzz-2026-01-04.csv")
    costs, reasons = cost.choose(runs)
    assert costs.date == "2026-01-03"
    assert len(reasons) == 1
    assert "kernels numba" in reasons[0]


def test_another_plan_whose_name_begins_alike_is_not_meant(grid, results, runs):
    write(
        results,
        rows_of(grid, experiment="simulated-small"),
        "cost-simulated-small-simulated-cpu-2026-01-02.csv",
    )
    assert cost.choose(runs) == (None, [])


@pytest.mark.parametrize("key", ["device_kind", "torch", "kernels", "numpy", "cuda", "cudnn"])
def test_another_machine_is_refused(grid, results, runs, key):
    path = write(results, rows_of(grid, **{key: "another"}))
    reason = cost.refusal(cost.read(path), runs)
    assert "another" in reason
    assert "Simulated CPU, torch 2.13.0, kernels reference" in reason


def test_another_configuration_is_refused(grid, results, runs):
    rows = rows_of(grid)
    for row in rows:
        if row["arm"] == "gbn_fast":
            row["run_id"] = "another-run-s0-0123456789"
    reason = cost.refusal(cost.read(write(results, rows)), runs)
    assert "other configurations of gbn_fast" in reason


def test_arms_that_the_plan_has_not_are_no_reason(grid, results, runs):
    extra = [row | {"arm": "newcomer", "run_id": "x"} for row in rows_of(grid)]
    assert cost.refusal(cost.read(write(results, [*rows_of(grid), *extra])), runs) is None


def test_runs_made_in_memory_have_no_costs(runs):
    assert cost.choose(dataclasses.replace(runs, results_dir=None)) == (None, [])


def test_sections_show_time_where_costs_are(grid, results):
    comparison = Comparison(load_grid_runs(grid, results), Options())
    assert not [one for one in effects(comparison, "") if one.heading.startswith("Time")]
    write(results, rows_of(grid, noise=0.01, threads=1))
    comparison = Comparison(load_grid_runs(grid, results), Options())
    (time,) = [one for one in effects(comparison, "") if one.heading.startswith("Time")]
    assert [row[0] for row in time.rows] == ["bn", "gbn_fast"]  # the controls were not timed
    assert time.columns == (
        "arm",
        "ms per update",
        "cost",
        "updates to 60 %",
        "time",
        "updates to 80 %",
        "time",
    )
    assert float(time.rows[0][1]) == pytest.approx(10, rel=0.02)
    assert time.rows[0][2:] == ("1 (reference)",) * 5
    assert time.rows[1][2].startswith("1.2")
    assert "8 blocks" in time.notes[0]
    assert "1 thread," in time.notes[0]
    assert "The runs had 2 threads" in time.notes[0]
    numbers = frame(comparison).set_index("quantity")
    assert numbers.loc["cost_of_update", "value_low"] == pytest.approx(1.25, rel=0.02)
    assert len(numbers.loc["time_to_target_by_cost"]) == 2


def test_refused_files_are_said(grid, results):
    write(results, rows_of(grid, kernels="numba"))
    comparison = Comparison(load_grid_runs(grid, results), Options())
    assert not [one for one in effects(comparison, "") if one.heading.startswith("Time")]
    said = [
        note
        for note in footnotes(comparison)
        if note.startswith("Cost of an update not used: cost-simulated")
    ]
    assert len(said) == 1


def test_sections_show_the_chain_with_its_misses(make_grid, tmp_path):
    arms = {
        "bn": Arm(),
        "gbn_fast": Arm(speed=1.5),
        "bn_matched[gbn_fast]": Arm(speed=1.25, norm={"method": "bn_matched"}),
        "bn_reparam[gbn_fast]": Arm(final=0.79, norm={"method": "bn_reparam"}),
    }
    grid = make_grid(arms=arms)
    records = [one for one in grid.records(Machine(clock="shared")) if one.run_id != grid.cells[2].run_ids[7]]
    write_runs(records, tmp_path)
    comparison = Comparison(load_grid_runs(grid, tmp_path), Options())
    (chain,) = effects(comparison, "")
    what = [row[1] for row in chain.rows]
    assert what == ["updates to 60 %", "updates to 80 % †", "area under curve", "last accuracy"]
    assert {row[2] for row in chain.rows} == {"7"}
    assert any("Medians do not multiply" in note for note in chain.notes)
    assert any("gbn_fast (7 of 8)" in note for note in chain.notes)


def test_mixtures_have_a_time_ratio_to_every_target_and_to_the_best_of_the_reference(tmp_path):
    mixture = {"method": "mixture"}
    arms = {
        "bn": Arm(),
        "mixture": Arm(speed=1.5, own_spread=0.03, norm=mixture),
        "mixture_k5": Arm(speed=1.5, own_spread=0.03, norm=mixture),
        "bn_matched[mixture]": Arm(own_spread=0.03),
    }
    grid = SimulatedGrid(arms, controls={"mixture": ["bn_matched[mixture]"]})
    write_runs(grid.records(), tmp_path)
    write(
        tmp_path, rows_of(grid, noise=0.005, seconds=dict(zip(arms, (0.01, 0.02, 0.03, 0.01), strict=True)))
    )
    comparison = Comparison(load_grid_runs(grid, tmp_path), Options())
    (time,) = [one for one in effects(comparison, "") if one.heading.startswith("Time")]
    assert [row[0] for row in time.rows] == ["bn", "mixture", "bn_matched[mixture]", "mixture_k5"]
    assert time.columns[-2:] == ("updates to the maximum of bn", "time")
    assert time.rows[0][2:] == ("1 (reference)",) * 7
    numbers = frame(comparison).set_index(["quantity", "arm"]).value_low.groupby(level=[0, 1]).first()
    for arm, cost_ratio in (("mixture", 1 / 2), ("mixture_k5", 1 / 3), ("bn_matched[mixture]", 1)):
        assert numbers["cost_of_update", arm] == pytest.approx(cost_ratio, rel=0.02)
        updates = comparison.evidence.estimate("", "speedup_to_maximum", arm, "bn", "updates")
        assert numbers["time_to_maximum_by_cost", arm] == pytest.approx(
            updates.value_low * cost_ratio, rel=0.02
        )
    assert numbers["time_to_target_by_cost", "mixture"] == pytest.approx(0.75, rel=0.05)
