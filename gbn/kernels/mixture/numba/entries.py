# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""The compiled entry points: ``void (int64)``, given the address of a table (:mod:`.call`).

Passes are compiled separately for each number of components.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gbn.kernels.numba import objects
from gbn.kernels.numba.memory import doubles, integers

from . import em, joint_last, joint_planes, settle
from .call import EPS

__all__ = ["FACTORIES", "OF_ANY", "entry", "name_of"]

Like = tuple[int, ...]


def _logits(like: Like) -> Any:
    def logits(address):
        settle.logits_of(integers(address))

    return logits


def _measured(like: Like) -> Any:
    def measured(address):
        settle.measured(integers(address), doubles(address)[EPS])

    return measured


def _differentiated(like: Like) -> Any:
    def differentiated(address):
        settle.differentiated(integers(address), doubles(address)[EPS])

    return differentiated


def _moments(like: Like) -> Any:
    def moments(address):
        joint_planes.moments(integers(address), like)

    return moments


def _normalize(like: Like) -> Any:
    def normalize(address):
        joint_planes.normalize(integers(address), like)

    return normalize


def _reduce(like: Like) -> Any:
    def reduce(address):
        joint_planes.reduce(integers(address), like)

    return reduce


def _differentiate(like: Like) -> Any:
    def differentiate(address):
        joint_planes.differentiate(integers(address), like)

    return differentiate


def _moments_last(like: Like) -> Any:
    def moments_last(address):
        joint_last.moments_last(integers(address), like)

    return moments_last


def _normalize_last(like: Like) -> Any:
    def normalize_last(address):
        joint_last.normalize_last(integers(address), like)

    return normalize_last


def _reduce_last(like: Like) -> Any:
    def reduce_last(address):
        joint_last.reduce_last(integers(address), like)

    return reduce_last


def _differentiate_last(like: Like) -> Any:
    def differentiate_last(address):
        joint_last.differentiate_last(integers(address), like)

    return differentiate_last


def _fit_joint(like: Like) -> Any:
    def fit_joint(address):
        em.fit_joint(integers(address), like)

    return fit_joint


#: Entry points by name; each is made for a number of components, 0 if it does not depend on it.
FACTORIES: dict[str, Callable[[Like], Any]] = {
    "moments": _moments,
    "normalize": _normalize,
    "reduce": _reduce,
    "differentiate": _differentiate,
    "moments_last": _moments_last,
    "normalize_last": _normalize_last,
    "reduce_last": _reduce_last,
    "differentiate_last": _differentiate_last,
    "fit_joint": _fit_joint,
    "logits": _logits,
    "measured": _measured,
    "differentiated": _differentiated,
}
#: Entry points that do not depend on the number of components.
OF_ANY = frozenset(("logits", "measured", "differentiated"))


def name_of(name: str, components: int) -> str:
    """Return an entry point's full name (:mod:`gbn.kernels.numba.objects`); raise KeyError for an unknown one."""
    return f"{FACTORIES[name].__module__}:{name}:{0 if name in OF_ANY else components}"


def entry(name: str, components: int) -> objects.Entry:
    """Return an entry point; see :func:`gbn.kernels.numba.objects.entry`."""
    return objects.entry(name_of(name, components))
