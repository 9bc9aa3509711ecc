"""Figures of the masks that the networks of several finished runs draw on the same test slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from gbn.engine.restore import Trained
from gbn.tasks.segmentation.evaluation import SegmentationEvaluator, areas_of
from gbn.tasks.segmentation.figures import Overlay, bland_altman_figure, comparison_figure, representatives


@dataclass(frozen=True, eq=False)
class Drawings:
    """The test set with each arm's masks.

    Attributes:
        evaluator: of one of the runs, since they share their data.
        drawn: bool (N, K, H, W).
        predicted: arm -> bool (N, K, H, W).
    """

    evaluator: SegmentationEvaluator
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
    first: tuple[SegmentationEvaluator, Tensor] | None = None
    for arm, one in runs.items():
        if not isinstance(one.evaluator, SegmentationEvaluator):
            raise ValueError(f"{one.run_id} is not a segmentation run: choose runs with task=segmentation")
        predicted[arm], drawn = one.evaluator.masks(one.model, "test")
        first = first or (one.evaluator, drawn)
        if one.evaluator.data.test.places != first[0].data.test.places or not torch.equal(drawn, first[1]):
            raise ValueError(
                f"{one.run_id} is tested on other slices than the first run: choose runs with the same data"
            )
    if first is None:
        raise ValueError("no run to draw")
    return Drawings(*first, predicted)


def overlays(found: Drawings, arms: Sequence[str]) -> Figure:
    """Draw contours of some arms on the slices that represent the best, median and worst patient of the first arm."""
    data = found.evaluator.data
    part = data.test
    names = [data.patients[index] for index in part.patients.tolist()]
    scores = {
        arm: found.evaluator.task.scores(found.predicted[arm], found.drawn, part.pixel_size).dice.nanmean(1)
        for arm in arms
    }
    cases = {}
    for which, index in representatives(scores[arms[0]].tolist(), names).items():
        cases[f"{which}: patient {names[index]}"] = {
            arm: Overlay(
                f"Dice {scores[arm][index]:.2f}",
                part.images[index, 0].numpy(),
                found.drawn[index].numpy(),
                found.predicted[arm][index].numpy(),
            )
            for arm in arms
        }
    return comparison_figure(cases, data.structures)


def areas(found: Drawings) -> Figure:
    """Draw a Bland-Altman plot of the first structure's areas, one panel per arm."""
    data = found.evaluator.data
    part = data.test
    drawn = areas_of(found.drawn, part).tolist()
    pairs = {arm: (areas_of(masks, part).tolist(), drawn) for arm, masks in found.predicted.items()}
    names = [data.patients[index] for index in part.patients.tolist()]
    return bland_altman_figure(pairs, names, f"{data.unit}²", data.structures[0])
