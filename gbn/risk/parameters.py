"""Parameters of every statistic, deviation and quadrangle: names, defaults, allowed values. Needs no torch.

The configuration is validated against these tables before anything heavy is imported, and the functionals validate
themselves against the same tables, so that there is one source and one wording of each error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal

from gbn.suggest import did_you_mean

Kind = Literal["statistic", "deviation", "quadrangle"]

#: How the gradient passes through a sample quantile or an extreme (see ``gbn.risk.ranks``).
GRADIENT_MODES = ("exact", "window", "window_centred", "smoothed", "mean", "detached")


@dataclass(frozen=True)
class Parameter:
    """One parameter: its default, its type in words, its converter and its allowed values, in words.

    ``convert`` takes the raw value and returns the normalized one, or raises ``ValueError``.
    """

    name: str
    type: str
    default: Any
    convert: Callable[[Any], Any]
    allowed: str

    def check(self, value: Any) -> bool:
        """Return whether ``value`` is allowed."""
        try:
            self.convert(value)
        except ValueError:
            return False
        return True


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError("not a number")
    return float(value)


def _between(
    low: float, high: float, *, low_in: bool = False, high_in: bool = False
) -> Callable[[Any], float]:
    def convert(value: Any) -> float:
        number = _number(value)
        above = number >= low if low_in else number > low
        below = number <= high if high_in else number < high
        if not (above and below and math.isfinite(number)):  # NaN fails both comparisons
            raise ValueError("out of range")
        return number

    return convert


def _choice(options: tuple[str, ...]) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if not isinstance(value, str) or value not in options:
            raise ValueError("not an option")
        return value

    return convert


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("not a boolean")
    return value


def _numbers(convert_one: Callable[[Any], float]) -> Callable[[Any], tuple[float, ...]]:
    def convert(value: Any) -> tuple[float, ...]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise ValueError("not a list")
        numbers = tuple(convert_one(item) for item in value)
        if not numbers:
            raise ValueError("empty")
        return numbers

    return convert


def _weights(value: Any) -> tuple[float, ...]:
    weights = _numbers(_between(0.0, 1.0, high_in=True))(value)
    total = math.fsum(weights)
    if abs(total - 1.0) > 1e-6:
        raise ValueError("weights do not sum to 1")
    return tuple(weight / total for weight in weights)


_OPEN_UNIT = "a number strictly between 0 and 1"


def _parameters(*parameters: Parameter) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in parameters}


ALPHA = Parameter("alpha", "float", 0.75, _between(0, 1), _OPEN_UNIT)
RADIUS_ALPHA = replace(
    ALPHA, convert=_between(0.5, 1, low_in=True), allowed="a number from 0.5 (included) to 1 (excluded)"
)
WEIGHTS = Parameter(
    "weights",
    "list of floats",
    (0.5, 0.5),
    _weights,
    "a list of positive numbers that sum to 1, as long as alphas",
)
ALPHAS = Parameter(
    "alphas",
    "list of floats",
    (0.5, ALPHA.default),
    _numbers(_between(0, 1)),
    "a list of numbers strictly between 0 and 1",
)
TAU = Parameter("tau", "float", 0.75, _between(0, 1), _OPEN_UNIT)
UPPER_TAU = replace(TAU, convert=_between(0.5, 1), allowed="a number strictly between 0.5 and 1")
B = Parameter("b", "float", 1.0, _between(0, math.inf), "a finite number > 0")
SCALED = Parameter(
    "scaled",
    "bool",
    True,
    _boolean,
    "true (the threshold is b standard deviations) or false (it is b itself)",
)
MODE = Parameter(
    "quantile_gradient",
    "str",
    "window_centred",
    _choice(GRADIENT_MODES),
    "one of " + ", ".join(GRADIENT_MODES),
)
WINDOW = Parameter(
    "window", "float", 0.1, _between(0, 0.5, high_in=True), "a rank share on each side, > 0 and at most 0.5"
)
_RANKS = (MODE, WINDOW)

STATISTIC_PARAMETERS: dict[str, dict[str, Parameter]] = {
    "mean": {},
    "quantile": _parameters(ALPHA, *_RANKS),
    "median": _parameters(*_RANKS),
    "mixed_quantile": _parameters(WEIGHTS, ALPHAS, *_RANKS),
    "quantile_midpoint": _parameters(RADIUS_ALPHA, *_RANKS),
    "midrange": _parameters(*_RANKS),
    "maximum": _parameters(*_RANKS),
    "expectile": _parameters(TAU),
    "huber": _parameters(B, SCALED),
    "entropic": {},
}

DEVIATION_PARAMETERS: dict[str, dict[str, Parameter]] = {
    "std": {},
    "mad": {},
    "cvar": _parameters(ALPHA),
    "mixed_cvar": _parameters(WEIGHTS, ALPHAS),
    "quantile_radius": _parameters(RADIUS_ALPHA),
    "range": _parameters(*_RANKS),
    "worst_case": _parameters(*_RANKS),
    "upper_range": _parameters(*_RANKS),
    "lower_range": _parameters(*_RANKS),
    "upper_semideviation": {},
    "lower_semideviation": {},
    "mean_mad": {},
    "expectile": _parameters(TAU),
    "expectile_risk": _parameters(UPPER_TAU),
    "huber": _parameters(B, SCALED),
    "entropic": {},
}

#: The (statistic, deviation) pair of each quadrangle of Rockafellar and Uryasev, by their names.
PAIRS = {
    "std": ("mean", "std"),
    "mad": ("median", "mad"),
    "cvar": ("quantile", "cvar"),
    "mixed_cvar": ("mixed_quantile", "mixed_cvar"),
    "quantile_radius": ("quantile_midpoint", "quantile_radius"),
    "range": ("midrange", "range"),
    "worst_case": ("maximum", "worst_case"),
    "upper_range": ("mean", "upper_range"),
    "lower_range": ("mean", "lower_range"),
    "upper_semideviation": ("mean", "upper_semideviation"),
    "lower_semideviation": ("mean", "lower_semideviation"),
    "mean_mad": ("mean", "mean_mad"),
    "expectile": ("expectile", "expectile"),
    "expectile_risk": ("expectile", "expectile_risk"),
    "huber": ("huber", "huber"),
    "entropic": ("entropic", "entropic"),
}

#: A quadrangle has the parameters of both parts; where the two allow different values, the deviation's count.
QUADRANGLE_PARAMETERS: dict[str, dict[str, Parameter]] = {
    name: STATISTIC_PARAMETERS[statistic] | DEVIATION_PARAMETERS[deviation]
    for name, (statistic, deviation) in PAIRS.items()
}

_TABLES: dict[str, dict[str, dict[str, Parameter]]] = {
    "statistic": STATISTIC_PARAMETERS,
    "deviation": DEVIATION_PARAMETERS,
    "quadrangle": QUADRANGLE_PARAMETERS,
}


def validate(kind: Kind, name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the complete, normalized parameters of a functional; missing ones get their defaults.

    Args:
        kind: "statistic", "deviation" or "quadrangle".
        name: a name in that kind's table.
        parameters: the given ones; numbers become floats, lists become tuples, weights sum to 1 up to rounding.

    Raises:
        ValueError: unknown kind, name or parameter, or a value that is not allowed; one line that says what
            was given and what is allowed.
    """
    if kind not in _TABLES:
        raise ValueError(f"unknown kind {kind!r}; kinds are {', '.join(_TABLES)}")
    table = _TABLES[kind]
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}{did_you_mean(name, table)}; known: {', '.join(table)}")
    known = table[name]
    given = dict(parameters or {})
    for key in given:
        if key not in known:
            allowed = ", ".join(known) if known else "none, it has no parameters"
            hint = did_you_mean(key, known)
            raise ValueError(f"unknown parameter {key!r} of the {kind} {name!r}{hint}; allowed: {allowed}")
    complete = {}
    for key, parameter in known.items():
        value = given.get(key, parameter.default)
        try:
            complete[key] = parameter.convert(value)
        except ValueError:
            raise ValueError(
                f"{key}={value!r} of the {kind} {name!r} is not allowed: {key} must be {parameter.allowed}"
            ) from None
    if "weights" in complete and len(complete["weights"]) != len(complete["alphas"]):
        counts = f"{len(complete['weights'])} weights and {len(complete['alphas'])} alphas"
        raise ValueError(f"the {kind} {name!r} was given {counts}; give as many weights as alphas")
    return complete
