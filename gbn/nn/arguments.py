"""Checks of the arguments that norm layers share with torch's BatchNorm, made before anything is built.

A layer takes BatchNorm's arguments in BatchNorm's order, including torch 2.13's ``bias`` whatever version of torch
is installed; its own arguments are keyword-only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

__all__ = ["check_arguments", "refuse_components_as_eps"]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_flag(value: Any) -> bool:
    return isinstance(value, Integral) and value in (0, 1)  # bool is Integral


#: The allowed values of each argument: a test, and its description.
_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_features": (_is_count(1), "an integer, at least 1"),
    "eps": (lambda value: _is_number(value) and value >= 0, "a finite number, at least 0"),
    "momentum": (
        lambda value: value is None or (_is_number(value) and 0 <= value <= 1),
        "a number from 0 to 1, or None for the plain average over all batches",
    ),
    "affine": (_is_flag, "True or False"),
    "track_running_stats": (_is_flag, "True or False"),
    "bias": (_is_flag, "True or False"),
    "rescaled": (_is_flag, "True or False"),
    "samples": (lambda value: value is None or _is_count(2)(value), "an integer, at least 2, or None"),
    "gate_bias": (_is_number, "a finite number, for example -1.0"),
    "groups": (_is_count(1), "an integer, at least 1"),
}


def check_arguments(**given: Any) -> None:
    """Raise ValueError if an argument has a value that is not allowed; unknown arguments are not checked."""
    for name, value in given.items():
        if name in _ALLOWED and not _ALLOWED[name][0](value):
            raise ValueError(
                f"{name}={value!r} is not allowed: it must be {_ALLOWED[name][1]}{_hint(name, value)}"
            )


def _hint(name: str, value: Any) -> str:
    if name == "eps" and isinstance(value, str):  # in earlier versions the second argument was the pair
        return f"; a pair is given by keyword, as quadrangle={value!r}"
    return ""


def refuse_components_as_eps(eps: Any) -> None:
    """Raise ValueError for an integer of 1 or more as the eps of a mixture: it was meant to count components."""
    if _is_count(1)(eps):
        raise ValueError(
            f"eps={eps} of a mixture is taken for its number of components, which is given by keyword, as "
            f"components={eps}; for so large an eps write {float(eps)}"
        )
