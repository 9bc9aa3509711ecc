"""The schema of the group ``norm``: one method and its options.

The parameters of a quadrangle (alpha, tau, quantile_gradient, ...) stand flat beside the common keys, since
``norm.alpha=0.75`` is what a user writes; which of them exist depends on the quadrangle, and
:mod:`gbn.risk.parameters` knows that. A control (``bn_matched``, ``bn_reparam``) takes the parameters of the
pair it is matched to in the same place, so that one override reaches an arm and its controls alike.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gbn.risk.parameters import DEVIATION_PARAMETERS, QUADRANGLE_PARAMETERS, STATISTIC_PARAMETERS, validate
from gbn.suggest import did_you_mean

# The methods whose options are known here, without torch. Another one (one file in gbn/nn, one YAML file) takes the
# keys of its YAML file as its options, and the registry of :mod:`gbn.nn.methods` checks them.
METHODS = (
    *("bn", "gbn", "iebn", "bn_matched", "bn_reparam", "mixture"),
    *("layer", "group", "instance", "none", "custom"),
)
CONTROLS = ("bn_matched", "bn_reparam")
_WITH_PAIR = ("gbn", "iebn", *CONTROLS)
Role = Literal["stem", "body", "branch_end", "shortcut"]
_GRADIENT = ("quantile_gradient", "window")
# What a control of mixture normalization takes over from it, and what is the layer's alone.
_FIT = ("components", "mixture", "em_steps", "subset", "variance_floor")
_OF_THE_LAYER = ("warm_start", "posterior_gradient")
_TABLES = {"statistic": STATISTIC_PARAMETERS, "deviation": DEVIATION_PARAMETERS}


def _roles_of_the_gate(given: Any) -> Any:
    """True stands for the places where the authors of IEBN put their gate, False for none."""
    if isinstance(given, bool):
        return ["stem", "body", "branch_end"] if given else []
    return given


class PlacementConfig(BaseModel):
    """Where the method stands; elsewhere `otherwise` does. Nothing given: everywhere."""

    model_config = ConfigDict(extra="forbid", strict=True)

    roles: list[Role] | None = None
    pattern: list[str] | None = None
    otherwise: Literal["bn", "none"] = "bn"


class NormConfig(BaseModel):
    """A normalizer. `extra` holds the flat parameters of the quadrangle."""

    model_config = ConfigDict(extra="allow", strict=True, populate_by_name=True)

    name: str
    method: str
    revision: Annotated[int, Field(ge=1)]
    quadrangle: str | None = None
    statistic: dict[str, Any] | None = None
    deviation: dict[str, Any] | None = None
    matched_to: str | None = None
    eps: Annotated[float, Field(gt=0)] = 1e-5
    momentum: Annotated[float, Field(gt=0, le=1)] | None = 0.1
    affine: bool = True
    track_running_stats: bool = True
    rescaled: bool = False
    without_act: Literal["same", "bn", "mean"] = "same"
    instance_enhancement: Annotated[list[Role], BeforeValidator(_roles_of_the_gate)] = []
    gate_bias: Annotated[float, Field(allow_inf_nan=False)] = -1.0
    components: Annotated[int, Field(ge=1)] = 3
    mixture: Literal["joint", "per_channel"] = "joint"
    em_steps: Annotated[int, Field(ge=0)] = 3
    subset: Annotated[int, Field(ge=2)] = 1024
    variance_floor: Annotated[float, Field(gt=0, le=1)] = 1e-3
    warm_start: bool = True
    posterior_gradient: bool = False
    placement: PlacementConfig = PlacementConfig()
    groups: Annotated[int, Field(ge=1)] | None = None
    samples: Annotated[int, Field(ge=2)] | None = None
    target: str | None = Field(default=None, alias="_target_")
    kwargs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "NormConfig":
        given = dict(self.__pydantic_extra__ or {})
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
        if self.method == "custom" and not self.target:
            raise ValueError("norm=custom needs norm._target_=their.module.Layer")
        if self.method == "group" and self.groups is None:
            raise ValueError("norm=group needs norm.groups, a number that divides the channels of each layer")
        if self.groups is not None and self.method != "group":
            raise ValueError(f"norm.groups belongs to norm=group, not to {self.method}")
        return self

    def _check_gate(self) -> None:
        if self.instance_enhancement and self.method not in _WITH_PAIR:
            raise ValueError(
                "norm.instance_enhancement gates the gain of a pair: use it with norm=gbn_... or iebn, not "
                f"{self.name}"
            )
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
        if not self._has_mixture:
            for key in (*_FIT, *_OF_THE_LAYER):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(
                        f"norm.{key} belongs to norm=mixture and its controls, not to {self.name}"
                    )
            return
        if self.method in CONTROLS:
            # A control fits the first batch alone: one run serves whatever the layer does from there on.
            for key in _OF_THE_LAYER:
                setattr(self, key, type(self).model_fields[key].default)
            if self.quadrangle or self.statistic or self.deviation or self.rescaled or self.samples:
                raise ValueError(
                    f"norm={self.method} norm.matched_to=mixture takes the keys of norm=mixture alone"
                )
        if self.subset < self.components:
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
                # A control knows its pair by k and c alone, and only `smoothed` changes those: one run serves
                # as the control of every way of the gradient.
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
        known = [*parameters, *(field.alias or name for name, field in type(self).model_fields.items())]
        for key in given:
            if key not in parameters:
                listed = ", ".join(parameters) or "none"
                raise ValueError(
                    f"unknown key 'norm.{key}'{did_you_mean(key, known)}; allowed for {self.name}: parameters "
                    f"{listed}; common keys {', '.join(k for k in known if k not in parameters)}"
                )

    @property
    def parameters(self) -> dict[str, Any]:
        """The flat parameters beside the common keys: a quadrangle's (alpha, ...), a new method's options."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def label(self) -> str:
        """Short name for slugs and legends: the chosen YAML file's."""
        return self.name

    def options(self) -> dict[str, Any]:
        """Keyword arguments of :func:`gbn.nn.norm_layer` beside the method."""
        options: dict[str, Any] = {
            key: getattr(self, key)
            for key in ("eps", "momentum", "affine", "track_running_stats", "rescaled", "without_act")
        }
        options["placement"] = self.placement.model_dump()
        if self.method == "gbn":
            options |= self._pair()
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
    name = given.get("name", "")
    for key in parameters if name in _TABLES[kind] else ():
        allowed = _TABLES[kind][name]
        if key not in allowed:
            raise ValueError(
                f"unknown key 'norm.{kind}.{key}'{did_you_mean(key, allowed)}; allowed for {name}: "
                f"{', '.join(allowed) or 'none'}"
            )
    return {"name": name, **_plain(validate(kind, name, parameters))}


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in parameters.items()}
