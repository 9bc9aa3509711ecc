"""When and on what a run is evaluated.

The points of a curve lie on a geometric grid of updates, fine where curves rise, since a speed-up in updates is
read off where a curve crosses a target. Each point uses one fixed slice of the validation images; every few epochs
and at the end the whole validation and test sets are seen as well.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from gbn.data import DeviceSet, subset
from gbn.nn import precise_statistics, tracking_layers
from gbn.tasks.classification.task import Classification

BATCH = 500  # images a forward pass in evaluation: results don't depend on it, memory does
_FEWEST = 8  # images that a last batch has exact statistics of its own from


def evaluation_grid(first: int, total: int, points: int) -> list[int]:
    """Updates after which a point is recorded: `points` geometric steps from `first` to `total`, both included.

    Rounding makes neighbors fall together where the grid is finer than one update, so there can be fewer.

    >>> evaluation_grid(5, 100, 5)
    [5, 11, 22, 47, 100]
    """
    first = min(first, total)
    if points == 1:
        return [total]
    ratio = total / first
    return sorted({round(first * ratio ** (i / (points - 1))) for i in range(points)} | {total})


def test_points(every: float, per_epoch: int, total: int) -> list[int]:
    """Updates after which the whole validation and test sets are seen: every `every` epochs, and the last.

    >>> test_points(1.0, 10, 25)
    [10, 20, 25]
    """
    if every == 0:
        return [total]
    count = int(total / (every * per_epoch))
    return sorted({max(1, round(i * every * per_epoch)) for i in range(1, count + 1)} | {total})


def calibration_parts(calibrated: Tensor, size: int = BATCH) -> list[Tensor]:
    """Indices (or latents) in batches for exact statistics, which are averages over the batches.

    A small last batch is joined to the one before: a few images have no statistics worth an average, one has none.

    >>> [len(part) for part in calibration_parts(torch.arange(1001))]
    [500, 501]
    """
    parts = list(calibrated.split(size))
    if len(parts) > 1 and len(parts[-1]) < _FEWEST:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


class Evaluator:
    """Evaluates a model on the validation slice, the whole validation set and the test set.

    Args:
        task: loss and accuracy.
        train: the training part's images.
        test: the test images.
        validation: indices of the validation images in ``train``, int64 (v,).
        calibration: indices of the training images that exact statistics are computed from, int64 (c,).
        slice_images: size of the fixed validation slice (all of the validation images if that is fewer).
        exact: whether to evaluate with exact statistics beside the running ones.
        autocast: makes the precision context of a forward pass.
    """

    has_test = True

    def __init__(
        self,
        task: Classification,
        train: DeviceSet,
        test: DeviceSet,
        *,
        validation: Tensor,
        calibration: Tensor,
        slice_images: int,
        exact: bool,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.task, self.train, self.test = task, train, test
        self.validation, self.calibration = validation, calibration
        size = min(slice_images, len(validation))
        labels = train.labels.cpu()
        self.slice = subset(labels, size, validation) if size < len(validation) else validation
        self.exact = exact
        self.autocast = autocast

    def point(self, model: nn.Module) -> dict[str, float]:
        """Loss and accuracy on the slice, with running and (if asked for and there are any) exact statistics."""
        loss, accuracy = self._on(model, self.train, self.slice)
        point = {"val_loss": loss, "val_accuracy": accuracy}
        if self.exact and tracking_layers(model):
            batches = map(self.train.batch, calibration_parts(self.calibration))
            with self.autocast(), precise_statistics(model, batches):
                loss, accuracy = self._on(model, self.train, self.slice)
            point |= {"val_loss_exact": loss, "val_accuracy_exact": accuracy}
        return point

    def whole(self, model: nn.Module) -> dict[str, float]:
        """Accuracy on all validation images, loss and accuracy on all test images."""
        loss, accuracy = self._on(model, self.test, torch.arange(len(self.test)))
        _, validation = self._on(model, self.train, self.validation)
        return {"test_loss": loss, "test_accuracy": accuracy, "val_full_accuracy": validation}

    def best(self, curve: list[dict[str, Any]]) -> dict[str, Any]:
        """The selections of a curve, for the run's summary."""
        return best_points(curve)

    def final(self, model: nn.Module) -> dict[str, Any]:
        """Nothing that the curve's last point does not hold."""
        return {}

    def pictures(self, model: nn.Module, *, last: bool) -> dict[str, bytes]:
        """None: a classifier has nothing to look at."""
        return {}

    def _on(self, model: nn.Module, data: DeviceSet, indices: Tensor) -> tuple[float, float]:
        return self.task.evaluate(model, data.batches(indices, BATCH), self.autocast())


def best_points(curve: list[dict[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """The two selections beside the last epoch, among points that saw the whole validation and test sets.

    ``best_by_validation`` is what an honest early stop would deliver; ``best_on_test`` looks at the answer and is
    reported because papers do.
    """
    whole = [point for point in curve if point.get("test_accuracy") is not None]
    if not whole:
        return {"best_by_validation": None, "best_on_test": None}
    by_validation = max(whole, key=lambda point: point["val_full_accuracy"] or 0.0)  # the first among equals
    on_test = max(whole, key=lambda point: point["test_accuracy"])
    return {
        "best_by_validation": {
            "update": by_validation["update"],
            "val_accuracy": by_validation["val_full_accuracy"],
            "test_accuracy": by_validation["test_accuracy"],
        },
        "best_on_test": {"update": on_test["update"], "test_accuracy": on_test["test_accuracy"]},
    }
