# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""The compiled entry points: ``void (int64)``, given the address of a table (:mod:`.call`).

Passes are compiled separately for each number of components.
"""

from __future__ import annotations

from gbn.kernels.numba import objects

from . import em, joint_last, joint_planes, settle
from .call import read

__all__ = ["FACTORIES", "OF_ANY", "entry", "name_of"]


def _factory(function, of_any=False):
    """Return a function that makes an entry point for tuples like ``like``, whose length is K."""

    def factory(like):
        def entry_of_any(address):
            function(read(address))

        def entry_of_components(address):
            function(read(address), like)

        return entry_of_any if of_any else entry_of_components

    return factory


_OF_ANY = {"logits": settle.logits_of, "measured": settle.measured, "differentiated": settle.differentiated}
_PASSES = {
    "moments": joint_planes.moments,
    "normalize": joint_planes.normalize,
    "reduce": joint_planes.reduce,
    "differentiate": joint_planes.differentiate,
    "moments_last": joint_last.moments_last,
    "normalize_last": joint_last.normalize_last,
    "reduce_last": joint_last.reduce_last,
    "differentiate_last": joint_last.differentiate_last,
    "fit_joint": em.fit_joint,
}
#: Entry points that do not depend on the number of components.
OF_ANY = frozenset(_OF_ANY)
#: Entry points by name; each is made for a number of components, 0 if it does not depend on it.
FACTORIES = {name: _factory(function) for name, function in _PASSES.items()} | {
    name: _factory(function, of_any=True) for name, function in _OF_ANY.items()
}


def name_of(name: str, components: int) -> str:
    """Return an entry point's full name (:mod:`gbn.kernels.numba.objects`); raise KeyError for an unknown one."""
    return f"{FACTORIES[name].__module__}:{name}:{0 if name in OF_ANY else components}"


def entry(name: str, components: int) -> objects.Entry:
    """Return an entry point; see :func:`gbn.kernels.numba.objects.entry`."""
    return objects.entry(name_of(name, components))
