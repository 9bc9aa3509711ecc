"""The grid of points, the slices they are measured on, exact against running statistics, the selections."""

import contextlib
import itertools

import pytest
import torch
from torch import nn

from gbn.data import load
from gbn.engine.build import build_model, task_of
from gbn.tasks.classification.task import Classification
from gbn.tasks.evaluation import best_points, calibration_parts, evaluation_grid
from gbn.tasks.evaluation import test_points as points_of_tests


def test_the_grid_is_geometric_and_ends_with_the_run():
    grid = evaluation_grid(5, 5000, 40)
    assert (grid[0], grid[-1], len(grid)) == (5, 5000, 40)
    ratios = [b / a for a, b in itertools.pairwise(grid[10:])]
    assert max(ratios) < 1.25
    assert min(ratios) > 1.15
    assert evaluation_grid(5, 3, 40) == [3]
    assert evaluation_grid(1, 4, 100) == [1, 2, 3, 4]
    assert evaluation_grid(5, 100, 1) == [100]


@pytest.mark.parametrize(
    ("every", "per_epoch", "total", "expected"),
    [(1.0, 10, 25, [10, 20, 25]), (0.5, 10, 20, [5, 10, 15, 20]), (0, 10, 25, [25]), (5.0, 10, 20, [20])],
)
def test_whole_sets_are_seen_every_few_epochs_and_at_the_end(every, per_epoch, total, expected):
    assert points_of_tests(every, per_epoch, total) == expected


def test_exact_statistics_leave_the_model_as_it_was_and_see_past_the_lag(small):
    images = load("digits")
    config = small("norm=gbn_cvar", "trainer.evaluation.images=100")
    model = build_model(config, images)
    loader, evaluator, _ = task_of(config).build(config, images, torch.device("cpu"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    point = evaluator.point(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    # Running statistics still stand at their start, (0, 1), while the batches' are far from it.
    assert point["val_loss"] != pytest.approx(point["val_loss_exact"], rel=1e-3)
    assert len(evaluator.slice) == 100
    assert not set(evaluator.slice.tolist()) & set(loader.indices.tolist())
    assert not set(evaluator.calibration.tolist()) - set(loader.indices.tolist())


@pytest.mark.parametrize(
    ("images", "parts"),
    [(1, [1]), (500, [500]), (501, [501]), (507, [507]), (508, [500, 8]), (1001, [500, 501])],
)
def test_a_small_last_part_of_the_calibration_images_is_joined_to_the_one_before(images, parts):
    found = calibration_parts(torch.arange(images), 500)
    assert [len(part) for part in found] == parts
    assert torch.equal(torch.cat(found), torch.arange(images))


def test_evaluation_is_in_evaluation_mode_and_puts_the_mode_back():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Dropout(0.9)).train()
    batches = [(torch.randn(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64))]
    task = Classification(label_smoothing=0.3)
    first = task.evaluate(model, batches, contextlib.nullcontext())
    assert first == task.evaluate(model, batches, contextlib.nullcontext())
    assert model.training
    logits = model.eval()(batches[0][0])
    assert first["loss"] == pytest.approx(nn.functional.cross_entropy(logits, batches[0][1]).item(), rel=1e-6)
    with pytest.raises(ValueError, match="nothing to evaluate on"):
        task.evaluate(model, [], contextlib.nullcontext())


def test_the_three_selections_are_separate():
    curve = [
        {"update": 1, "val_accuracy": 0.99},  # a slice only: no candidate
        {"update": 2, "val_full_accuracy": 0.7, "test_accuracy": 0.6},
        {"update": 3, "val_full_accuracy": 0.6, "test_accuracy": 0.8},
        {"update": 4, "val_full_accuracy": 0.5, "test_accuracy": 0.7},
    ]
    best = best_points(curve, "accuracy")
    assert best["best_by_validation"] == {"update": 2, "val_accuracy": 0.7, "test_accuracy": 0.6}
    assert best["best_on_test"] == {"update": 3, "test_accuracy": 0.8}
    assert best_points(curve[:1], "accuracy") == {"best_by_validation": None, "best_on_test": None}
