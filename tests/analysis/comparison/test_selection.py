"""Selections between stages: ranking, exclusions, rates, and the committed second stages against their first."""

from pathlib import Path

import pytest

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.selection import best_rates, check, rank_by_area, selecting
from gbn.analysis.runs.load import NothingFound, load_grid_runs
from gbn.config.grid import FULL, load_grid, outline, scales
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs

ROOT = Path(__file__).resolve().parents[3]
LEVELS = {f"lr_{rate}": {"optimizer.lr": rate} for rate in ("0.1", "0.2", "0.4")}
RATES = {"settings": tuple(LEVELS), "levels": LEVELS}


def compared(grid, folder, drop=()):
    write_runs([record for record in grid.records() if record.run_id not in drop], folder)
    return Comparison(load_grid_runs(grid, folder)).times


def test_arms_are_ranked_by_area_and_broken_ones_stand_last(tmp_path):
    arms = {
        "bn": Arm(),
        "slow": Arm(speed=0.5),
        "fast": Arm(speed=4.0),
        "broken": Arm(speed=9.0, diverges_at=100),
        "holed": Arm(speed=9.0),
    }
    grid = SimulatedGrid(arms, seeds=range(3))
    lost = next(cell.run_ids[1] for cell in grid.cells if cell.label == "holed")
    ranked = rank_by_area(compared(grid, tmp_path, drop={lost}))
    assert [one.arm for one in ranked] == ["fast", "slow", "broken", "holed"]
    assert [one.out for one in ranked] == ["", "", "3 diverged", "1 of 3 runs missing"]
    assert ranked[0].value > ranked[1].value


def with_validation(grid, accuracy):
    """The grid's records with a given whole-validation accuracy at the last point."""
    for record in grid.records():
        setting, arm = record.config["model"]["name"], record.config["norm"]["name"]
        record.curve[-1]["val_full_accuracy"] = accuracy[arm][setting]
        yield record


def test_each_arm_gets_its_own_best_rate_and_an_end_is_said(tmp_path):
    grid = SimulatedGrid({"bn": Arm(), "gbn": Arm()}, seeds=range(2), **RATES)
    settings = grid.settings
    accuracy = {
        "bn": dict(zip(settings, (0.5, 0.7, 0.6), strict=True)),
        "gbn": dict(zip(settings, (0.5, 0.6, 0.8), strict=True)),
    }
    write_runs(list(with_validation(grid, accuracy)), tmp_path)
    times = Comparison(load_grid_runs(grid, tmp_path)).times
    bn, gbn = best_rates(times)
    assert (bn.rate, bn.at_an_end) == ("0.2", False)
    assert (gbn.rate, gbn.at_an_end) == ("0.4", True)
    chosen = {("", "bn"): ["norm=bn", "optimizer.lr=0.2"], ("", "gbn"): ["norm=gbn_mad", "optimizer.lr=0.4"]}
    assert check({"rule": "rate"}, chosen, times) is None
    assert "gbn should train at optimizer.lr=0.4" in check(
        {"rule": "rate"}, chosen | {("", "gbn"): []}, times
    )


def test_an_arm_has_a_rate_in_each_setting_of_the_second_stage(tmp_path):
    levels = {
        f"{group}_at_{rate}": {"group": group, "optimizer.lr": rate}
        for group in ("one", "two")
        for rate in ("0.1", "0.2", "0.4")
    }
    settings = tuple(levels)
    grid = SimulatedGrid({"bn": Arm(), "gbn": Arm()}, seeds=range(2), settings=settings, levels=levels)
    accuracy = {
        "bn": dict(zip(settings, (0.5, 0.7, 0.6, 0.8, 0.7, 0.6), strict=True)),
        "gbn": dict(zip(settings, (0.5, 0.7, 0.6, 0.6, 0.7, 0.65), strict=True)),
    }
    # As BN at batch 1: not a single finished run in one of the settings.
    kept = [
        record
        for record in with_validation(grid, accuracy)
        if (record.config["norm"]["name"], record.config["model"]["name"][:3]) != ("bn", "one")
    ]
    write_runs(kept, tmp_path)
    times = Comparison(load_grid_runs(grid, tmp_path)).times
    assert [(best.group, best.arm, best.rate, best.at_an_end) for best in best_rates(times)] == [
        ("one", "gbn", "0.2", False),
        ("two", "bn", "0.1", True),
        ("two", "gbn", "0.2", False),
    ]
    rate = {("one", "gbn"): "0.2", ("two", "bn"): "0.1", ("two", "gbn"): "0.2"}
    chosen = {cell: ["optimizer.lr=9", f"optimizer.lr={value}"] for cell, value in rate.items()}
    assert check({"rule": "rate"}, chosen, times) is None
    chosen["two", "bn"].append("optimizer.lr=0.2")
    assert "bn in two should train at optimizer.lr=0.1" in check({"rule": "rate"}, chosen, times)


