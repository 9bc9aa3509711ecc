"""What other packages bring: norms, networks and data sets, named by path or entry point. Needs no torch.

A path is ``their.module:Layer`` or ``their.module.Layer``. A package can also provide names of its own, after which
``norm=their_norm`` works like a choice of our own::

    [project.entry-points."gbn.norms"]
    their_norm = "their.module:Layer"

Networks are offered in ``gbn.models``, data sets in ``gbn.datasets``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from gbn.suggest import did_you_mean

__all__ = ["DATASET", "KINDS", "MODEL", "NORM", "Kind", "check_options", "offered", "resolve"]


@dataclass(frozen=True)
class Kind:
    """One kind of thing that other packages bring.

    Attributes:
        group: its entry-point group, which packages use in their metadata.
        example: the last part of a path in a message.
        noun: what the target must be.
    """

    group: str
    example: str
    noun: str


NORM = Kind("gbn.norms", "Layer", "a layer class or a function")
MODEL = Kind("gbn.models", "Net", "a network class or a function")
DATASET = Kind("gbn.datasets", "load", "a function")

#: By the group of the configuration.
KINDS = {"norm": NORM, "model": MODEL, "dataset": DATASET}


def offered(kind: Kind) -> dict[str, str]:
    """Return what installed packages offer as entry points: name -> their.module:Layer."""
    return {point.name: point.value for point in entry_points(group=kind.group)}


def resolve(kind: Kind, target: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return the callable that ``target`` is or names, by entry point or by path.

    Raises:
        ValueError: if nothing of that name can be found or what is found cannot be called.
    """
    if callable(target):
        return target
    names = offered(kind)
    path = names.get(target, target)
    module, _, name = path.rpartition(":" if ":" in path else ".")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing runs their code
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"target {target!r} cannot be loaded ({said}): give their.module:{kind.example}, "
            f"their.module.{kind.example} or an entry point of group {kind.group} "
            f"({', '.join(sorted(names)) or 'none installed'})"
        ) from error
    if not callable(found):
        raise ValueError(f"target {target!r} is of type {type(found).__name__}, not {kind.noun}")
    return found


def check_options(
    target: Any, build: Callable[..., Any], given: Iterable[str], ours: Iterable[str]
) -> set[str]:
    """Return which of the arguments that we provide, ``ours``, a target takes.

    Raises:
        ValueError: the target has no option of a given name, or it is one that we provide.
    """
    parameters = inspect.signature(build).parameters.values()
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters)
    named = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    ours = list(ours)
    allowed = [name for name in named if name not in ours]
    for option in given:
        if option in ours or (option not in allowed and not anything):
            raise ValueError(
                f"target {target!r} has no option {option!r}{did_you_mean(option, allowed)}; "
                f"allowed in kwargs: {', '.join(allowed) or 'none'}"
            )
    return {name for name in ours if name in named or anything}
