"""The registry of quadrangles, and the construction of statistics, deviations and pairs by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from torch import Tensor

from .base import Deviation, Error, Functional, Quadrangle, Statistic
from .deviations import DEVIATIONS
from .moments import Mean
from .parameters import DEVIATION_PARAMETERS, PAIRS, STATISTIC_PARAMETERS, validate
from .statistics import STATISTICS


def statistic(name: str, **parameters: Any) -> Statistic:
    """Return a statistic by name, for example ``statistic("quantile", alpha=0.75)``.

    Raises:
        ValueError: unknown name or parameter, or a value that is not allowed; one line that says what is.
    """
    complete = validate("statistic", name, parameters)
    return STATISTICS[name](**complete)


def deviation(name: str, **parameters: Any) -> Deviation:
    """Return a deviation by name, for example ``deviation("cvar", alpha=0.75)``.

    Raises:
        ValueError: unknown name or parameter, or a value that is not allowed; one line that says what is.
    """
    complete = validate("deviation", name, parameters)
    return DEVIATIONS[name](**complete)


def _elementary(D: Deviation, rows: Tensor) -> Tensor:
    """Return |mean(X)| + D(X), which makes (mean, D) a pair for any D."""
    return rows.mean(-1, keepdim=True).abs() + D(rows, -1, keepdim=True)


def _same_value(one: Statistic, other: Statistic) -> bool:
    """Return whether two statistics differ at most in how gradients pass through them."""

    def essence(given: Statistic) -> dict[str, Any]:
        return {k: v for k, v in given.parameters.items() if k not in ("quantile_gradient", "window")}

    return type(one) is type(other) and essence(one) == essence(other)


def _error(S: Statistic, D: Deviation) -> Error | None:
    """Return the error that makes (S, D) a pair, or None.

    ``smoothed`` changes the value of an order statistic, which then is no longer the exact minimizer.
    """
    smoothed = "smoothed" in (
        S.parameters.get("quantile_gradient"),
        D.parameters.get("quantile_gradient"),
    )
    if D.has_error and _same_value(S, D.about) and not smoothed:
        return D.error  # type: ignore[return-value]
    if isinstance(S, Mean):
        return partial(_elementary, D)
    return None


def _builder(name: str, statistic_name: str, deviation_name: str) -> Callable[..., Quadrangle]:
    def build(**parameters: Any) -> Quadrangle:
        complete = validate("quadrangle", name, parameters)
        of_s = {key: complete[key] for key in STATISTIC_PARAMETERS[statistic_name]}
        of_d = {key: complete[key] for key in DEVIATION_PARAMETERS[deviation_name]}
        S, D = statistic(statistic_name, **of_s), deviation(deviation_name, **of_d)
        return Quadrangle(name, S, D, complete, _error(S, D))

    build.__doc__ = f"Return the {name!r} quadrangle; its parameters are in ``QUADRANGLE_PARAMETERS``."
    return build


#: name -> function of the quadrangle's parameters.
QUADRANGLES: dict[str, Callable[..., Quadrangle]] = {
    name: _builder(name, *parts) for name, parts in PAIRS.items()
}


def quadrangle(name: str, **parameters: Any) -> Quadrangle:
    """Return a registered quadrangle, for example ``quadrangle("cvar", alpha=0.75)``.

    Raises:
        ValueError: unknown name or parameter, or a value that is not allowed; one line that says what is.
    """
    complete = validate("quadrangle", name, parameters)
    return QUADRANGLES[name](**complete)


def _made(given: Any, kind: type, make: Callable[..., Any]) -> Any:
    if isinstance(given, kind):
        return given
    if isinstance(given, str):
        return make(given)
    if isinstance(given, Mapping) and isinstance(given.get("name"), str):
        return make(**given)
    word = kind.__name__.lower()
    raise TypeError(
        f"the {word} was given as {given!r}; give a name, a mapping with 'name', or a {word} itself"
    )


def from_text(kind: Literal["statistic", "deviation"], text: str) -> Functional:
    """Return the functional with this :attr:`~gbn.risk.base.Functional.text`."""
    parameters = json.loads(text)
    make = statistic if kind == "statistic" else deviation
    return make(parameters.pop("name"), **parameters)


_statistic, _deviation = statistic, deviation


def compose(
    statistic: Statistic | str | Mapping[str, Any], deviation: Deviation | str | Mapping[str, Any]
) -> Quadrangle:
    """Return the pair of any statistic with any deviation, each with its own parameters.

    Args:
        statistic: a statistic, its name, or a mapping of "name" and parameters.
        deviation: a deviation, its name, or a mapping of "name" and parameters.

    The pair has an error where one is known: its quadrangle's for a natural pair, |mean| + D for the mean
    with any deviation.

    Raises:
        TypeError: an argument has none of these forms.
        ValueError: a name or parameter is not allowed.
    """
    S: Statistic = _made(statistic, Statistic, _statistic)
    D: Deviation = _made(deviation, Deviation, _deviation)
    parameters = {
        "statistic": {"name": S.name, **S.parameters},
        "deviation": {"name": D.name, **D.parameters},
    }
    return Quadrangle(f"{S.name}+{D.name}", S, D, parameters, _error(S, D))
