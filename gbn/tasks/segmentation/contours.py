"""Agreement of predicted masks with drawn ones: Dice, average perpendicular distance, good contours; using MONAI.

* **Dice** = 2 |P and T| / (|P| + |T|) of a slice's masks. A slice on which nothing is drawn has none and is left out.
* **APD**, the average perpendicular distance: the mean, over the pixels of the predicted contour, of the distance to
  the nearest pixel of the drawn contour; a contour consists of a mask's pixels with a neighbor outside. It is not
  symmetric. (Radau et al., Evaluation Framework for Algorithms Segmenting Short Axis Cardiac MRI, MIDAS 2009, as a
  distance between masks.)
* **Good contours**: the fraction of drawn contours whose prediction has an APD below 5 mm, or below 5 pixels of the
  stored image if the spacing is unknown. A drawn contour without a prediction is a *miss*: not good, Dice 0, no APD.
* **Spurious**: slices with a prediction where nothing is drawn; they are counted but enter no other measure.

All patients have equal weight, however many slices they have: the mean over slices is taken per patient first, for
Dice over all drawn contours, for APD over those found.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gbn.data.image_set import DataError

GOOD = 5.0
"""APD below which a contour is good, in mm, or in pixels if the spacing is unknown."""


@dataclass(frozen=True, eq=False)
class SliceScores:
    """Scores of each slice and structure.

    Attributes:
        dice: float64 (N, K); NaN where nothing is drawn.
        apd: float64 (N, K), in the unit of the pixels' sizes; NaN where nothing is drawn or nothing predicted.
        drawn: bool (N, K), whether the structure is drawn on the slice.
        found: bool (N, K), whether anything is predicted there.
    """

    dice: Tensor
    apd: Tensor
    drawn: Tensor
    found: Tensor


@dataclass(frozen=True)
class PatientScores:
    """Scores of one structure in one patient, or in all.

    Attributes:
        patient: its name; "all" for the mean over patients.
        structure: "cavity" or "epicardium".
        slices: number of slices on which it is drawn.
        dice: mean over these slices; a miss counts as 0.
        apd: mean over those of them with a prediction; NaN if there are none.
        good: fraction of these slices with an APD below :data:`GOOD`.
        missed: number of slices where it is drawn but not predicted.
        spurious: number of slices where it is predicted but not drawn.
    """

    patient: str
    structure: str
    slices: int
    dice: float
    apd: float
    good: float
    missed: int
    spurious: int


def score_slices(predicted: Tensor, drawn: Tensor, pixel_size: Tensor) -> SliceScores:
    """Return the scores of predicted masks against drawn ones.

    Args:
        predicted: bool (N, K, H, W).
        drawn: bool (N, K, H, W).
        pixel_size: (N, 2), height and width of a pixel.

    Raises:
        ValueError: shapes do not match, or masks are not bool.
        DataError: MONAI is not installed.
    """
    if predicted.shape != drawn.shape or predicted.dim() != 4 or pixel_size.shape != (len(drawn), 2):
        raise ValueError(
            f"predicted masks {tuple(predicted.shape)}, drawn masks {tuple(drawn.shape)}, pixel sizes "
            f"{tuple(pixel_size.shape)}: needed are (N, K, H, W) twice and (N, 2)"
        )
    if predicted.dtype != torch.bool or drawn.dtype != torch.bool:
        raise ValueError(
            f"masks are {predicted.dtype} and {drawn.dtype}: needed is torch.bool, cut logits at 0"
        )
    metrics = import_monai("metrics")
    predicted, drawn = predicted.cpu(), drawn.cpu()
    has_drawn, has_found = drawn.flatten(2).any(2), predicted.flatten(2).any(2)
    dice = metrics.compute_dice(predicted.double(), drawn.double(), include_background=True).double()
    apd = torch.full(dice.shape, torch.nan, dtype=torch.float64)
    sizes = pixel_size.double().tolist()
    with warnings.catch_warnings():
        # MONAI 1.5 and 1.6 call their own code with an argument that they deprecate.
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        for index, channel in (has_drawn & has_found).nonzero().tolist():
            pair = [masks[index : index + 1, channel : channel + 1] for masks in (predicted, drawn)]
            distance = metrics.compute_average_surface_distance(
                *pair, include_background=True, spacing=sizes[index]
            )
            apd[index, channel] = distance.item()
    return SliceScores(dice, apd, has_drawn, has_found)


def score_patients(
    scores: SliceScores, patients: Tensor, names: Sequence[str], structures: Sequence[str]
) -> list[PatientScores]:
    """Return one row per structure and patient in which it is drawn; each structure ends with a row for all patients.

    Args:
        scores: scores of the slices.
        patients: int64 (N,), index of each slice's patient in ``names``.
        names: names of the patients.
        structures: names of the K channels.

    Raises:
        ValueError: a structure is drawn nowhere.
    """
    rows = []
    for channel, structure in enumerate(structures):
        own = [
            _of_patient(scores, patients == patient, channel, names[patient], structure)
            for patient in patients.unique().tolist()
        ]
        drawn = [row for row in own if row.slices]
        if not drawn:
            raise ValueError(f"nothing to score: the {structure} is drawn on none of {len(patients)} slices")
        rows += [*drawn, _overall(own, structure)]
    return rows


def _of_patient(scores: SliceScores, own: Tensor, channel: int, name: str, structure: str) -> PatientScores:
    drawn, found = scores.drawn[own, channel], scores.found[own, channel]
    apd = scores.apd[own, channel]
    return PatientScores(
        patient=name,
        structure=structure,
        slices=int(drawn.sum()),
        dice=scores.dice[own, channel][drawn].mean().item(),
        apd=apd[drawn & found].mean().item(),
        good=(apd[drawn] < GOOD).double().mean().item(),
        missed=int((drawn & ~found).sum()),
        spurious=int((found & ~drawn).sum()),
    )


def _overall(rows: Sequence[PatientScores], structure: str) -> PatientScores:
    def mean(name: str) -> float:
        values = torch.tensor([getattr(row, name) for row in rows if row.slices], dtype=torch.float64)
        return values.nanmean().item()  # a patient without any found contour has no APD

    def total(name: str) -> int:
        return sum(getattr(row, name) for row in rows)

    return PatientScores(
        patient="all",
        structure=structure,
        slices=total("slices"),
        dice=mean("dice"),
        apd=mean("apd"),
        good=mean("good"),
        missed=total("missed"),
        spurious=total("spurious"),
    )


def summary(rows: Sequence[PatientScores], unit: Literal["mm", "px"]) -> dict[str, float]:
    """Return the scores over all patients, keyed by measure.

    ``dice``, ``apd_px`` and ``good_contours_px`` (or ``_mm``) are means over the structures; if there are several,
    each also has its own: ``dice_cavity``, ``apd_px_cavity``, ``good_contours_px_cavity``.
    """
    overall = [row for row in rows if row.patient == "all"]
    keys = {"dice": "dice", "apd": f"apd_{unit}", "good": f"good_contours_{unit}"}
    numbers = {}
    for name, key in keys.items():
        values = {row.structure: float(getattr(row, name)) for row in overall}
        numbers[key] = sum(values.values()) / len(values)
        if len(values) > 1:
            numbers |= {f"{key}_{structure}": value for structure, value in values.items()}
    return numbers


def import_monai(module: Literal["metrics", "losses"]) -> Any:
    """Import and return a module of MONAI, which takes seconds to import and is needed only for segmentation.

    Raises:
        DataError: MONAI is not installed.
    """
    import importlib

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from optional libraries that MONAI tries to import
            return importlib.import_module(f"monai.{module}")
    except ImportError as error:
        raise DataError("task=segmentation needs MONAI, which is not installed: pip install monai") from error
