"""Build the norm layers of a network from a method and its options.

A model calls the factory, ``norm(num_features, act="relu", dim=2, role="body")``, once per norm layer, and knows
nothing else about normalization. The configuration group ``norm`` has the same options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import torch
from torch import nn

from gbn.kernels.activation import check_activation
from gbn.methods import CONTROLLED, METHODS, NAMED, Method, WithoutAct
from gbn.nn.arguments import check_arguments
from gbn.nn.custom import check_custom
from gbn.nn.methods import accepted, build, with_mean
from gbn.nn.placement import ROLES, Placement, Site, mark, place
from gbn.suggest import did_you_mean

__all__ = ["NormFactory", "norm_layer"]

#: The options of batch normalization, in which norms of other places follow the arm.
_SHARED = accepted(METHODS["bn"])


class NormFactory:
    """Builds the norm layers of one arm; see :func:`norm_layer`. Immutable and picklable."""

    def __init__(
        self,
        method: str,
        *,
        without_act: str = "same",
        placement: Mapping[str, Any] | Placement | None = None,
        **options: Any,
    ) -> None:
        method, options = _named(method, options)
        self.method = method
        self.options = _checked_options(METHODS[method], options)
        if without_act not in get_args(WithoutAct):
            raise ValueError(_unknown("without_act", without_act, get_args(WithoutAct)))
        if without_act == "mean" and not (METHODS[method].has_pair or method == "bn"):
            raise ValueError(f"without_act='mean' keeps a pair's deviation; method {method!r} has no pair")
        self.without_act = without_act
        self.placement = placement if isinstance(placement, Placement) else Placement.from_mapping(placement)
        if method == "custom":  # a foreign layer may not allow any size
            check_custom(self.options)
        else:
            build(METHODS[method], Site(4, None, 2, "body"), self.options)

    def accepts(self, option: str) -> bool:
        """Return whether the method has this option."""
        return option in accepted(METHODS[self.method])

    def with_options(self, **options: Any) -> NormFactory:
        """Return a factory with these options instead of its own; the same object if there are none."""
        if not options:
            return self
        given = {**self.options, **options}
        return NormFactory(self.method, without_act=self.without_act, placement=self.placement, **given)

    @property
    def needs_bias(self) -> bool:
        """True if the convolutions before these layers need a bias of their own because nothing else adds one."""
        return METHODS[self.method].statistics == "none"

    def __call__(
        self,
        num_features: int,
        act: str | None = "relu",
        dim: int = 2,
        role: str = "body",
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> nn.Module:
        """Return the layer for one site of a network.

        Args:
            num_features: number of channels.
            act: activation of this site, applied by the layer; None if no activation follows.
            dim: 1 for ``(N, C)`` and ``(N, C, L)``, 2 for images, 3 for volumes.
            role: stem, body, branch_end (the last norm of a residual branch) or shortcut.
            device, dtype: of the layer's parameters and buffers.

        Raises:
            ValueError: for a value that is not allowed.
        """
        check_activation(act)
        if dim not in (1, 2, 3):
            raise ValueError(f"dim={dim!r}: allowed are 1, 2, 3")
        if role not in ROLES:
            raise ValueError(_unknown("role", role, ROLES))
        site = Site(num_features, act, dim, role)
        return self._build(site, self.placement.takes_role(role), device, dtype)

    def place(self, model: nn.Module) -> nn.Module:
        """Apply the placement's module-path patterns to a model built with this factory.

        Norms of this factory whose path matches no pattern are replaced by ``placement.otherwise``; without
        patterns nothing happens. Returns the model (a different object only if the model is itself a single
        norm layer).

        Raises:
            ValueError: if a pattern matches no norm; the message lists the paths of the norms.
        """
        return place(
            model, self.placement, lambda site, device, dtype: self._build(site, False, device, dtype)
        )

    def _build(self, site: Site, inside: bool, device: Any, dtype: torch.dtype | None) -> nn.Module:
        method, options = METHODS[self.method], self.options
        if not inside:
            method, options = METHODS[self.placement.otherwise], self._shared_with(self.placement.otherwise)
        elif site.act is None and self.without_act == "bn":
            method, options = METHODS["bn"], self._shared_with("bn")
        elif site.act is None and self.without_act == "mean" and method.has_pair:
            options = with_mean(method, options)
        return mark(build(method, site, {**options, "device": device, "dtype": dtype}), site)

    def _shared_with(self, method: str) -> dict[str, Any]:
        """Return this arm's eps, momentum, ... for a site that uses another method."""
        shared = _SHARED & accepted(METHODS[method])
        return {key: value for key, value in self.options.items() if key in shared}

    def __repr__(self) -> str:
        parts = [repr(self.method), *(f"{key}={value!r}" for key, value in self.options.items())]
        if self.without_act != "same":
            parts.append(f"without_act={self.without_act!r}")
        if self.placement != Placement():
            parts.append(f"placement={self.placement}")
        return f"norm_layer({', '.join(parts)})"


