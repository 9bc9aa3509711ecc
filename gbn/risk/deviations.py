"""The registry of deviations: name -> class."""

from .base import Deviation
from .entropic import EntropicDeviation
from .expectiles import ExpectileDeviation, ExpectileRisk
from .extremes import LowerRange, Range, UpperRange, WorstCase
from .huber import HuberDeviation
from .moments import LowerSemideviation, MeanMad, Std, UpperSemideviation
from .tails import Cvar, Mad, MixedCvar, QuantileRadius

_CLASSES: tuple[type[Deviation], ...] = (
    Std,
    Mad,
    Cvar,
    MixedCvar,
    QuantileRadius,
    Range,
    WorstCase,
    UpperRange,
    LowerRange,
    UpperSemideviation,
    LowerSemideviation,
    MeanMad,
    ExpectileDeviation,
    ExpectileRisk,
    HuberDeviation,
    EntropicDeviation,
)

DEVIATIONS: dict[str, type[Deviation]] = {cls.name: cls for cls in _CLASSES}
