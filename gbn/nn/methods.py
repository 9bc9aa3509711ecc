"""The registry of normalization methods: a name, its options, and how a layer is built.

A new method is one file with its layer and one :func:`register` call; the shared tests then cover it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from gbn.nn import (
    batchnorm,
    controls,
    generalized,
    instance_enhancement,
    measured_controls,
    mixture,
    mixture_controls,
    simple,
)
from gbn.nn.custom import build_custom, check_custom
from gbn.nn.pairs import Pair, pair_from_options
from gbn.nn.placement import ENHANCED_ROLES, Site, check_roles
from gbn.risk.parameters import QUADRANGLE_PARAMETERS

__all__ = ["COMMON_DEFAULTS", "METHODS", "Method", "register"]

# Options that every configuration contains, with their defaults; a method that does not use one accepts only its
# default.
COMMON_DEFAULTS: dict[str, Any] = {
    "eps": 1e-5,
    "momentum": 0.1,
    "affine": True,
    "bias": True,
    "track_running_stats": True,
    "rescaled": False,
}
_BATCH = frozenset({"eps", "momentum", "affine", "bias", "track_running_stats"})
_GATE = frozenset({"instance_enhancement", "gate_bias"})
#: Options for fitting a mixture, which the controls of mixture normalization share.
_FIT = frozenset({"components", "mixture", "em_steps", "subset", "variance_floor"})
_PAIR = frozenset(
    {"quadrangle", "statistic", "deviation"}.union(*(row.keys() for row in QUADRANGLE_PARAMETERS.values()))
)


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of :data:`METHODS`."""

    name: str
    summary: str
    options: frozenset[str]
    build: Callable[[Site, Mapping[str, Any]], nn.Module]
    batch_statistics: bool  # whether training mode normalizes by batch statistics
    has_pair: bool = False
    open_ended: bool = False  # the options are those of a foreign layer

    def accepts(self, option: str) -> bool:
        """Return whether the method has this option."""
        return option in self.options

    def validate(self, options: Mapping[str, Any]) -> None:
        """Raise ValueError for options that no layer can be built with."""
        if self.open_ended:
            check_custom(options)
        else:
            self.build(Site(4, None, 2, "body"), options)

    def with_mean(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options with the pair (mean, D) instead of (S, D)."""
        if self.name == "iebn":
            return dict(options)
        if self.name == "gbn":
            pair = _pair(options).with_mean()
            rest = {key: value for key, value in options.items() if key not in _PAIR}
            return {**rest, "statistic": pair.statistic, "deviation": pair.deviation}
        if isinstance(options["matched_to"], Pair):
            return {**options, "matched_to": options["matched_to"].with_mean()}
        matched = dict(options["matched_to"])
        if matched.get("method") == "mixture":
            return dict(options)
        pair = pair_from_options({key: value for key, value in matched.items() if key in _PAIR}).with_mean()
        rest = {key: value for key, value in matched.items() if key not in _PAIR}
        return {**options, "matched_to": {**rest, "statistic": pair.statistic, "deviation": pair.deviation}}


METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Add a method to :data:`METHODS` and return it; raise ValueError if the name is taken."""
    if method.name in METHODS:
        raise ValueError(f"norm method {method.name!r} is registered already")
    METHODS[method.name] = method
    return method


def _pair(options: Mapping[str, Any]) -> Pair:
    return pair_from_options({key: options[key] for key in _PAIR & options.keys()}, default_quadrangle="cvar")


_Layers = Mapping[int, Callable[..., nn.Module]]


def _by_dim(prefix: str, module: Any) -> _Layers:
    return {dim: getattr(module, f"{prefix}{dim}d") for dim in (1, 2, 3)}


_TORCH_BN = _by_dim("BatchNorm", nn)
_BN = _by_dim("BatchNormAct", batchnorm)
_GBN = _by_dim("GeneralizedBatchNorm", generalized)
_ENHANCED = _by_dim("InstanceEnhancementBatchNorm", instance_enhancement)
_MATCHED = _by_dim("MatchedBatchNorm", controls)
_REPARAM = _by_dim("ReparametrizedBatchNorm", controls)
_MEASURED = {
    "bn_measured_matched": _by_dim("MeasuredMatchedBatchNorm", measured_controls),
    "bn_measured_reparam": _by_dim("MeasuredReparametrizedBatchNorm", measured_controls),
}
_TRACKING = _by_dim("TrackingBatchNorm", measured_controls)
_ENHANCED_TRACKING = _by_dim("InstanceEnhancementTrackingBatchNorm", measured_controls)
_MIXTURE = _by_dim("MixtureNorm", mixture)
_MIXTURE_CONTROLS = {
    "bn_matched": _by_dim("MixtureMatchedBatchNorm", mixture_controls),
    "bn_reparam": _by_dim("MixtureReparametrizedBatchNorm", mixture_controls),
}
_INSTANCE = _by_dim("InstanceNormAct", simple)


def _build_bn(site: Site, options: Mapping[str, Any]) -> nn.Module:
    if site.act is None and options.get("bias", True):  # torch before 2.13 has no argument `bias`
        rest = {key: value for key, value in options.items() if key != "bias"}
        return _TORCH_BN[site.dim](site.num_features, **rest)
    return _BN[site.dim](site.num_features, act=site.act, **options)


def _gated(site: Site, options: Mapping[str, Any], default: bool) -> tuple[float | None, dict[str, Any]]:
    """Return the initial gate bias of this site (None for no gate) and the other options."""
    rest = {key: value for key, value in options.items() if key not in _GATE}
    roles = options.get("instance_enhancement", default)
    if isinstance(roles, bool):
        roles = ENHANCED_ROLES if roles else ()
    elif isinstance(roles, str):
        roles = (roles,)
    check_roles("instance_enhancement", roles)
    if not roles and "gate_bias" in options:
        raise ValueError(
            "gate_bias belongs to the gate of instance_enhancement, which is off: set it to true"
        )
    return (options.get("gate_bias", instance_enhancement.GATE_BIAS) if site.role in roles else None), rest


def _build_gbn(site: Site, options: Mapping[str, Any]) -> nn.Module:
    return _build_pair(_GBN, _ENHANCED, site, options)


def _build_pair(plain: _Layers, enhanced: _Layers, site: Site, options: Mapping[str, Any]) -> nn.Module:
    gate_bias, options = _gated(site, options, default=False)
    if gate_bias is None:
        return plain[site.dim](site.num_features, act=site.act, **options)
    options = {"quadrangle": "cvar", **options}  # the default of the layer without a gate
    return enhanced[site.dim](site.num_features, act=site.act, gate_bias=gate_bias, **options)


def _build_iebn(site: Site, options: Mapping[str, Any]) -> nn.Module:
    gate_bias, options = _gated(site, options, default=True)
    if gate_bias is None:
        return _build_bn(site, options)
    return _ENHANCED[site.dim](site.num_features, act=site.act, gate_bias=gate_bias, **options)


def _build_matched(site: Site, options: Mapping[str, Any]) -> nn.Module:
    return _build_control(_MATCHED, "bn_matched", site, options)


def _build_reparam(site: Site, options: Mapping[str, Any]) -> nn.Module:
    return _build_control(_REPARAM, "bn_reparam", site, options)


def _build_measured_matched(site: Site, options: Mapping[str, Any]) -> nn.Module:
    return _build_control(_MEASURED["bn_measured_matched"], "bn_measured_matched", site, options)


def _build_measured_reparam(site: Site, options: Mapping[str, Any]) -> nn.Module:
    return _build_control(_MEASURED["bn_measured_reparam"], "bn_measured_reparam", site, options)


def _build_tracking(site: Site, options: Mapping[str, Any]) -> nn.Module:
    matched = _control_options("bn_tracking", options)["matched_to"]
    rest = {key: value for key, value in options.items() if key != "matched_to"}
    if isinstance(matched, Pair):
        matched = {"statistic": matched.statistic, "deviation": matched.deviation}
    _refuse_mixture("bn_tracking", matched)
    # Everything else that it holds must be the pair's.
    pair_from_options({key: value for key, value in matched.items() if key not in _GATE | {"rescaled"}})
    return _build_pair(_TRACKING, _ENHANCED_TRACKING, site, {**rest, **matched})


def _refuse_mixture(method: str, matched: Mapping[str, Any]) -> None:
    if matched.get("method") == "mixture":
        raise ValueError(
            f"method {method!r} is the control of a pair, not of mixture normalization, whose bn_matched and "
            "bn_reparam are measured on the first batch already"
        )


def _build_control(layers: _Layers, method: str, site: Site, options: Mapping[str, Any]) -> nn.Module:
    matched: Any = _control_options(method, options)["matched_to"]
    gate_bias = None
    if isinstance(matched, Mapping) and matched.get("method") == "mixture":
        if method not in _MIXTURE_CONTROLS:
            _refuse_mixture(method, matched)
        return _build_mixture_control(method, site, options)
    if not isinstance(matched, Pair):
        gate_bias, matched = _gated(site, matched, default=False)
    return layers[site.dim](
        site.num_features, act=site.act, gate_bias=gate_bias, **{**options, "matched_to": matched}
    )


def _build_mixture_control(method: str, site: Site, options: Mapping[str, Any]) -> nn.Module:
    for key in ("rescaled", "samples"):
        if options.get(key):
            raise ValueError(f"{key} belongs to the controls of a pair; mixture normalization has none")
    fit = {key: value for key, value in options["matched_to"].items() if key != "method"}
    for key in fit:
        if key not in _FIT:
            raise ValueError(
                f"matched_to: unknown key {key!r}; allowed with method=mixture: {', '.join(sorted(_FIT))}"
            )
    rest = {key: value for key, value in options.items() if key not in ("matched_to", "rescaled", "samples")}
    return _MIXTURE_CONTROLS[method][site.dim](site.num_features, act=site.act, **rest, **fit)


def _control_options(method: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    if options.get("matched_to") is None:
        raise ValueError(
            f"method {method!r} is the control of a pair, or of mixture normalization, and needs matched_to, for "
            "example matched_to='gbn_cvar', {'quadrangle': 'cvar', 'alpha': 0.75} or {'method': 'mixture', "
            "'components': 3}"
        )
    return options


def _build_mixture(site: Site, options: Mapping[str, Any]) -> nn.Module:
    return _MIXTURE[site.dim](site.num_features, act=site.act, **options)


def _build_layer(site: Site, options: Mapping[str, Any]) -> nn.Module:
    return simple.LayerNormAct(site.num_features, act=site.act, **options)


def _build_group(site: Site, options: Mapping[str, Any]) -> nn.Module:
    return simple.GroupNormAct(site.num_features, act=site.act, **options)


def _build_instance(site: Site, options: Mapping[str, Any]) -> nn.Module:
    return _INSTANCE[site.dim](site.num_features, act=site.act, **options)


def _build_none(site: Site, options: Mapping[str, Any]) -> nn.Module:
    return simple.Activation(site.act)


_PER_IMAGE = frozenset({"eps", "affine", "bias"})
for _row in (
    Method("bn", "batch normalization, torch's own", _BATCH, _build_bn, True),
    Method(
        "gbn",
        "generalized batch normalization with a (statistic, deviation) pair",
        _BATCH | _PAIR | _GATE | {"rescaled", "samples", "start"},
        _build_gbn,
        True,
        has_pair=True,
    ),
    Method(
        "iebn",
        "instance enhancement batch normalization: BN with its gain gated per image",
        _BATCH | _GATE,
        _build_iebn,
        True,
        has_pair=True,
    ),
    Method(
        "bn_matched",
        "BN started at the gain and bias that match a pair on a Gaussian",
        _BATCH | {"matched_to", "samples", "rescaled"},
        _build_matched,
        True,
        has_pair=True,
    ),
    Method(
        "bn_reparam",
        "BN parametrized as (mean + k sigma, c sigma) of a pair",
        _BATCH | {"matched_to", "samples", "rescaled"},
        _build_reparam,
        True,
        has_pair=True,
    ),
    Method(
        "bn_measured_matched",
        "BN started at the gain and bias that match a pair on the first training batch",
        _BATCH | {"matched_to", "samples", "rescaled"},
        _build_measured_matched,
        True,
        has_pair=True,
    ),
    Method(
        "bn_measured_reparam",
        "BN parametrized as (mean + k sigma, c sigma) with a pair's k and c on the first training batch",
        _BATCH | {"matched_to", "samples", "rescaled"},
        _build_measured_reparam,
        True,
        has_pair=True,
    ),
    Method(
        "bn_tracking",
        "a pair's forward pass with BN's backward pass: its k and c of each batch as constants",
        _BATCH | {"matched_to", "samples", "rescaled"},
        _build_tracking,
        True,
        has_pair=True,
    ),
    Method(
        "mixture",
        "mixture normalization: each sample by the mixture components that it belongs to",
        _BATCH | _FIT | {"warm_start", "posterior_gradient"},
        _build_mixture,
        True,
    ),
    Method("layer", "layer normalization over channels and space", _PER_IMAGE, _build_layer, False),
    Method("group", "group normalization", _PER_IMAGE | {"groups"}, _build_group, False),
    Method("instance", "instance normalization with gain and bias", _PER_IMAGE, _build_instance, False),
    Method("none", "no normalization, the activation only", frozenset(), _build_none, False),
    Method(
        "custom",
        "a layer from another package",
        frozenset({"target", "kwargs"}),
        build_custom,
        True,
        open_ended=True,
    ),
):
    register(_row)