def norm_layer(method: str, **options: Any) -> NormFactory:
    """Return the factory for a method of :data:`gbn.methods.METHODS` or for a named configuration of ``conf/norm``.

    Args:
        method: bn, gbn, iebn, bn_matched, bn_reparam, bn_measured_matched, bn_measured_reparam, bn_tracking, mixture,
            layer, group, instance, none, custom; or a name that is short for a method with options, such as gbn_cvar
            or gbn_mad (:data:`gbn.methods.NAMED`). Such a name is also allowed as a control's ``matched_to``.
        **options: the options of the method (``METHODS[method].options``; None counts as not given, except for
            ``momentum``), the parameters of its pair, and for every method

            * ``without_act``: the norm to use where no activation follows: ``same`` (the method), ``bn``, or
              ``mean`` (the pair's deviation about the mean);
            * ``placement``: ``{"roles": [...] or None, "pattern": [...] or None, "otherwise": "bn" or
              "none"}``: use the method only in these roles and, after :meth:`NormFactory.place`, only at these
              module paths (fnmatch).

    Raises:
        ValueError: for an unknown method or option or a value out of range; the message says what is allowed.

    Example:
        >>> norm = norm_layer("gbn_cvar", alpha=0.9)
        >>> norm = norm_layer("gbn", quadrangle="cvar", alpha=0.75, without_act="bn")
        >>> norm(16, act="relu", dim=2, role="stem")  # doctest: +SKIP
    """
    return NormFactory(method, **options)


def _named(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the method that a name stands for, and the name's options overridden by those given."""
    if name not in METHODS and name not in NAMED:
        raise ValueError(_unknown("method", name, (*METHODS, *(key for key in NAMED if key not in METHODS))))
    method, ready = NAMED.get(name, (name, {}))
    given = {key: value for key, value in options.items() if value is not None or key not in ready}
    return method, {**ready, **given}


def _checked_options(method: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options; raise ValueError for one that the method does not have."""
    names = accepted(method)
    kept = {key: value for key, value in given.items() if value is not None or key in _SHARED}
    for key, value in kept.items():
        if key not in names:
            raise ValueError(f"method {method.name!r}: {_unknown('option', key, sorted(names))}")
        allowed = method.options[key].type if key in method.options else Any
        if get_origin(allowed) is Literal and value not in get_args(allowed):
            raise ValueError(_unknown(key, value, get_args(allowed)))
    check_arguments(**{key: value for key, value in kept.items() if key in _SHARED or key == "rescaled"})
    if isinstance(kept.get("matched_to"), str):
        kept["matched_to"] = _matched_to(kept["matched_to"])
    return kept


def _matched_to(name: str) -> dict[str, Any]:
    """Return what a control is matched to, given its name in ``conf/norm``."""
    named = {key: dict(ready) for key, (method, ready) in NAMED.items() if method in CONTROLLED}
    named |= {method: {"method": method} for method in CONTROLLED if not METHODS[method].has_pair}
    if name not in named:
        raise ValueError(_unknown("matched_to", name, named))
    return named[name]


def _unknown(what: str, given: Any, allowed: Any) -> str:
    return f"unknown {what} {given!r}{did_you_mean(given, allowed)}: allowed are {', '.join(allowed)}"
