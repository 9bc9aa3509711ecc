"""Figures of the masks that the networks of several finished runs predict on the same test slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from gbn.data.segmentation.segmentation_set import SegmentationSet
from gbn.engine.restore import Trained
from gbn.tasks.segmentation import evaluation


@dataclass(frozen=True, eq=False)
class Drawings:
    """The test part with each arm's masks.

    Attributes:
        data: the data set that the runs share.
        drawn: bool (N, K, H, W).
        predicted: arm -> bool (N, K, H, W).
    """

    data: SegmentationSet
    drawn: Tensor
    predicted: Mapping[str, Tensor]


def drawings(runs: Mapping[str, Trained]) -> Drawings:
    """Return the masks of all test slices, with running statistics.

    Args:
        runs: arm -> its run, at least one.

    Raises:
        ValueError: a run has another task, or runs are tested on different slices.
    """
    predicted: dict[str, Tensor] = {}
    first: tuple[SegmentationSet, Tensor] | None = None
    for arm, one in runs.items():
        if not isinstance(one.data, SegmentationSet):
            raise ValueError(f"{one.run_id} is not a segmentation run: choose runs with task=segmentation")
        predicted[arm], drawn = one.evaluator.masks(one.model, "test")
        first = first or (one.data, drawn)
        if one.data.test.places != first[0].test.places or not torch.equal(drawn, first[1]):
            raise ValueError(
                f"{one.run_id} is tested on other slices than the first run: choose runs with the same data"
            )
    if first is None:
        raise ValueError("no run to draw")
    return Drawings(*first, predicted)


def overlays(found: Drawings, arms: Sequence[str]) -> Figure:
    """Draw contours of some arms on the slices that represent the best, median and worst patient of the first arm."""
    predicted = {arm: found.predicted[arm] for arm in arms}
    return evaluation.overlays(found.data, found.data.test, found.drawn, predicted)


def areas(found: Drawings) -> Figure:
    """Draw a Bland-Altman plot of the first structure's areas, one panel per arm."""
    return evaluation.areas(found.data, found.data.test, found.drawn, found.predicted)
