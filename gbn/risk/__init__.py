"""Risk theory: statistics, deviations and the quadrangles that pair them, on plain tensors.

This package knows nothing of networks. ``gbn.risk.parameters`` needs no torch; everything else is imported on first
use.

>>> pair = gbn.risk.quadrangle("cvar", alpha=0.75)
>>> pair.statistic(x, dim=(0, 2, 3)), pair.deviation(x, dim=(0, 2, 3)), pair.gaussian()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Deviation, Functional, Quadrangle, Statistic
    from .deviations import DEVIATIONS
    from .order import OrderStatistics
    from .parameters import GRADIENT_MODES, validate
    from .quadrangles import QUADRANGLES, compose, deviation, quadrangle, statistic
    from .statistics import STATISTICS

_HOMES = {
    "DEVIATIONS": "deviations",
    "Deviation": "base",
    "Functional": "base",
    "GRADIENT_MODES": "parameters",
    "OrderStatistics": "order",
    "QUADRANGLES": "quadrangles",
    "Quadrangle": "base",
    "STATISTICS": "statistics",
    "Statistic": "base",
    "compose": "quadrangles",
    "deviation": "quadrangles",
    "quadrangle": "quadrangles",
    "statistic": "quadrangles",
    "validate": "parameters",
}

__all__ = [
    "DEVIATIONS",
    "GRADIENT_MODES",
    "QUADRANGLES",
    "STATISTICS",
    "Deviation",
    "Functional",
    "OrderStatistics",
    "Quadrangle",
    "Statistic",
    "compose",
    "deviation",
    "quadrangle",
    "statistic",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gbn.risk' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
