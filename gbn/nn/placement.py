"""Placement of a method in a network, by the role of the site or by the module path."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, get_args

import torch
from torch import nn

from gbn.methods import ROLES, Otherwise

__all__ = ["ROLES", "Placement", "Site", "check_roles", "copy_mark", "mark", "place"]

_MARK = "norm_site"


@dataclasses.dataclass(frozen=True)
class Site:
    """A place in a network that holds a norm layer: the arguments of the model's call."""

    num_features: int
    act: str | None
    dim: int
    role: str


def check_roles(option: str, roles: Iterable[str]) -> None:
    """Raise ValueError for a role that is not in :data:`ROLES`."""
    for role in roles:
        if role not in ROLES:
            raise ValueError(f"{option}: unknown role {role!r}: allowed are {', '.join(ROLES)}")


@dataclasses.dataclass(frozen=True)
class Placement:
    """The roles and module-path patterns where a method is used (None for all), and the norm used elsewhere."""

    roles: tuple[str, ...] | None = None
    pattern: tuple[str, ...] | None = None
    otherwise: str = "bn"

    def __post_init__(self) -> None:
        check_roles("placement.roles", self.roles or ())
        if self.otherwise not in get_args(Otherwise):
            raise ValueError(
                f"placement.otherwise={self.otherwise!r}: allowed are {', '.join(get_args(Otherwise))}"
            )

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any] | None) -> Placement:
        """Build from ``{"roles": ..., "pattern": ..., "otherwise": ...}``; a string counts as a list of one."""
        mapping = dict(given or {})
        allowed = [field.name for field in dataclasses.fields(cls)]
        for key in mapping:
            if key not in allowed:
                raise ValueError(f"placement: unknown key {key!r}: allowed are {', '.join(allowed)}")
        for key in ("roles", "pattern"):
            value = mapping.get(key)
            if value is not None:
                mapping[key] = (value,) if isinstance(value, str) else tuple(value)
        return cls(**mapping)

    def takes_role(self, role: str) -> bool:
        """Return whether the method is used in this role."""
        return self.roles is None or role in self.roles

    def takes_path(self, path: str) -> bool:
        """Return whether the method is used at this module path."""
        return self.pattern is None or any(fnmatchcase(path, pattern) for pattern in self.pattern)


def mark(layer: nn.Module, site: Site) -> nn.Module:
    """Attach a layer's site to it, for :func:`place`, and return it; the mark survives copying and pickling."""
    setattr(layer, _MARK, site)
    return layer


def copy_mark(old: nn.Module, new: nn.Module) -> None:
    """Give ``new`` the site of ``old``, if that is known."""
    if hasattr(old, _MARK):
        mark(new, getattr(old, _MARK))


def place(
    model: nn.Module,
    placement: Placement,
    build: Callable[[Site, Any, torch.dtype | None], nn.Module],
) -> nn.Module:
    """Replace the marked layers of ``model`` whose path matches no pattern by ``build(site, device, dtype)``.

    Raises:
        ValueError: if a pattern matches none of the model's norms.
    """
    if placement.pattern is None:
        return model
    found = {path: layer for path, layer in model.named_modules() if hasattr(layer, _MARK)}
    for pattern in placement.pattern:
        if not any(fnmatchcase(path, pattern) for path in found):
            raise ValueError(f"placement.pattern {pattern!r} matches no norm; they are {', '.join(found)}")
    for path, layer in found.items():
        if placement.takes_path(path):
            continue
        tensor = next(chain(layer.parameters(), layer.buffers()), None)
        device, dtype = (None, None) if tensor is None else (tensor.device, tensor.dtype)
        new = build(getattr(layer, _MARK), device, dtype).train(layer.training)
        if not path:
            return new
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, new)
    return model
