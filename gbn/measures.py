"""Measures, the meaning of the numbers of a curve: which direction is better, and how values are written.

A key names its measure: ``[train|val|val_full|test]_<family>[_<unit>][_<structure>][_exact]`` for measurements on
part of a data set, ``<family>_<network>[_exact]`` for the quality of generated images. ``_exact`` means that
normalizers used exact statistics, ``val_full`` the whole validation set instead of a slice of it.

========================  ======  ==============================================================================
family                    better  written
========================  ======  ==============================================================================
accuracy, good_contours   higher  in percent, differences in points (``_px``, ``_mm``: the unit of the limit)
dice                      higher  as a fraction, 0.940
loss                      lower   as is
apd                       lower   in the unit of its key, ``_px`` or ``_mm``
fid                       lower   as is
kid                       lower   times 1000
========================  ======  ==============================================================================

Values of fid and kid depend on the feature network, so the key contains its name: ``inception`` for the standard
weights, ``own_<digest>`` for a network trained by this project, identified by the digest of its weights. Different
keys are different measures and are never compared with each other.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from gbn.suggest import did_you_mean

_SPLITS = {"train": "training", "val": "validation", "val_full": "validation", "test": "test"}
_STRUCTURES = ("cavity", "epicardium", "myocardium")
_LOSSES = ("generator", "discriminator")
_ON_DATA = re.compile(
    r"(?P<split>train|val_full|val|test)_(?P<family>accuracy|loss|dice|apd|good_contours)"
    rf"(_(?P<unit>px|mm))?(_(?P<of>{'|'.join(_STRUCTURES)}))?(?P<exact>_exact)?"
)
_OF_IMAGES = re.compile(r"(?P<family>fid|kid)_(?P<network>inception|own_[0-9a-f]{8})(?P<exact>_exact)?")
_PATTERNS = (
    "[train|val|val_full|test]_[accuracy|loss|dice|apd_px|apd_mm|good_contours_px|good_contours_mm][_exact]",
    f"dice, apd and good_contours also with _[{'|'.join(_STRUCTURES)}]",
    "[fid|kid]_[inception|own_<8 hex digits>][_exact]",
    f"[{'|'.join(_LOSSES)}]_loss",
)


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        key: the curve key.
        family: "accuracy", "loss", "dice", "apd", "good_contours", "fid" or "kid".
        higher_is_better: which direction is better.
        name: its name within a sentence: "accuracy", "Dice of the cavity", "KID".
        split: "training", "validation", "test"; empty for generated images, and for losses without a split.
        network: the feature network; empty if there is none.
        exact: whether normalizers used exact statistics.
        whole: whether it was measured on the whole validation set rather than its slice.
        scale: values are written multiplied by `scale`.
        unit: written after a number: "%", "px", "mm" or empty.
        limit: the unit of the distance within which a contour counts as good; empty for other families.
        digits: decimals written.
        worst: the value assigned to a diverged run in averages that need one.
    """

    key: str
    family: str
    higher_is_better: bool
    name: str
    split: str = ""
    network: str = ""
    exact: bool = False
    whole: bool = False
    scale: float = 1.0
    unit: str = ""
    limit: str = ""
    digits: int = 2
    worst: float = math.inf

    @property
    def sign(self) -> float:
        """1 if higher is better, else -1: the sign times a difference is an improvement."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def share(self) -> bool:
        """True if values lie between 0 and 1."""
        return self.family in ("accuracy", "dice", "good_contours")

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and largest possible values of the measure."""
        if self.share:
            return 0.0, 1.0
        return (0.0 if self.family == "apd" else -math.inf), math.inf

    @property
    def title(self) -> str:
        """The name with what it was measured on: "validation accuracy", "KID x 1000 (own network 1a2b3c4d)"."""
        words = " ".join(filter(None, (self.split, self.name)))
        words += f", limit in {self.limit}" if self.limit else ""
        words += f" x {self.scale:g}" if self.scale != 1 and not self.unit else ""
        return words + (f" ({self.network})" if self.network else "")

    @property
    def label(self) -> str:
        """The title with its unit, as an axis label: "validation accuracy (%)"."""
        return self.title + (f" ({self.unit})" if self.unit else "")

    @property
    def points(self) -> str:
        """The unit of a difference: "points" for percentages, else the unit; empty if there is none."""
        return "points" if self.unit == "%" else self.unit

    @property
    def direction(self) -> str:
        """ "higher is better" or "lower is better"."""
        return f"{'higher' if self.higher_is_better else 'lower'} is better"

    @property
    def final(self) -> "Measure":
        """The same measure on the test set if the data set was split; else this measure itself."""
        if self.split in ("validation", "test"):
            base = self.key.removeprefix("val_full_").removeprefix("val_").removeprefix("test_")
            return measure(f"test_{base.removesuffix('_exact')}")
        return self

    def comparable(self, other: "Measure") -> bool:
        """Return whether values of both mean the same, so that targets for one apply to the other."""
        mine, others = ((one.family, one.network, one.unit, one.limit) for one in (self, other))
        return mine == others

    def shown(self, value: float) -> float:
        """Return the number that is written for a value."""
        return self.scale * value

    def number(self, value: float, sign: str = "") -> str:
        """Format a value without its unit; pass `sign` "+" for a difference."""
        text = f"{self.scale * value:{sign}.{self.digits}f}"
        return text.replace("-", "+" if sign else "", 1) if float(text) == 0 and text[0] == "-" else text

    def target(self, value: float) -> str:
        """Format a target: "95 %" for an accuracy, "KID 20", "APD 2 mm"."""
        amount = " ".join(filter(None, (f"{self.scale * value:g}", self.unit)))
        return amount if self.family == "accuracy" else f"{self.name} {amount}"

    def better(self, one: float, other: float) -> bool:
        """Return whether `one` is better than `other`."""
        return one > other if self.higher_is_better else one < other

    def ordered(self, targets: Iterable[float]) -> tuple[float, ...]:
        """Sort targets from easiest to hardest."""
        return tuple(sorted(targets, reverse=not self.higher_is_better))

    def checked(self, targets: Sequence[float]) -> tuple[float, ...]:
        """Sort targets from easiest to hardest after checking that each is a possible value.

        Raises:
            ValueError: a target is outside the measure's range.
        """
        for value in targets:
            if self.share and not 0 < value < 1:
                what = "accuracy" if self.family == "accuracy" else f"target of {self.key}"
                example = f"0.9 means {self.target(0.9)}" if self.unit else "for example 0.9"
                raise ValueError(f"'{value:g}' is no {what} between 0 and 1 ({example})")
            if not 0 < value < math.inf:
                raise ValueError(f"'{value:g}' is no target of {self.key}: give a positive number")
        return self.ordered(targets)


