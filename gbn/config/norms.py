"""The schema of the group ``norm``: one method and its options.

The parameters of a quadrangle (alpha, tau, quantile_gradient, ...) are flat keys beside the common ones, so that a
user writes ``norm.alpha=0.75``; which of them exist depends on the quadrangle and is defined in
:mod:`gbn.risk.parameters`. A control (:data:`CONTROLS`) takes the parameters of the
pair it is matched to under the same keys, so that one override applies to an arm and its controls.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from gbn.config.custom import refuse_infinite
from gbn.config.section import Count, Positive, Section, Text, Two
from gbn.risk.parameters import DEVIATION_PARAMETERS, QUADRANGLE_PARAMETERS, STATISTIC_PARAMETERS, validate
from gbn.suggest import did_you_mean

# The methods whose options are known here, without torch. Any other method (one file in gbn/nn, one YAML file) takes
# the keys of its YAML file as its options, which the registry of :mod:`gbn.nn.methods` checks.
METHODS = (
    *("bn", "gbn", "iebn", "bn_matched", "bn_reparam", "bn_measured_matched", "bn_measured_reparam"),
    *("bn_tracking", "mixture", "layer", "group", "instance", "none", "custom"),
)
#: The controls of a pair, and of a mixture, which has the first two only: there they are measured already.
CONTROLS = ("bn_matched", "bn_reparam", "bn_measured_matched", "bn_measured_reparam", "bn_tracking")
MIXTURE_CONTROLS = CONTROLS[:2]
_WITH_PAIR = ("gbn", "iebn", *CONTROLS)
Role = Literal["stem", "body", "branch_end", "shortcut"]
_GRADIENT = ("quantile_gradient", "window")
# The options that a control of mixture normalization takes over, and those that belong to the layer only.
_FIT = ("components", "mixture", "em_steps", "subset", "variance_floor")
_OF_THE_LAYER = ("warm_start", "posterior_gradient")
_TABLES = {"statistic": STATISTIC_PARAMETERS, "deviation": DEVIATION_PARAMETERS}

_MIXTURE_CONTROL = "a control of mixture"
_WITH_BATCH = ("bn", *_WITH_PAIR, "mixture", _MIXTURE_CONTROL)
# The methods that use a key, and their description. A key that a method does not use would change a run's id and
# nothing else, so any value other than its default is an error.
_USED_BY: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (("eps", "affine"), (*_WITH_BATCH, "layer", "group", "instance"), "every norm but none and custom"),
    (("momentum", "track_running_stats"), _WITH_BATCH, "norms with statistics of the batch"),
    (("quadrangle",), _WITH_PAIR, "norm=gbn_..., iebn and their controls"),
    (("instance_enhancement", "gate_bias"), _WITH_PAIR, "the gain of a pair, norm=gbn_... or iebn"),
    (("statistic", "deviation"), ("gbn", *CONTROLS), "norm=gbn and its controls"),
    (("rescaled", "samples"), ("gbn", *CONTROLS), "norm=gbn_... and its controls"),
    (("start",), ("gbn",), "norm=gbn_..."),
    (("matched_to",), (*CONTROLS, _MIXTURE_CONTROL), " and ".join((", ".join(CONTROLS[:-1]), CONTROLS[-1]))),
    ((*_FIT, *_OF_THE_LAYER), ("mixture", _MIXTURE_CONTROL), "norm=mixture and its controls"),
    (("groups",), ("group",), "norm=group"),
    (("target", "kwargs"), ("custom",), "norm=custom"),
)


def _roles_of_the_gate(given: Any) -> Any:
    """Expand True to the places where the authors of IEBN put their gate, and False to none."""
    if isinstance(given, bool):
        return ["stem", "body", "branch_end"] if given else []
    return given


class PlacementConfig(Section):
    """The places where the method is used, with `otherwise` elsewhere; by default it is used everywhere."""

    roles: Annotated[list[Role], Field(min_length=1)] | None = None
    pattern: Annotated[list[Text], Field(min_length=1)] | None = None
    otherwise: Literal["bn", "none"] = "bn"


class NormConfig(Section):
    """A normalizer. `extra` holds the flat parameters of the quadrangle."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    name: Text
    method: Text
    revision: Count
    quadrangle: str | None = None
    statistic: dict[str, Any] | None = None
    deviation: dict[str, Any] | None = None
    matched_to: str | None = None
    eps: Positive = 1e-5
    momentum: Annotated[float, Field(gt=0, le=1)] | None = 0.1
    affine: bool = True
    track_running_stats: bool = True
    rescaled: bool = False
    without_act: Literal["same", "bn", "mean"] = "same"
    instance_enhancement: Annotated[list[Role], BeforeValidator(_roles_of_the_gate)] = Field(default=[])
    gate_bias: float = -1.0
    start: Literal["own", "bn", "bn_measured"] = "own"
    components: Annotated[int, Field(ge=1, le=1000)] = 3
    mixture: Literal["joint", "per_channel"] = "joint"
    em_steps: Annotated[int, Field(ge=0, le=1000)] = 3
    subset: Two = 1024
    variance_floor: Annotated[float, Field(gt=0, le=1)] = 1e-3
    warm_start: bool = True
    posterior_gradient: bool = False
    placement: PlacementConfig = PlacementConfig()
    groups: Count | None = None
    samples: Two | None = None
    target: Text | None = Field(default=None, alias="_target_")
    kwargs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "NormConfig":
        given = dict(self.__pydantic_extra__ or {})
        for key, value in {**given, "kwargs": self.kwargs}.items():
            refuse_infinite(f"norm.{key}", value)
        if self.method in METHODS:
            self._check_used()
        self._check_gate()
        self._check_mixture()
        if self.method in _WITH_PAIR and not self._has_mixture:
            self._check_pair(given)
        elif given and self.method in METHODS:
            self._refuse(given, [])
        if self.method in CONTROLS and self.matched_to is None:
            raise ValueError(
                f"norm={self.method} is the control of a pair or of a mixture: add norm.matched_to=gbn_cvar"
            )
        if self.method in CONTROLS and self._has_mixture and self.method not in MIXTURE_CONTROLS:
            raise ValueError(
                f"norm={self.method} is the control of a pair: a mixture has {' and '.join(MIXTURE_CONTROLS)}, which "
                "are measured on the first batch already"
            )
        if self.method == "custom" and not self.target:
            raise ValueError("norm=custom needs norm._target_=their.module.Layer")
        if self.method == "group" and self.groups is None:
            raise ValueError("norm=group needs norm.groups, a number that divides the channels of each layer")
        return self

    @property
    def _kind(self) -> str:
        return _MIXTURE_CONTROL if self.method in CONTROLS and self._has_mixture else self.method

    def _check_used(self) -> None:
        named = f"{self.name} with norm.matched_to=mixture" if self._kind == _MIXTURE_CONTROL else self.name
        for keys, methods, words in _USED_BY:
            for key in keys if self._kind not in methods else ():
                field = type(self).model_fields[key]
                if getattr(self, key) != field.default:
                    raise ValueError(
                        f"norm.{field.alias or key} belongs to {words}, not to {named}: leave it out"
                    )
        if self.without_act == self.method or (
            self.without_act == "mean" and self._kind not in ("gbn", *CONTROLS)
        ):
            raise ValueError(
                f"norm.without_act={self.without_act} has no effect on {named}: leave it out "
                "(bn is for all other norms, mean for norm=gbn_... and its controls)"
            )
        where = self.placement
        somewhere = where.roles is not None or where.pattern is not None
        if somewhere and where.otherwise == self.method:
            raise ValueError(
                f"norm.placement uses {self.method} in its places and elsewhere: leave it out, or choose another "
                "norm.placement.otherwise"
            )
        if not somewhere and where.otherwise != "bn":
            raise ValueError(
                f"norm.placement.otherwise={where.otherwise} needs norm.placement.roles or pattern: without them "
                "the norm is used everywhere"
            )

    def _check_gate(self) -> None:
        if self.method == "iebn" and (not self.instance_enhancement or self.quadrangle != "std"):
            raise ValueError(
                "norm=iebn is batch normalization with instance enhancement: without it use norm=bn, with another "
                "pair norm=gbn_cvar norm.instance_enhancement=true"
            )
        if self.gate_bias != -1.0 and not self.instance_enhancement:
            raise ValueError(
                "norm.gate_bias belongs to norm.instance_enhancement, which is off: set it to true"
            )

    @property
    def _has_mixture(self) -> bool:
        return self.method == "mixture" or (self.method in CONTROLS and self.matched_to == "mixture")

    def _check_mixture(self) -> None:
        if self._kind == _MIXTURE_CONTROL:
            # A control only fits the first batch: one run serves, whatever the layer does afterward.
            for key in _OF_THE_LAYER:
                setattr(self, key, type(self).model_fields[key].default)
        if self._has_mixture and self.subset < self.components:
            raise ValueError(
                f"norm.subset={self.subset} is fewer samples than norm.components={self.components}: raise it"
            )

    def _check_pair(self, given: dict[str, Any]) -> None:
        if self.quadrangle is not None:
            if self.statistic or self.deviation:
                raise ValueError(
                    f"norm.quadrangle={self.quadrangle} already fixes statistic and deviation: "
                    "use norm=gbn to choose them separately"
                )
            if self.quadrangle in QUADRANGLE_PARAMETERS:
                self._refuse(given, list(QUADRANGLE_PARAMETERS[self.quadrangle]))
            complete = validate("quadrangle", self.quadrangle, given)
            if self.method in CONTROLS and complete.get("quantile_gradient") not in (None, "smoothed"):
                # A control depends on its pair only through k and c, and only `smoothed` changes those: one run
                # is the control of every gradient mode.
                complete = {key: value for key, value in complete.items() if key not in _GRADIENT}
            assert self.__pydantic_extra__ is not None
            self.__pydantic_extra__.clear()
            self.__pydantic_extra__.update(_plain(complete))
            return
        self._refuse(given, [])
        if self.statistic is None or self.deviation is None:
            raise ValueError("norm needs a quadrangle, or norm/statistic=... and norm/deviation=... together")
        self.statistic = _functional("statistic", self.statistic)
        self.deviation = _functional("deviation", self.deviation)

    def _refuse(self, given: dict[str, Any], parameters: list[str]) -> None:
        unused = {key for keys, methods, _ in _USED_BY if self._kind not in methods for key in keys}
        fields = type(self).model_fields.items()
        common = [
            field.alias or name
            for name, field in fields
            if name not in {*unused, "name", "method", "revision"}
        ]
        for key in given:
            if key not in parameters:
                raise ValueError(
                    f"unknown key 'norm.{key}'{did_you_mean(key, [*parameters, *common])}; allowed for {self.name}: "
                    f"{', '.join([*parameters, *common])}"
                )

    @property
    def parameters(self) -> dict[str, Any]:
        """The flat parameters beside the common keys: a quadrangle's (alpha, ...) or a new method's options."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def label(self) -> str:
        """Short name for slugs and legends: that of the chosen YAML file."""
        return self.name

    def options(self) -> dict[str, Any]:
        """Keyword arguments of :func:`gbn.nn.norm_layer`, without the method."""
        options: dict[str, Any] = {
            key: getattr(self, key)
            for key in ("eps", "momentum", "affine", "track_running_stats", "rescaled", "without_act")
        }
        options["placement"] = self.placement.model_dump()
        if self.method == "gbn":
            options |= self._pair() | ({} if self.start == "own" else {"start": self.start})
        elif self.method == "iebn":
            options |= self._gate()
        elif self.method == "mixture":
            options |= {key: getattr(self, key) for key in (*_FIT, *_OF_THE_LAYER)}
        elif self._has_mixture:
            options["matched_to"] = {"method": "mixture", **{key: getattr(self, key) for key in _FIT}}
        elif self.method in CONTROLS:
            options["matched_to"] = self._pair()
        if self.method == "custom":
            options |= {"target": self.target, "kwargs": self.kwargs or {}}
        if self.method not in METHODS:
            options |= self.parameters
        for key in ("groups", "samples"):
            if getattr(self, key) is not None:
                options[key] = getattr(self, key)
        return options

    def _pair(self) -> dict[str, Any]:
        if self.quadrangle is not None:
            return {"quadrangle": self.quadrangle, **self.parameters, **self._gate()}
        return {"statistic": self.statistic, "deviation": self.deviation, **self._gate()}

    def _gate(self) -> dict[str, Any]:
        if not self.instance_enhancement:
            return {}
        return {"instance_enhancement": self.instance_enhancement, "gate_bias": self.gate_bias}


def _functional(kind: Literal["statistic", "deviation"], given: dict[str, Any]) -> dict[str, Any]:
    parameters = {key: value for key, value in given.items() if key != "name"}
    name = str(given.get("name", ""))
    for key in parameters if name in _TABLES[kind] else ():
        allowed = _TABLES[kind][name]
        if key not in allowed:
            raise ValueError(
                f"unknown key 'norm.{kind}.{key}'{did_you_mean(key, allowed)}; "
                + (f"allowed for {name}: {', '.join(allowed)}" if allowed else f"{name} has no parameters")
            )
    return {"name": name, **_plain(validate(kind, name, parameters))}


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in parameters.items()}
