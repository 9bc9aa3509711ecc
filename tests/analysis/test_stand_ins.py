"""Networks without statistics over batches, where the measure asks for exact ones."""

import dataclasses

import numpy as np
import pytest
import torch

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.runs.columns import UNTRACKED
from gbn.analysis.runs.load import load_grid_runs
from gbn.nn import norm_layer, tracking_layers
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_files

EXACT = "val_dice_exact"


@pytest.fixture
def compared(tmp_path):
    def make(method, keep=()):
        """Two arms that are measured exactly; the second's curve lacks the exact keys but those of some seeds."""
        arms = {"bn": Arm(), "other": Arm(speed=2, norm={"method": method})}
        grid = SimulatedGrid(arms, range(3), measure=EXACT, thresholds=(0.5,))
        records = [grid.record("", "bn", seed) for seed in range(3)]
        for seed in range(3):
            record = grid.record("", "other", seed)
            curve = [
                {
                    "val_dice" if key == EXACT and seed not in keep else key: value
                    for key, value in point.items()
                }
                for point in record.curve
            ]
            records.append(dataclasses.replace(record, curve=curve))
        write_files(records, tmp_path)
        return grid, Comparison(load_grid_runs(grid, tmp_path))

    return make


@pytest.mark.parametrize("method", UNTRACKED)
def test_plain_values_stand_in_and_a_note_says_so(compared, method):
    grid, comparison = compared(method)
    (values,) = comparison.runs.columns("", "other", 1, (EXACT,))
    plain = [point[EXACT] for point in grid.record("", "other", 1).curve]
    assert values.tolist() == plain
    assert f"other: no statistics over batches, so that val_dice is {EXACT} there." in comparison.runs.notes
    speed = comparison.evidence.estimate("", "speedup_to_target", "other", "bn", "updates", 0.5)
    assert (speed.n, speed.arm_misses) == (3, 0)
    assert speed.value_low == pytest.approx(2, rel=0.05)


def test_a_method_that_has_statistics_has_no_stand_in(compared):
    _, comparison = compared("gbn")
    (values,) = comparison.runs.columns("", "other", 1, (EXACT,))
    assert np.isnan(values).all()
    assert not any("no statistics" in note for note in comparison.runs.notes)


def test_a_run_with_exact_values_keeps_them(compared):
    """Placed somewhere only, with batch normalization elsewhere, such a method does leave exact values."""
    grid, comparison = compared("group", keep=(1,))
    (values,) = comparison.runs.columns("", "other", 1, (EXACT,))
    assert values.tolist() == [point[EXACT] for point in grid.record("", "other", 1).curve]
    assert not comparison.runs.points.stands_in(("", "other", 1), EXACT)
    assert comparison.runs.points.stands_in(("", "other", 0), EXACT)


@pytest.mark.parametrize("method", UNTRACKED)
def test_these_methods_have_nothing_to_take_exactly(method):
    layer = norm_layer(method, **({"groups": 2} if method == "group" else {}))(4, act="relu", dim=2)
    layer(torch.randn(3, 4, 5, 5))
    assert not list(tracking_layers(torch.nn.Sequential(layer)))
