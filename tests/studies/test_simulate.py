"""The simulation is what it says: deterministic, paired, of known speed."""

import pytest

from gbn.store.identity import run_id_of
from gbn.studies.validation.simulate import Arm, SimulatedGrid


def test_runs_are_a_function_of_setting_arm_and_seed():
    grid = SimulatedGrid({"bn": Arm(), "gbn": Arm(speed=2)})
    assert grid.record("", "gbn", 3) == grid.record("", "gbn", 3)
    assert grid.record("", "gbn", 3).curve != grid.record("", "gbn", 4).curve


def test_an_arm_of_speed_two_needs_half_the_updates():
    grid = SimulatedGrid({"bn": Arm(noise=0, spread=0), "gbn": Arm(noise=0, spread=0, speed=2)})
    for arm, speed in (("bn", 1), ("gbn", 2)):
        for point in grid.record("", arm, 1).curve:
            assert point["val_accuracy"] == pytest.approx(0.9 * (1 - 1 / (1 + point["update"] * speed / 40)))


def test_records_are_consistent():
    record = SimulatedGrid({"bn": Arm()}).record("", "bn", 0)
    assert run_id_of(record.summary["identity"]) == record.run_id
    assert record.summary["final"] == record.curve[-1]
    assert record.summary["updates"] == record.curve[-1]["update"] == 2000


def test_divergence_ends_the_curve_with_a_marked_point():
    record = SimulatedGrid({"bn": Arm(diverges_at=100)}).record("", "bn", 0)
    assert record.status == "diverged"
    assert record.curve[-1]["diverged"] is True
    assert record.curve[-1]["update"] == record.summary["diverged_at"] == 100
    assert record.curve[-1]["val_accuracy"] is None
