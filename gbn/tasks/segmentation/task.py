"""Segmentation of structures that may be nested: soft Dice and cross-entropy, one logit per structure."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gbn.config.datasets import CardiacConfig, SlicesConfig
from gbn.config.schema import Config
from gbn.config.tasks import SegmentationConfig
from gbn.data import TrainLoader, data_root
from gbn.data.segmentation.framing import Framing
from gbn.data.segmentation.segmentation_set import SegmentationSet, SliceSet
from gbn.data.segmentation.warp import Warp
from gbn.tasks.base import Task
from gbn.tasks.evaluation import inference
from gbn.tasks.segmentation.contours import import_monai
from gbn.tasks.segmentation.evaluation import SegmentationEvaluator


class Segmentation(Task):
    """Soft Dice loss + binary cross-entropy; Dice, APD and good contours of the masks where logits are positive.

    Soft Dice is MONAI's ``DiceLoss(sigmoid=True)``: 1 - (2 sum p t + e) / (sum p + sum t + e) with e = 1e-5, averaged
    over structures; sums run over pixels and, by default, over the batch, so that a slice without the structure is no
    special case.

    Args:
        cross_entropy: weight of the mean cross-entropy relative to the Dice loss.
        dice_over: whether sums of the Dice loss run over each slice or over the batch.

    Raises:
        ValueError: a negative weight, or an unknown ``dice_over``.
        DataError: MONAI is not installed.
    """

    training_measure = "dice"

    def __init__(
        self,
        cross_entropy: float = 1.0,
        dice_over: Literal["batch", "slice"] = "batch",
    ) -> None:
        if not cross_entropy >= 0:
            raise ValueError(
                f"cross_entropy must be 0 or more, {cross_entropy} was given: 1.0 weights both losses equally"
            )
        if dice_over not in ("batch", "slice"):
            raise ValueError(f"dice_over must be 'batch' or 'slice', {dice_over!r} was given")
        self.cross_entropy = cross_entropy
        self._dice = import_monai("losses").DiceLoss(sigmoid=True, batch=dice_over == "batch")

    @staticmethod
    def load(config: Config) -> SegmentationSet:
        """Return the slices of a configuration with their masks.

        Raises:
            DataError: the set is missing or broken; the message is one line that names the file.
        """
        options = config.dataset
        assert isinstance(options, SlicesConfig)
        framing = Framing(options.side, options.window, options.normalise, options.empty_slices)
        root = data_root(options.root)
        if isinstance(options, CardiacConfig):
            from gbn.data.segmentation.acdc import Patients, cardiac

            patients = Patients(
                options.patients, options.frames, options.split, options.test_fold, options.validation_fold
            )
            return cardiac(root, options.structures, patients, framing)
        from gbn.data.segmentation.sunnybrook import sunnybrook

        return sunnybrook(root, options.structures, framing=framing)

    @classmethod
    def build(
        cls, config: Config, data: SegmentationSet, device: torch.device
    ) -> tuple[TrainLoader, SegmentationEvaluator, Self]:
        """Return (loader, evaluator, task): the training part is warped, and the others are for evaluation."""
        options = config.task
        assert isinstance(options, SegmentationConfig)
        assert isinstance(config.dataset, SlicesConfig)
        train = SliceSet(
            data.train,
            augmentation=_warp(config.dataset),
            device=device,
            channels_last=config.trainer.channels_last,
        )
        task = cls(options.cross_entropy, options.dice_over)
        evaluator = SegmentationEvaluator(config, task, data, train)
        indices = torch.arange(len(train))
        return TrainLoader(train, indices, config.trainer.batch_size, config.seed), evaluator, task

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the training loss of logits and masks (0 or 1), each (B, K, H, W), a float32 scalar."""
        logits, masks = logits.float(), masks.float()
        loss: Tensor = self._dice(logits, masks)
        return loss + self.cross_entropy * F.binary_cross_entropy_with_logits(logits, masks)

    @staticmethod
    def predicted(logits: Tensor) -> Tensor:
        """Return masks, bool (B, K, H, W): True where the structure is more likely present than absent."""
        return logits > 0

    def correct(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the Dice of the batch's masks over all their pixels, times the number of slices: a float64 scalar.

        It is the mean over structures; a structure neither predicted nor drawn has a Dice of 1. Summed over batches
        and divided by the number of slices, it is a progress indicator for training, not a score of patients.
        """
        found, drawn = self.predicted(logits), masks > 0.5
        both = (found & drawn).sum((0, 2, 3)).double()
        sizes = (found.sum((0, 2, 3)) + drawn.sum((0, 2, 3))).double()
        return len(masks) * torch.where(sizes > 0, 2 * both / sizes.clamp_min(1), 1.0).mean()

    def predict(
        self,
        model: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
        autocast: AbstractContextManager[object],
    ) -> tuple[Tensor, Tensor, float]:
        """Return the masks predicted in evaluation mode, the drawn masks, and the loss; restore the model's mode.

        The loss is that of all slices as one batch, so that it does not depend on how they are split into batches.

        Returns:
            bool (N, K, H, W) predicted, bool (N, K, H, W) drawn, both on the CPU, and the loss.

        Raises:
            ValueError: ``batches`` holds no slice.
        """
        found, truth = [], []
        with inference(model, autocast):
            for images, masks in batches:
                found.append(model(images).float().cpu())
                truth.append(masks.float().cpu())
        if not found:
            raise ValueError("nothing to evaluate on: no slice in the given batches")
        logits, masks = torch.cat(found), torch.cat(truth)
        return self.predicted(logits), masks.bool(), self.loss(logits, masks).item()


def _warp(options: SlicesConfig) -> Warp | None:
    """Return the configured warps."""
    if options.augment == "none":
        return None
    ranges = options.warp.model_dump()
    if options.augment == "affine":
        ranges["alpha"] = 0.0
    elif options.augment == "elastic":
        ranges |= dict.fromkeys(("rotation", "shift", "shear", "zoom"), 0.0)
    return Warp(**ranges)
