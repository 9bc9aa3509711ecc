"""The table of normalization methods: what each is, its options, and the layer that does it. Needs no torch.

Whatever depends on the method reads it here: the configuration checks ``norm.alpha=0.9`` against it, and
:mod:`gbn.nn` builds the layers from it. A new method is a row of :data:`METHODS`, a file in ``conf/norm``, and its
layer. ``conf/norm`` has a file for each name that ``norm=gbn_cvar`` and ``norm_layer("gbn_cvar")`` both know, with
the further settings of a run (a revision); the tests keep the two consistent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from gbn.risk.parameters import QUADRANGLE_PARAMETERS

Role = Literal["stem", "body", "branch_end", "shortcut"]
#: The places of a norm in a network.
ROLES: tuple[str, ...] = get_args(Role)
#: Where the authors of IEBN put their gate: every norm except the one in a downsampling shortcut.
ENHANCED_ROLES = ("stem", "body", "branch_end")
#: The initial bias of the gate in the authors' code; its initial weight is 0.
GATE_BIAS = -1.0
#: The norm where no activation follows: the method's own, BN, or the pair's deviation about the mean.
WithoutAct = Literal["same", "bn", "mean"]
#: The norm outside the places where a method is used.
Otherwise = Literal["bn", "none"]


@dataclass(frozen=True)
class Option:
    """An option of a method.

    Attributes:
        type: the allowed type, as an annotation.
        default: the value if none is given.
        limits: the allowed values of a number (gt, ge, lt, le) or the length of a list (min_length).
        needed: what must be given, as a message says it; None for an option with a default.
        alias: the key in the configuration, if it is not the option's name.
        convert: applied to a given value before it is checked.
        belongs: which methods have the option, in words; None lists them.
        matched: whether a control takes the option over from the method that it controls for; if not, it ignores it
            (False) or refuses it (None).
        label: how the label of an arm shows the value; None leaves it out.
    """

    type: Any
    default: Any = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    needed: str | None = None
    alias: str | None = None
    convert: Callable[[Any], Any] | None = None
    belongs: str | None = None
    matched: bool | None = True
    label: str | None = None


@dataclass(frozen=True)
class Method:
    """One row of :data:`METHODS`.

    Attributes:
        name, summary: as ``norm.method`` and in one line.
        layer: "module:name" of what builds a layer, "{dim}" in it being 1, 2 or 3: a class, called with the number of
            channels, the site's act, dim and role if it takes them, and the options; or a function of (this row,
            :class:`gbn.nn.placement.Site`, options).
        options: by name.
        statistics: what training mode takes its statistics over; unknown for layers of other packages.
        has_pair: whether it divides by the deviation of a (statistic, deviation) pair, or imitates it.
        control_of: of a control: the methods that it controls for, and the layer for each.
        factor: of a control in the chain bn -> ... -> arm, by which effects are decomposed: what it adds to the one
            before it.
    """

    name: str
    summary: str
    layer: str
    options: Mapping[str, Option] = field(default_factory=dict)
    statistics: Literal["batch", "image", "none", "unknown"] = "batch"
    has_pair: bool = False
    control_of: Mapping[str, str] = field(default_factory=dict)
    factor: str = ""


def roles_of_the_gate(given: Any) -> Any:
    """Expand True to the places where the authors of IEBN put their gate, False to none, and a name to a list."""
    if isinstance(given, bool):
        return list(ENHANCED_ROLES) if given else []
    return [given] if isinstance(given, str) else given


_MANY = 1_000_000  # beyond any use: without a bound, a typo could start a command that never ends
_AFFINE = "every norm but none and custom"
_AVERAGED = "norms with statistics of the batch"
_OF_PAIRS = "norm=gbn_... and its controls"
_OF_GATES = "the gain of a pair, norm=gbn_... or iebn"
_QUADRANGLE = "norm=gbn_..., iebn and their controls"

_IMAGE = {
    "eps": Option(float, 1e-5, {"gt": 0}, belongs=_AFFINE),
    "affine": Option(bool, True, belongs=_AFFINE),
}
_BATCH = {
    "eps": _IMAGE["eps"],
    "momentum": Option(float | None, 0.1, {"gt": 0, "le": 1}, belongs=_AVERAGED),  # None: the plain average
    "affine": _IMAGE["affine"],
    "track_running_stats": Option(bool, True, belongs=_AVERAGED),
}
_FORM = {
    "rescaled": Option(bool, False, belongs=_OF_PAIRS),
    "samples": Option(int | None, None, {"ge": 2, "le": _MANY}, belongs=_OF_PAIRS),
}
_GATE = {
    "instance_enhancement": Option(list[Role], [], convert=roles_of_the_gate, belongs=_OF_GATES),
    "gate_bias": Option(float, GATE_BIAS, belongs=_OF_GATES),
}
#: The options of gbn; it also has the parameters of its quadrangle, which are those of gbn.risk.parameters.
_GBN = {
    "quadrangle": Option(str | None, belongs=_QUADRANGLE),
    "statistic": Option(dict[str, Any] | None),
    "deviation": Option(dict[str, Any] | None),
    **_BATCH,
    **_FORM,
    **_GATE,
    # the function that it starts at: its own, or BN's on a Gaussian or on the first training batch
    "start": Option(
        Literal["own", "bn", "bn_measured"], "own", belongs="norm=gbn_...", matched=None, label="start_{}"
    ),
}
_IEBN = {
    "quadrangle": Option(Literal["std"], needed="norm.quadrangle=std", belongs=_QUADRANGLE),
    **_BATCH,
    **_GATE,
}
_MIXTURE = {
    **_BATCH,
    "components": Option(int, 3, {"ge": 1, "le": 1000}, label="k{}"),  # K; the paper uses 3 and 5
    # one mixture of C-vectors per layer, or one scalar mixture per channel
    "mixture": Option(Literal["joint", "per_channel"], "joint", label="{}"),
    "em_steps": Option(int, 3, {"ge": 0, "le": 1000}),  # the paper says "a few", from the running mixture
    "subset": Option(int, 1024, {"ge": 2, "le": _MANY}),  # samples of a batch used by the EM steps
    "variance_floor": Option(float, 1e-3, {"gt": 0, "le": 1}),
    # The rest acts after the first batch, which is all that a control measures.
    "warm_start": Option(bool, True, matched=False),  # False: k-means++ seeds for every batch
    "posterior_gradient": Option(bool, False, matched=False),  # whether gradients flow through the posteriors
}
_CONTROL = {
    **_BATCH,
    "matched_to": Option(
        str,
        needed="norm.matched_to, what it controls for, as norm.matched_to=gbn_cvar",
        belongs="the controls, such as norm=bn_reparam",
    ),
    **_FORM,
}
_GROUPS = "norm.groups, a number that divides the channels of each layer"
_GROUP = {**_IMAGE, "groups": Option(int, limits={"ge": 1, "le": _MANY}, needed=_GROUPS)}
_TARGET = "norm._target_=their.module.Layer"
_CUSTOM = {
    "target": Option(str, limits={"min_length": 1}, needed=_TARGET, alias="_target_"),
    "kwargs": Option(dict[str, Any] | None),
}


_PAIRS = ("gbn", "iebn")


def _controls(pair: str, mixture: str) -> dict[str, str]:
    of_pairs = dict.fromkeys(_PAIRS, f"gbn.nn.controls:{pair}")
    return {**of_pairs, "mixture": f"gbn.nn.mixture_controls:{mixture}"}


_ROWS = (
    Method("bn", "batch normalization, torch's own", "gbn.nn.methods:batch_norm", _BATCH),
    Method(
        "gbn", "generalized batch normalization with a (statistic, deviation) pair",
        "gbn.nn.methods:generalized", _GBN, has_pair=True,
    ),
    Method(
        "iebn", "instance enhancement batch normalization: BN with its gain gated per image",
        "gbn.nn.methods:enhanced", _IEBN, has_pair=True,
    ),
    Method(
        "bn_matched", "BN started at the gain and bias that match a pair on a Gaussian",
        "gbn.nn.methods:control", _CONTROL, has_pair=True, factor="initialization",
        control_of=_controls("MatchedBatchNorm{dim}d", "MixtureMatchedBatchNorm{dim}d"),
    ),
    Method(
        "bn_reparam", "BN parametrized as (mean + k sigma, c sigma) of a pair",
        "gbn.nn.methods:control", _CONTROL, has_pair=True, factor="parametrization",
        control_of=_controls("ReparametrizedBatchNorm{dim}d", "MixtureReparametrizedBatchNorm{dim}d"),
    ),
    Method(
        "bn_measured_matched", "BN started at the gain and bias that match a pair on the first training batch",
        "gbn.nn.methods:control", _CONTROL, has_pair=True,
        control_of=dict.fromkeys(_PAIRS, "gbn.nn.measured_controls:MeasuredMatchedBatchNorm{dim}d"),
    ),
    Method(
        "bn_measured_reparam",
        "BN parametrized as (mean + k sigma, c sigma) with a pair's k and c on the first training batch",
        "gbn.nn.methods:control", _CONTROL, has_pair=True, factor="calibration",
        control_of=dict.fromkeys(_PAIRS, "gbn.nn.measured_controls:MeasuredReparametrizedBatchNorm{dim}d"),
    ),
    Method(
        "bn_tracking", "a pair's forward pass with BN's backward pass: its k and c of each batch as constants",
        "gbn.nn.methods:tracking", _CONTROL, has_pair=True,
        control_of={
            "gbn": "gbn.nn.measured_controls:TrackingBatchNorm{dim}d",
            "iebn": "gbn.nn.measured_controls:InstanceEnhancementTrackingBatchNorm{dim}d",
        },
    ),
    Method(
        "mixture", "mixture normalization: each sample by the mixture components that it belongs to",
        "gbn.nn.mixture:MixtureNorm{dim}d", _MIXTURE,
    ),
    Method("layer", "layer normalization over channels and space", "gbn.nn.simple:LayerNormAct", _IMAGE, "image"),
    Method("group", "group normalization", "gbn.nn.simple:GroupNormAct", _GROUP, "image"),
    Method(
        "instance", "instance normalization with gain and bias",
        "gbn.nn.simple:InstanceNormAct{dim}d", _IMAGE, "image",
    ),
    Method("none", "no normalization, the activation only", "gbn.nn.methods:activation", {}, "none"),
    Method("custom", "a layer from another package", "gbn.nn.custom:build_custom", _CUSTOM, "unknown"),
)  # fmt: skip

METHODS: dict[str, Method] = {row.name: row for row in _ROWS}

#: Method and options by name, for names other than that of a method at its defaults.
NAMED: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        **{f"gbn_{quadrangle}": ("gbn", {"quadrangle": quadrangle}) for quadrangle in QUADRANGLE_PARAMETERS},
        "gbn_cvar_rescaled": ("gbn", {"quadrangle": "cvar", "rescaled": True}),
        "iebn": ("iebn", {"quadrangle": "std", "instance_enhancement": list(ENHANCED_ROLES)}),
        "group": ("group", {"groups": 4}),
    }
)

#: The methods that have controls.
CONTROLLED: tuple[str, ...] = tuple({of: None for row in METHODS.values() for of in row.control_of})
CONTROLS: tuple[str, ...] = tuple(row.name for row in METHODS.values() if row.control_of)
#: The controls that each of them has; ``controls: [arm]`` in a grid adds these. The others take their constants from
#: batches instead of from a Gaussian; those of a mixture always do.
COMMON_CONTROLS: tuple[str, ...] = tuple(
    name for name in CONTROLS if METHODS[name].control_of.keys() == {*CONTROLLED}
)
#: The controls by which an effect is decomposed, in the order of the chain, and the factor that each adds.
CHAIN: Mapping[str, str] = MappingProxyType({row.name: row.factor for row in METHODS.values() if row.factor})


def matched_method(matched_to: Any) -> str:
    """Return the method of what a control is matched to: a name of ``conf/norm``, or a mapping of options.

    A name that is not known here, of a file of one's own, is that of a pair.
    """
    if isinstance(matched_to, Mapping):
        return str(matched_to.get("method", "gbn"))
    method, _ = NAMED.get(str(matched_to), (str(matched_to), {}))
    return method if method in CONTROLLED else "gbn"


def options_of(method: str, matched_to: Any = None) -> Mapping[str, Option]:
    """Return the options in the configuration of a method of :data:`METHODS`.

    A control has, beside its own, the options of what it is matched to that it takes over, so that one override
    applies to an arm and its controls; those of the form of a pair it has only if that has a form.
    """
    row = METHODS[method]
    if not row.control_of:
        return row.options
    of = METHODS[matched_method(matched_to)].options
    own = {key: option for key, option in row.options.items() if key in of or key not in _FORM}
    return own | {key: option for key, option in of.items() if option.matched}


def has_option(options: Mapping[str, Option], key: str) -> bool:
    """Return whether one of the options has this name, or this key in the configuration."""
    return key in options or any(option.alias == key for option in options.values())


def own_options(norm: Mapping[str, Any]) -> dict[str, Any]:
    """Return a norm section without the options of other methods, which earlier versions wrote at their defaults.

    A section of a method that is not known here is returned as it is.
    """
    if norm.get("method") not in METHODS:
        return dict(norm)
    own = options_of(norm["method"], norm.get("matched_to"))
    return {
        key: value
        for key, value in norm.items()
        if has_option(own, key) or not any(has_option(row.options, key) for row in METHODS.values())
    }
