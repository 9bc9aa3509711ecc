"""When a run is evaluated, and what all evaluators share.

The points of a curve lie on a geometric grid of updates, fine where curves rise, since a speed-up in updates is
read off where a curve crosses a target. Each point uses one fixed slice of the validation images; every few epochs
and at the end the whole validation and test sets are evaluated as well.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gbn.config.schema import Config
from gbn.data import DeviceSet, InMemory
from gbn.nn import precise_statistics, tracking_layers
from gbn.tasks.updates import precision_context

_FEWEST = 8  # a last batch of fewer images has no exact statistics of its own

Scores = dict[str, float | None]
"""Names of measures and their values; None if undefined."""


def evaluation_grid(first: int, total: int, points: int) -> list[int]:
    """Return the updates after which a point is recorded: `points` geometric steps to `total`.

    Where the grid is finer than one update, neighbors coincide after rounding, so there can be fewer.

    >>> evaluation_grid(5, 100, 5)
    [5, 11, 22, 47, 100]
    """
    first = min(first, total)
    if points == 1:
        return [total]
    ratio = total / first
    return sorted({round(first * ratio ** (i / (points - 1))) for i in range(points)} | {total})


def test_points(every: float, per_epoch: int, total: int) -> list[int]:
    """Return the updates after which the whole sets are evaluated: every `every` epochs, and the last.

    >>> test_points(1.0, 10, 25)
    [10, 20, 25]
    """
    if every == 0:
        return [total]
    count = int(total / (every * per_epoch))
    return sorted({max(1, round(i * every * per_epoch)) for i in range(1, count + 1)} | {total})


def calibration_parts(calibrated: Tensor, size: int) -> list[Tensor]:
    """Split indices (or latents) into batches for exact statistics, which are averages over the batches.

    A small last batch is joined to the one before: statistics of a few images are not worth averaging, and a single
    image has none.

    >>> [len(part) for part in calibration_parts(torch.arange(1001), 500)]
    [500, 501]
    """
    parts = list(calibrated.split(size))
    if len(parts) > 1 and len(parts[-1]) < _FEWEST:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


@contextmanager
def restored_modes(*models: nn.Module) -> Iterator[None]:
    """Restore the mode (training or evaluation) of every module afterwards."""
    modes = {module: module.training for model in models for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def inference(model: nn.Module, autocast: AbstractContextManager[object]) -> Iterator[None]:
    """Put the model into evaluation mode, without gradients; modes are restored afterwards."""
    with restored_modes(model), torch.no_grad(), autocast:
        model.eval()
        yield


class Evaluator(ABC):
    """Measures a run's network and shows what it does.

    Args:
        config: the run's.
        device: of the model.

    Attributes:
        batch: images per forward pass; it changes memory and no result.
        has_test: whether there are whole sets to evaluate besides the points' slice.
    """

    batch: ClassVar[int] = 500
    has_test: ClassVar[bool] = False

    def __init__(self, config: Config, device: torch.device) -> None:
        self.exact = config.trainer.evaluation.exact
        self.autocast = precision_context(config.trainer.precision, device)

    def evaluated(self, model: nn.Module) -> nn.Module:
        """Return the part of the model that is evaluated."""
        return model

    @abstractmethod
    def measure(self, model: nn.Module) -> Scores:
        """Return the measures of a point, with the model's present statistics."""

    @abstractmethod
    def calibration_batches(self, model: nn.Module) -> Iterable[Tensor]:
        """Yield the inputs that exact statistics are computed from."""

    @abstractmethod
    def best(self, curve: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the best points of a curve, for the run's summary."""

    def point(self, model: nn.Module) -> Scores:
        """Return the measures of a point with running statistics and, if configured, with exact ones (``_exact``).

        Running statistics lag behind the weights. A network that tracks none has no exact ones either.
        """
        point = self.measure(model)
        if self.exact and tracking_layers(self.evaluated(model)):
            with self.exact_statistics(model):
                point |= {f"{key}_exact": value for key, value in self.measure(model).items()}
        return point

    @contextmanager
    def exact_statistics(self, model: nn.Module) -> Iterator[None]:
        """Give the network statistics recomputed over fixed inputs, if it tracks any, within this context."""
        network = self.evaluated(model)

        def forward(batch: Tensor) -> None:
            with self.autocast():
                network(batch)

        batches = self.calibration_batches(model) if tracking_layers(network) else ()
        with precise_statistics(network, batches, forward):
            yield

    def whole(self, model: nn.Module) -> Scores:
        """Return the measures of the whole validation and test sets, if the task has them."""
        return {}

    def final(self, model: nn.Module) -> dict[str, Any]:
        """Return what only a finished run has, for its summary."""
        return {}

    def pictures(self, model: nn.Module, *, last: bool) -> dict[str, bytes]:
        """Return PNG files by name; more of them at the last update."""
        return {}

    def recorded(self) -> tuple[DeviceSet, Tensor] | None:
        """Return the training set and the indices of the images to record layers with; None without labels."""
        return None


class SupervisedEvaluator(Evaluator):
    """Scores a network with targets on a slice of the validation part, and on the whole validation and test parts.

    Args:
        config, device: as in :class:`Evaluator`.
        train: the training images.
        calibration: indices of the training images that exact statistics are computed from, int64 (c,).
        points: indices of the validation images that a point is measured on, int64 (v,).

    Attributes:
        quality: the score by which the best points are selected.
    """

    has_test = True
    quality: ClassVar[str]

    def __init__(
        self, config: Config, device: torch.device, train: InMemory, calibration: Tensor, points: Tensor
    ) -> None:
        super().__init__(config, device)
        self.train, self.calibration, self.slice = train, calibration, points

    @abstractmethod
    def scores(self, model: nn.Module, part: Literal["val", "test"], indices: Tensor | None = None) -> Scores:
        """Return ``loss`` and the task's scores of a part, or of the images at ``indices``."""

    def calibration_batches(self, model: nn.Module) -> Iterable[Tensor]:
        """Yield training images, not augmented."""
        return (self.train.batch(part)[0] for part in calibration_parts(self.calibration, self.batch))

    def measure(self, model: nn.Module) -> Scores:
        """Return loss and scores of the slice."""
        return _named("val", self.scores(model, "val", self.slice))

    def whole(self, model: nn.Module) -> Scores:
        """Return loss and scores of the test part, and scores of the whole validation part."""
        found = _named("test", self.scores(model, "test")) | _named("val_full", self.scores(model, "val"))
        del found["val_full_loss"]
        return found

    def best(self, curve: list[dict[str, Any]]) -> dict[str, Any]:
        """See :func:`best_points`."""
        return best_points(curve, self.quality)


def _named(part: str, scores: Scores) -> Scores:
    return {f"{part}_{key}": value for key, value in scores.items()}


def best_points(curve: list[dict[str, Any]], quality: str) -> dict[str, dict[str, Any] | None]:
    """Return the two selections besides the last epoch, among points that saw the whole validation and test parts.

    ``best_by_validation`` is what an honest early stop would deliver; ``best_on_test`` looks at the answer and is
    reported because papers do.
    """
    val, full, test = f"val_{quality}", f"val_full_{quality}", f"test_{quality}"
    whole = [point for point in curve if point.get(test) is not None]
    if not whole:
        return {"best_by_validation": None, "best_on_test": None}
    chosen = max(whole, key=lambda point: point[full] or 0.0)  # the first among equals
    on_test = max(whole, key=lambda point: point[test])
    return {
        "best_by_validation": {"update": chosen["update"], val: chosen[full], test: chosen[test]},
        "best_on_test": {"update": on_test["update"], test: on_test[test]},
    }
