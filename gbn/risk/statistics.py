"""The registry of statistics: name -> class."""

from .base import Statistic
from .entropic import Entropic
from .expectiles import Expectile
from .huber import Huber
from .moments import Mean
from .quantiles import Maximum, Median, Midrange, MixedQuantile, Quantile, QuantileMidpoint

_CLASSES: tuple[type[Statistic], ...] = (
    Mean,
    Quantile,
    Median,
    MixedQuantile,
    QuantileMidpoint,
    Midrange,
    Maximum,
    Expectile,
    Huber,
    Entropic,
)

STATISTICS: dict[str, type[Statistic]] = {cls.name: cls for cls in _CLASSES}