_FAMILIES: dict[str, dict[str, Any]] = {
    "accuracy": {"higher_is_better": True, "name": "accuracy", "scale": 100.0, "unit": "%", "worst": 0.0},
    "good_contours": {
        "higher_is_better": True,
        "name": "good contours",
        "scale": 100.0,
        "unit": "%",
        "worst": 0.0,
    },
    "dice": {"higher_is_better": True, "name": "Dice", "digits": 3, "worst": 0.0},
    "loss": {"higher_is_better": False, "name": "loss", "digits": 4},
    "apd": {"higher_is_better": False, "name": "APD"},
    "fid": {"higher_is_better": False, "name": "FID"},
    "kid": {"higher_is_better": False, "name": "KID", "scale": 1000.0},
}


@cache
def measure(key: str) -> Measure:
    """Return the measure of a curve key.

    Raises:
        ValueError: the measure is unknown; the message lists what is allowed and the likely intention.
    """
    known = _parsed(key)
    if known is None:
        raise ValueError(
            f"unknown measure {key!r}{did_you_mean(key, _examples())}; allowed: {'; '.join(_PATTERNS)}"
        )
    return known


@cache
def find(key: str) -> Measure | None:
    """Return the measure of a key; None for keys that are no measure (curves also hold update, seconds and lr)."""
    return _parsed(key)


def _parsed(key: str) -> Measure | None:
    if key in (f"{name}_loss" for name in _LOSSES):
        return Measure(key, "loss", **_FAMILIES["loss"] | {"name": key.replace("_", " ")})
    if found := _OF_IMAGES.fullmatch(key):
        network = found["network"].replace("own_", "own network ").replace("inception", "Inception")
        family = found["family"]
        return Measure(key, family, network=network, exact=bool(found["exact"]), **_FAMILIES[family])
    found = _ON_DATA.fullmatch(key)
    if found is None:
        return None
    family, of, unit = found["family"], found["of"], found["unit"]
    if (family == "apd" and not unit) or (unit and family not in ("apd", "good_contours")):
        return None
    if of and family in ("accuracy", "loss"):
        return None
    written = dict(_FAMILIES[family])
    written["name"] += f" of the {of}" if of else ""
    if unit:
        written |= {"unit": unit} if family == "apd" else {"limit": unit}
    whole, exact = found["split"] == "val_full", bool(found["exact"])
    return Measure(key, family, split=_SPLITS[found["split"]], exact=exact, whole=whole, **written)


def companions(final: Measure) -> list[Measure]:
    """Return what is measured along with the Dice of a test set, per structure: Dice, APD, good contours.

    Empty for any other measure. The keys returned need not be present in a curve.
    """
    if final.family != "dice" or final.split != "test":
        return []
    families = ("dice", "apd_px", "apd_mm", "good_contours_px", "good_contours_mm")
    return [measure(f"test_{family}_{of}") for family in families for of in _STRUCTURES]


def _examples() -> list[str]:
    families = ("accuracy", "loss", "dice", "apd_px", "apd_mm", "good_contours_px", "good_contours_mm")
    structured = [f"{family}_{of}" for family in families[2:] for of in _STRUCTURES]
    on_data = [f"{split}_{family}" for split in _SPLITS for family in (*families, *structured)]
    of_images = [
        f"{family}_{network}" for family in ("fid", "kid") for network in ("inception", "own_<digest>")
    ]
    losses = [f"{name}_loss" for name in _LOSSES]
    return [key + end for key in (*on_data, *of_images) for end in ("", "_exact")] + losses


#: The default measure of an experiment.
DEFAULT = "val_accuracy"

#: How a difference between classifiers is written if no runs are available.
ACCURACY = measure("test_accuracy")

#: The families that runs are compared by if no measure is named; the first available one is used.
_PREFERRED = ("accuracy", "dice", "kid", "fid", "loss")


def ranked(keys: Iterable[str]) -> list[str]:
    """Return those of the given keys that runs can be compared by, the default one first.

    Within a family the plainest comes first: on the validation slice, with running statistics, over all structures.
    """
    known = (_parsed(key) for key in keys)
    fitting = [
        one
        for one in known
        if one and one.family in _PREFERRED and (one.split == "validation" or one.network)
    ]
    fitting.sort(key=lambda one: (_PREFERRED.index(one.family), one.whole, one.exact, len(one.key), one.key))
    return [one.key for one in fitting]
