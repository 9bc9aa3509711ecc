"""Evaluation of a segmentation: agreement with drawn masks, and pictures of it.

Each point scores a fixed slice of the validation part; every few epochs and at the end the whole validation and test
parts are scored as well. Exact statistics are computed over fixed training slices that are not warped.
"""

import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from gbn.config.schema import Config
from gbn.data import subset
from gbn.data.segmentation.segmentation_set import SegmentationSet, Slices, SliceSet
from gbn.tasks.evaluation import Scores, SupervisedEvaluator
from gbn.tasks.segmentation.contours import PatientScores, score_patients, score_slices, summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gbn.tasks.segmentation.task import Segmentation


class SegmentationEvaluator(SupervisedEvaluator):
    """Scores the network of a run, and draws its contours.

    Args:
        config: the run's; every patient contributes its share to the validation slices of a point, and to the
            training slices of exact statistics.
        task: loss and scores.
        data: the three parts.
        train: the training part on the device.
    """

    batch = 64
    quality = "dice"

    def __init__(self, config: Config, task: "Segmentation", data: SegmentationSet, train: SliceSet) -> None:
        options, device = config.trainer.evaluation, train.images.device
        calibration = _share(data.train, options.calibration_images)
        super().__init__(config, device, train, calibration, _share(data.val, options.images))
        self.task, self.data = task, data
        self.val, self.test = (
            SliceSet(part, device=device, channels_last=config.trainer.channels_last)
            for part in (data.val, data.test)
        )

    def scores(self, model: nn.Module, part: Literal["val", "test"], indices: Tensor | None = None) -> Scores:
        """Return ``loss`` and the scores over patients."""
        images, slices = {"val": (self.val, self.data.val), "test": (self.test, self.data.test)}[part]
        indices = torch.arange(len(slices)) if indices is None else indices
        predicted, drawn, loss = self.task.predict(
            model, images.batches(indices, self.batch), self.autocast()
        )
        rows = self._patients(predicted, drawn, slices, indices)
        return _finite({"loss": loss, **summary(rows, self.data.unit)})

    def _patients(
        self, predicted: Tensor, drawn: Tensor, part: Slices, indices: Tensor
    ) -> list[PatientScores]:
        """Return the scores per patient and over all patients, of masks at ``indices`` of a part."""
        scores = score_slices(predicted, drawn, part.pixel_size[indices])
        return score_patients(scores, part.patients[indices], self.data.patients, self.data.structures)

    def final(self, model: nn.Module) -> dict[str, Any]:
        """Return under ``patients`` one row of scores per structure and test patient, and one of all patients."""
        predicted, drawn = self.masks(model, "test")
        rows = self._patients(predicted, drawn, self.data.test, torch.arange(len(drawn)))
        return {"patients": [_finite(asdict(row)) for row in rows]}

    def pictures(self, model: nn.Module, *, last: bool) -> dict[str, bytes]:
        """Return ``overlay``, of the best, median and worst validation patient; at the end also ``areas``.

        ``areas`` is the Bland-Altman plot of the first structure's areas on the test part, if that has the two
        patients that limits of agreement need. Running statistics are used.
        """
        predicted, drawn = self.masks(model, "val")
        found = {"overlay": overlays(self.data, self.data.val, drawn, {"predicted": predicted})}
        if last and len(self.data.test.patients.unique()) > 1:
            predicted, drawn = self.masks(model, "test")
            name = f"test part, {len(drawn)} slices"
            found["areas"] = areas(self.data, self.data.test, drawn, {name: predicted})
        return {name: _png(figure) for name, figure in found.items()}

    def masks(self, model: nn.Module, name: Literal["val", "test"]) -> tuple[Tensor, Tensor]:
        """Return predicted and drawn masks of a part, bool (N, K, H, W) on the CPU; with running statistics."""
        part = {"val": self.val, "test": self.test}[name]
        found = self.task.predict(model, part.batches(torch.arange(len(part)), self.batch), self.autocast())
        return found[:2]


def overlays(data: SegmentationSet, part: Slices, drawn: Tensor, predicted: Mapping[str, Tensor]) -> "Figure":
    """Draw contours on the slices that represent the best, median and worst patient of the first arm.

    Args:
        data: the set.
        part: one of its parts.
        drawn: bool (N, K, H, W), the masks of the part.
        predicted: arm -> bool (N, K, H, W).
    """
    from gbn.tasks.segmentation.figures import Overlay, overlay_figure, representatives

    names = [data.patients[index] for index in part.patients.tolist()]
    dice = {arm: score_slices(own, drawn, part.pixel_size).dice.nanmean(1) for arm, own in predicted.items()}
    cases = {}
    for which, index in representatives(next(iter(dice.values())).tolist(), names).items():
        cases[f"{which}: patient {names[index]}"] = {
            arm: Overlay(
                f"Dice {dice[arm][index]:.2f}",
                part.images[index, 0].numpy(),
                drawn[index].numpy(),
                own[index].numpy(),
            )
            for arm, own in predicted.items()
        }
    return overlay_figure(cases, data.structures)


def areas(data: SegmentationSet, part: Slices, drawn: Tensor, predicted: Mapping[str, Tensor]) -> "Figure":
    """Draw a Bland-Altman plot of the first structure's areas, one panel per arm; see :func:`overlays`."""
    from gbn.tasks.segmentation.figures import bland_altman_figure

    def of(masks: Tensor) -> list[float]:
        return (masks[:, 0].sum((1, 2)) * part.pixel_size.double().prod(1)).tolist()

    names = [data.patients[index] for index in part.patients.tolist()]
    pairs = {arm: (of(own), of(drawn)) for arm, own in predicted.items()}
    return bland_altman_figure(pairs, names, f"{data.unit}²", data.structures[0])


def _share(part: Slices, count: int) -> Tensor:
    """Return indices of at most `count` slices, each patient contributing its share; the same for every seed."""
    return torch.arange(len(part)) if count >= len(part) else subset(part.patients, count)


def _finite(scores: dict[str, Any]) -> dict[str, Any]:
    """Replace undefined scores, such as the distance of contours of which none was found, with None."""
    return {key: None if value != value else value for key, value in scores.items()}


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
