"""Builds the layers of the methods in :data:`gbn.methods.METHODS`; each names its layer, or a function here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from torch import nn

from gbn.methods import GATE_BIAS, METHODS, Method, matched_method, options_of, roles_of_the_gate
from gbn.nn.pairs import Pair, pair_from_options
from gbn.nn.placement import Site, check_roles
from gbn.nn.simple import Activation
from gbn.risk.parameters import QUADRANGLE_PARAMETERS

__all__ = ["accepted", "build", "with_mean"]

_PAIR = frozenset(
    {"quadrangle", "statistic", "deviation"}.union(*(row.keys() for row in QUADRANGLE_PARAMETERS.values()))
)


def accepted(method: Method) -> frozenset[str]:
    """Return the names of a method's options, with those that only Python has: parameters of pairs, torch's bias."""
    names = frozenset(method.options)
    return names | (_PAIR if "statistic" in names else set()) | ({"bias"} if "affine" in names else set())


def build(method: Method, site: Site, options: Mapping[str, Any]) -> nn.Module:
    """Return the layer of a method for one site of a network; raise ValueError if the options allow none."""
    made = resolve_name(method.layer.format(dim=site.dim))
    return _layer(made, site, options) if isinstance(made, type) else made(method, site, options)


def _layer(layer: str | type, site: Site, options: Mapping[str, Any]) -> nn.Module:
    made = resolve_name(layer.format(dim=site.dim)) if isinstance(layer, str) else layer
    taken = inspect.signature(made).parameters
    place = {key: getattr(site, key) for key in ("dim", "role") if key in taken}
    return made(site.num_features, act=site.act, **place, **options)


def batch_norm(method: Method, site: Site, options: Mapping[str, Any]) -> nn.Module:
    """Return torch's own batch normalization where no activation follows."""
    if site.act is None and options.get("bias", True):  # torch before 2.13 has no argument `bias`
        rest = {key: value for key, value in options.items() if key != "bias"}
        return getattr(nn, f"BatchNorm{site.dim}d")(site.num_features, **rest)
    return _layer("gbn.nn.batchnorm:BatchNormAct{dim}d", site, options)


def generalized(method: Method, site: Site, options: Mapping[str, Any]) -> nn.Module:
    """Return generalized batch normalization, with a gate in the places of instance enhancement."""
    gate, options = _gate(site, options)
    return _pair_layer(
        "gbn.nn.generalized:GeneralizedBatchNorm{dim}d",
        "gbn.nn.instance_enhancement:InstanceEnhancementBatchNorm{dim}d",
        site,
        gate,
        options,
    )


def _pair_layer(
    plain: str, gated: str, site: Site, gate: Mapping[str, float], options: Mapping[str, Any]
) -> nn.Module:
    if not gate:
        return _layer(plain, site, options)
    return _layer(
        gated, site, {"quadrangle": "cvar", **gate, **options}
    )  # the default of the layer without a gate


def enhanced(method: Method, site: Site, options: Mapping[str, Any]) -> nn.Module:
    """Return batch normalization, with a gate in the places of instance enhancement."""
    gate, rest = _gate(site, options)
    if gate:
        return generalized(method, site, options)
    return batch_norm(method, site, {key: value for key, value in rest.items() if key != "quadrangle"})


def control(method: Method, site: Site, options: Mapping[str, Any]) -> nn.Module:
    """Return the control of a pair or of mixture normalization."""
    matched, name = _matched(method, options)
    of, layer = METHODS[name], method.control_of[name]
    if not isinstance(matched, Mapping):  # a Pair, or what the layer refuses
        return _layer(layer, site, options)
    gate, inner = _gate(site, {key: value for key, value in matched.items() if key != "method"})
    if of.has_pair:
        return _layer(layer, site, {**options, **gate, "matched_to": inner})
    allowed = sorted(options_of(method.name, matched).keys() - method.options.keys())
    for key in inner:
        if key not in allowed:
            raise ValueError(
                f"matched_to: unknown key {key!r}; allowed with method={name}: {', '.join(allowed)}"
            )
    rest = {key: value for key, value in options.items() if key not in ("matched_to", "rescaled", "samples")}
    for key in ("rescaled", "samples"):
        if options.get(key):
            raise ValueError(f"{key} belongs to the controls of a pair; {name} has none")
    return _layer(layer, site, {**rest, **inner})


def tracking(method: Method, site: Site, options: Mapping[str, Any]) -> nn.Module:
    """Return the control of a pair that has the pair's forward pass."""
    matched, _ = _matched(method, options)
    if isinstance(matched, Pair):
        matched = {"statistic": matched.statistic, "deviation": matched.deviation}
    gate, inner = _gate(site, {key: value for key, value in matched.items() if key != "method"})
    # Everything else that it holds must be the pair's.
    pair_from_options({key: value for key, value in inner.items() if key != "rescaled"})
    rest = {key: value for key, value in options.items() if key != "matched_to"}
    plain, gated = method.control_of["gbn"], method.control_of["iebn"]
    return _pair_layer(plain, gated, site, gate, {**rest, **inner})


def _matched(method: Method, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return what a control is matched to, and the method of that."""
    matched = options.get("matched_to")
    if matched is None:
        raise ValueError(
            f"method {method.name!r} is the control of a pair, or of mixture normalization, and needs matched_to, "
            "for example matched_to='gbn_cvar', {'quadrangle': 'cvar', 'alpha': 0.9} or {'method': 'mixture', "
            "'components': 3}"
        )
    name = matched_method(matched)
    if name not in method.control_of:
        raise ValueError(f"matched_to: unknown method {name!r}; allowed are {', '.join(method.control_of)}")
    return matched, name


def activation(method: Method, site: Site, options: Mapping[str, Any]) -> nn.Module:
    """Return the activation of a site."""
    return Activation(site.act)


def _gate(site: Site, options: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the initial bias of the gate at this site, nothing where there is none, and the other options."""
    rest = dict(options)
    roles = roles_of_the_gate(rest.pop("instance_enhancement", False))
    bias = rest.pop("gate_bias", None)
    check_roles("instance_enhancement", roles)
    if not roles and bias is not None:
        raise ValueError(
            "gate_bias belongs to the gate of instance_enhancement, which is off: set it to true"
        )
    return ({"gate_bias": GATE_BIAS if bias is None else bias} if site.role in roles else {}), rest


def with_mean(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the pair (mean, D) instead of (S, D)."""
    matched = options.get("matched_to")
    if isinstance(matched, Pair):
        return {**options, "matched_to": matched.with_mean()}
    if matched is not None:
        return {**options, "matched_to": with_mean(METHODS[matched_method(matched)], matched)}
    if "statistic" not in method.options:
        return dict(options)
    pair = pair_from_options({key: options[key] for key in _PAIR & options.keys()}, "cvar").with_mean()
    rest = {key: value for key, value in options.items() if key not in _PAIR}
    return {**rest, "statistic": pair.statistic, "deviation": pair.deviation}
