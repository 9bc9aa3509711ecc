"""The registry of quadrangles, and how statistics, deviations and pairs are made by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .base import Deviation, Error, Quadrangle, Statistic
from .deviations import DEVIATIONS
from .parameters import DEVIATION_PARAMETERS, STATISTIC_PARAMETERS, validate
from .statistics import STATISTICS


def statistic(name: str, **parameters: Any) -> Statistic:
    """Return a statistic by name; raises ``ValueError`` for what ``gbn.risk.parameters`` does not allow."""
    return STATISTICS[name](**validate("statistic", name, parameters))


def deviation(name: str, **parameters: Any) -> Deviation:
    """Return a deviation by name; raises ``ValueError`` for what ``gbn.risk.parameters`` does not allow."""
    return DEVIATIONS[name](**validate("deviation", name, parameters))


def _builder(
    name: str, statistic_name: str, deviation_name: str, error: Callable[[Quadrangle], Error] | None
) -> Callable[..., Quadrangle]:
    def build(**parameters: Any) -> Quadrangle:
        complete = validate("quadrangle", name, parameters)
        own = {key: complete[key] for key in STATISTIC_PARAMETERS[statistic_name] if key in complete}
        other = {key: complete[key] for key in DEVIATION_PARAMETERS[deviation_name] if key in complete}
        S, D = statistic(statistic_name, **own), deviation(deviation_name, **other)
        bare = Quadrangle(name, S, D, complete)
        return Quadrangle(name, S, D, complete, error(bare)) if error else bare

    return build


QUADRANGLES: dict[str, Callable[..., Quadrangle]] = {
    "std": _builder("std", "mean", "std", None),
    "mad": _builder("mad", "median", "mad", None),
    "cvar": _builder("cvar", "quantile", "cvar", None),
}


def quadrangle(name: str, **parameters: Any) -> Quadrangle:
    """Return a registered quadrangle, for example ``quadrangle("cvar", alpha=0.75)``.

    Raises:
        ValueError: unknown name or parameter, or a value that is not allowed, in one line with what is.
    """
    validate("quadrangle", name, parameters)
    return QUADRANGLES[name](**parameters)


def _functional(given: Any, make: Callable[..., Any], kind: type, word: str) -> Any:
    if isinstance(given, kind):
        return given
    if isinstance(given, str):
        return make(given)
    if isinstance(given, dict) and isinstance(given.get("name"), str):
        return make(given["name"], **{key: value for key, value in given.items() if key != "name"})
    raise TypeError(
        f"{given!r} was given as the {word}; give its name, a dict with 'name', or the {word} itself"
    )


def compose(
    statistic: Statistic | str | dict[str, Any], deviation: Deviation | str | dict[str, Any]
) -> Quadrangle:
    """Return the pair of any statistic with any deviation, each a name, a dict (name and parameters) or an object.

    Whatever the deviation, its pair with the mean has the elementary error |mean| + D; no other composition
    has one.

    Raises:
        TypeError: neither of these forms.
        ValueError: a name or parameter that is not allowed.
    """
    S = _functional(statistic, _statistic, Statistic, "statistic")
    D = _functional(deviation, _deviation, Deviation, "deviation")
    return Quadrangle(f"{S.name}+{D.name}", S, D, {"statistic": S.parameters, "deviation": D.parameters})


_statistic, _deviation = statistic, deviation