def test_a_diverged_run_counts_as_chance_and_unequal_budgets_are_refused(tmp_path):
    grid = SimulatedGrid({"bn": Arm(diverges_at=50)}, seeds=range(2), **RATES)
    best = best_rates(compared(grid, tmp_path))[0]
    assert set(best.values.values()) == {0.1}
    lost = grid.cells[0].run_ids[1]
    with pytest.raises(ValueError, match="1 of 2 runs are there"):
        best_rates(compared(grid, tmp_path / "holed", drop={lost}))
    with pytest.raises(
        ValueError, match="setting '' of simulated has no learning rate to choose: name it by an axis"
    ):
        best_rates(compared(SimulatedGrid({"bn": Arm()}, seeds=range(2)), tmp_path / "plain"))


def test_a_selection_by_area_names_what_is_lacking(tmp_path):
    grid = SimulatedGrid({"bn": Arm(), "a": Arm(speed=2.0), "b": Arm(speed=0.5)}, seeds=range(2))
    times = compared(grid, tmp_path)
    selected = {"rule": "area", "top": 1}
    assert check(selected, {("", "a"): []}, times) is None
    assert "not among the arms: a" in check(selected, {("", "b"): []}, times)
    assert check(selected | {"without": ["a"]}, {("", "b"): []}, times) is None
    with pytest.raises(ValueError, match="use area or rate"):
        check({"rule": "taste"}, {}, times)


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "experiments").glob("*/sweep.yaml")), ids=lambda p: p.parent.name
)
def test_committed_second_stages_are_what_the_archive_selects(folder):
    selected = [scale for scale in (FULL, *scales(folder.parent)) if outline(folder.parent, scale).selected]
    if not selected:
        pytest.skip("rests on no selection")
    for scale in selected:
        grid = load_grid(folder.parent, scale)
        first = load_grid(ROOT / "experiments" / grid.selected["experiment"], grid.selected["scale"])
        try:
            runs = load_grid_runs(first, ROOT / "results", "archive")
        except NothingFound as nothing:
            pytest.fail(f"the first stage is not archived: {nothing}")
        arms = {(cell.setting, cell.label): list(cell.overrides) for cell in grid.cells}
        assert check(grid.selected, arms, Comparison(runs).times) is None


def test_where_lower_is_better_the_smallest_area_and_value_win(tmp_path):
    arms = {"bn": Arm(final=0.02), "fast": Arm(speed=3, final=0.02), "wild": Arm(final=0.02)}
    grid = SimulatedGrid(arms, range(2), **RATES, measure="kid_own_1a2b3c4d", start=0.4)
    records = []
    for record in grid.records():
        setting, arm = record.config["model"]["name"], record.config["norm"]["name"]
        record.curve[-1]["kid_own_1a2b3c4d"] = {"lr_0.1": 0.03, "lr_0.2": 0.02, "lr_0.4": 0.05}[setting]
        if arm == "wild" and setting == "lr_0.2":  # its best rate, but it diverges
            record.summary.update({"status": "diverged", "diverged_at": record.summary["updates"]})
        records.append(record)
    write_runs(records, tmp_path)
    times = Comparison(load_grid_runs(grid, tmp_path)).times
    assert [one.arm for one in rank_by_area(times, "lr_0.1")] == ["fast", "wild"]
    assert selecting(times).key == "kid_own_1a2b3c4d"
    best = {one.arm: one for one in best_rates(times)}
    assert {arm: one.rate for arm, one in best.items()} == {"bn": "0.2", "fast": "0.2", "wild": "0.1"}
    assert best["wild"].values["0.2"] == float("inf")
