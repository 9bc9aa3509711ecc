"""The points of a segmentation's curve: agreement with drawn masks, and what one looks at.

Each point scores a fixed slice of the validation part, every few epochs and at the end the whole validation and test
parts are scored as well. With running statistics, and (``_exact``) with statistics recomputed over fixed training
slices that are not warped.
"""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gbn.data import subset
from gbn.data.segmentation.segmentation_set import SegmentationSet, Slices, SliceSet
from gbn.nn import precise_statistics, tracking_layers
from gbn.tasks.classification.evaluation import calibration_parts
from gbn.tasks.segmentation.task import Segmentation

BATCH = 64  # slices a forward pass in evaluation: results don't depend on it, memory does


class SegmentationEvaluator:
    """Scores one run's network, and shows what it draws.

    Args:
        task: loss and scores.
        data: the three parts.
        train: the training part on the device.
        calibration: how many of its slices exact statistics are computed from, at most.
        slices: how many validation slices a point scores, at most; every patient gives its share.
        exact: whether to evaluate with exact statistics beside the running ones.
        autocast: makes the precision context of a forward pass.
        channels_last: memory format of the images of a batch.
    """

    has_test = True

    def __init__(
        self,
        task: Segmentation,
        data: SegmentationSet,
        train: SliceSet,
        *,
        calibration: int,
        slices: int,
        exact: bool,
        autocast: Callable[[], AbstractContextManager[object]],
        channels_last: bool,
    ) -> None:
        self.task, self.data, self.train, self.exact, self.autocast = task, data, train, exact, autocast
        device = train.images.device
        self.val, self.test = (
            SliceSet(part, device=device, channels_last=channels_last) for part in (data.val, data.test)
        )
        self.calibration = _share(data.train, calibration)
        self.slice = _share(data.val, slices)

    def point(self, model: nn.Module) -> dict[str, float | None]:
        """Loss and scores on the slice, with running and (if asked for and there are any) exact statistics."""
        point = self._on(model, "val", self.val, self.data.val, self.slice)
        if self.exact and tracking_layers(model):
            batches = map(self.train.batch, calibration_parts(self.calibration, BATCH))
            with self.autocast(), precise_statistics(model, batches):
                measured = self._on(model, "val", self.val, self.data.val, self.slice)
            point |= {f"{key}_exact": value for key, value in measured.items()}
        return point

    def whole(self, model: nn.Module) -> dict[str, float | None]:
        """Loss and scores of all test and of all validation slices."""
        test = self._on(model, "test", self.test, self.data.test)
        validation = self._on(model, "val_full", self.val, self.data.val)
        del validation["val_full_loss"]
        return test | validation

    def best(self, curve: list[dict[str, Any]]) -> dict[str, Any]:
        """The selections of a curve by Dice, among points that saw the whole validation and test parts."""
        seen = [point for point in curve if point.get("test_dice") is not None]
        if not seen:
            return {"best_by_validation": None, "best_on_test": None}
        by_validation = max(seen, key=lambda point: point["val_full_dice"])  # the first among equals
        on_test = max(seen, key=lambda point: point["test_dice"])
        return {
            "best_by_validation": {
                "update": by_validation["update"],
                "val_dice": by_validation["val_full_dice"],
                "test_dice": by_validation["test_dice"],
            },
            "best_on_test": {"update": on_test["update"], "test_dice": on_test["test_dice"]},
        }

    def final(self, model: nn.Module) -> dict[str, Any]:
        """Under ``patients``: a row of scores a structure and test patient, and one of all."""
        predicted, drawn = self.masks(model, "test")
        part = self.data.test
        rows = self.task.patients(predicted, drawn, part.patients, part.pixel_size, self.data.patients)
        return {"patients": [_finite(asdict(row)) for row in rows]}

    def pictures(self, model: nn.Module, *, last: bool) -> dict[str, bytes]:
        """PNG files: ``overlay``, of the best, median and worst validation patient; at the end also ``areas``.

        ``areas`` is the Bland-Altman plot of the first structure's areas on the test part, if that has the two
        patients that limits of agreement need. With running statistics.
        """
        found = {"overlay": self._overlay(model)}
        if last and len(self.data.test.patients.unique()) > 1:
            found["areas"] = self._areas(model)
        return found

    def _overlay(self, model: nn.Module) -> bytes:
        from gbn.tasks.segmentation.figures import Overlay, overlay_figure, representatives

        predicted, drawn = self.masks(model, "val")
        part = self.data.val
        dice = self.task.scores(predicted, drawn, part.pixel_size).dice.nanmean(1).tolist()
        names = [self.data.patients[index] for index in part.patients.tolist()]
        cases = [
            Overlay(
                f"{which}: patient {names[index]}, Dice {dice[index]:.2f}",
                part.images[index, 0].numpy(),
                drawn[index].numpy(),
                predicted[index].numpy(),
            )
            for which, index in representatives(dice, names).items()
        ]
        return _png(overlay_figure(cases, self.data.structures))

    def _areas(self, model: nn.Module) -> bytes:
        from gbn.tasks.segmentation.figures import bland_altman_figure

        predicted, drawn = self.masks(model, "test")
        part, structure = self.data.test, self.data.structures[0]
        areas = [areas_of(masks, part).tolist() for masks in (predicted, drawn)]
        names = [self.data.patients[index] for index in part.patients.tolist()]
        name = f"test part, {len(names)} slices"
        return _png(bland_altman_figure({name: (areas[0], areas[1])}, names, f"{self.data.unit}²", structure))

    def _on(
        self, model: nn.Module, name: str, part: SliceSet, slices: Slices, indices: Tensor | None = None
    ) -> dict[str, float | None]:
        indices = torch.arange(len(part)) if indices is None else indices
        scores = self.task.evaluate(
            model,
            part.batches(indices, BATCH),
            self.autocast(),
            patients=slices.patients[indices],
            pixel_size=slices.pixel_size[indices],
        )
        return _finite({f"{name}_{key}": value for key, value in scores.items()})

    def masks(self, model: nn.Module, name: Literal["val", "test"]) -> tuple[Tensor, Tensor]:
        """Predicted and drawn masks of a part, bool (N, K, H, W) on the CPU; with running statistics."""
        part = {"val": self.val, "test": self.test}[name]
        found = self.task.predict(model, part.batches(torch.arange(len(part)), BATCH), self.autocast())
        return found[:2]


def areas_of(masks: Tensor, part: Slices) -> Tensor:
    """Area of the first structure on each slice, float64 (N,), in the square of the set's unit."""
    return masks[:, 0].sum((1, 2)) * part.pixel_size.double().prod(1)


def _share(part: Slices, count: int) -> Tensor:
    """Indices of at most `count` slices, each patient giving its share; the same for every seed."""
    return torch.arange(len(part)) if count >= len(part) else subset(part.patients, count)


def _finite(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores with None for what is not defined, such as the distance of contours of which none was found."""
    return {key: None if value != value else value for key, value in scores.items()}


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
