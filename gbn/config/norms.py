"""The schema of the group ``norm``: one class per method, made from the options in :data:`gbn.methods.METHODS`.

The parameters of a quadrangle (alpha, tau, quantile_gradient, ...) are flat keys beside the common ones, so that a
user writes ``norm.alpha=0.9``; which of them exist depends on the quadrangle and is defined in
:mod:`gbn.risk.parameters`. A control (``bn_matched``, ...) takes the options of what it is matched to
under the same keys, so that one override applies to an arm and its controls.
"""

import functools
import operator
from collections.abc import Mapping
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, create_model, model_validator

from gbn.config.custom import refuse_infinite
from gbn.config.section import Count, Section, Text
from gbn.methods import (
    CONTROLLED,
    METHODS,
    Method,
    Option,
    Otherwise,
    Role,
    WithoutAct,
    has_option,
    matched_method,
    options_of,
)
from gbn.risk.parameters import DEVIATION_PARAMETERS, QUADRANGLE_PARAMETERS, STATISTIC_PARAMETERS, validate
from gbn.suggest import did_you_mean

__all__ = ["NormConfig", "NormSection", "section"]

_GRADIENT = ("quantile_gradient", "window")
_TABLES = {"statistic": STATISTIC_PARAMETERS, "deviation": DEVIATION_PARAMETERS}


class PlacementConfig(Section):
    """The places where the method is used, with `otherwise` elsewhere; by default it is used everywhere."""

    roles: Annotated[list[Role], Field(min_length=1)] | None = None
    pattern: Annotated[list[Text], Field(min_length=1)] | None = None
    otherwise: Otherwise = "bn"


class NormSection(Section):
    """What the sections of all methods share. The flat parameters of a quadrangle are its pydantic extra.

    Attributes:
        row: the method.
        matched: of a control, the method of what it is matched to; otherwise the method itself.
        fields: the options, by name.
    """

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    row: ClassVar[Method]
    matched: ClassVar[Method]
    fields: ClassVar[Mapping[str, Option]]

    name: Text
    method: Text
    revision: Count
    without_act: WithoutAct = "same"
    placement: PlacementConfig = PlacementConfig()

    @model_validator(mode="before")
    @classmethod
    def _own_keys(cls, given: Any) -> Any:
        """Refuse unknown keys; drop other methods' options at their defaults, which earlier versions wrote out."""
        if not isinstance(given, Mapping):
            return given
        method = given.get("method", cls.row.name)
        if method != cls.row.name:
            raise ValueError(
                f"unknown norm.method {method!r}{did_you_mean(str(method), METHODS)}; those of gbn/methods.py are "
                f"{', '.join(METHODS)}"
            )
        named = str(given.get("name"))
        if cls.row is not cls.matched and not cls.matched.has_pair:
            named = f"{named} with norm.matched_to={cls.matched.name}"
        quadrangle = given.get("quadrangle") if "quadrangle" in cls.fields else None
        parameters = QUADRANGLE_PARAMETERS.get(str(quadrangle), {})
        anything = quadrangle is not None and str(quadrangle) not in QUADRANGLE_PARAMETERS
        known = {*cls.model_fields, *(option.alias for option in cls.fields.values())}
        kept = {}
        for key, value in given.items():
            if key in known or key in parameters or anything:
                kept[key] = value
            elif key in cls.matched.options and cls.matched.options[key].matched is not None:
                continue  # of the layer that a control is matched to, and ignored by it: one run serves for all
            elif any(has_option(row.options, key) for row in METHODS.values()):
                _refuse_of_others(key, value, named)
            else:
                options = [option.alias or name for name, option in cls.fields.items()]
                allowed = [*parameters, *options, "without_act", "placement"]
                raise ValueError(
                    f"unknown key 'norm.{key}'{did_you_mean(key, allowed)}; allowed for {named}: "
                    f"{', '.join(allowed)}"
                )
        for name, option in cls.fields.items():
            if option.needed and kept.get(name, kept.get(option.alias or name)) is None:
                raise ValueError(f"norm={cls.row.name} needs {option.needed}")
        return kept

    @model_validator(mode="after")
    def _consistent(self) -> "NormSection":
        parameters = self.parameters
        for key, value in {**parameters, "kwargs": getattr(self, "kwargs", None)}.items():
            refuse_infinite(f"norm.{key}", value)
        self._check_places()
        self._check_gate()
        if {"subset", "components"} <= self.fields.keys() and self.subset < self.components:
            raise ValueError(
                f"norm.subset={self.subset} is fewer samples than norm.components={self.components}: raise it"
            )
        if "quadrangle" in self.fields:
            self._check_pair(parameters)
        return self

    def _check_places(self) -> None:
        if self.without_act == self.method or (self.without_act == "mean" and "statistic" not in self.fields):
            raise ValueError(
                f"norm.without_act={self.without_act} has no effect on {self.name}: leave it out "
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
        if "instance_enhancement" not in self.fields or self.instance_enhancement:
            return
        if self.method == "iebn":
            raise ValueError(
                "norm=iebn is batch normalization with instance enhancement: without it use norm=bn, with another "
                "pair norm=gbn_cvar norm.instance_enhancement=true"
            )
        if self.gate_bias != self.fields["gate_bias"].default:
            raise ValueError(
                "norm.gate_bias belongs to norm.instance_enhancement, which is off: set it to true"
            )

    def _check_pair(self, given: dict[str, Any]) -> None:
        """Complete and normalize the parameters of the pair."""
        statistic, deviation = getattr(self, "statistic", None), getattr(self, "deviation", None)
        if self.quadrangle is not None:
            if statistic or deviation:
                raise ValueError(
                    f"norm.quadrangle={self.quadrangle} already fixes statistic and deviation: "
                    "use norm=gbn to choose them separately"
                )
            complete = validate("quadrangle", self.quadrangle, given)
            if self.row.control_of and complete.get("quantile_gradient") not in (None, "smoothed"):
                # A control depends on its pair only through k and c, and only `smoothed` changes those: one run
                # is the control of every gradient mode.
                complete = {key: value for key, value in complete.items() if key not in _GRADIENT}
            assert self.__pydantic_extra__ is not None
            self.__pydantic_extra__.clear()
            self.__pydantic_extra__.update(_plain(complete))
        elif statistic is None or deviation is None:
            raise ValueError("norm needs a quadrangle, or norm/statistic=... and norm/deviation=... together")
        else:
            self.statistic = _functional("statistic", statistic)
            self.deviation = _functional("deviation", deviation)

    @property
    def parameters(self) -> dict[str, Any]:
        """The flat parameters of the quadrangle (alpha, ...) beside the common keys."""
        return dict(self.__pydantic_extra__ or {})

    def options(self) -> dict[str, Any]:
        """Keyword arguments of :func:`gbn.nn.norm_layer`, without the method."""
        own: dict[str, Any] = {"without_act": self.without_act, "placement": self.placement.model_dump()}
        inner: dict[str, Any] = {}
        for name in self.fields:
            (own if name in self.row.options else inner)[name] = getattr(self, name)
        of_the_pair = inner if self.row.control_of else own
        of_the_pair |= self.parameters
        if not of_the_pair.get("instance_enhancement"):
            of_the_pair.pop("gate_bias", None)
        if self.row.control_of:
            named = {} if self.matched.has_pair else {"method": self.matched.name}
            own["matched_to"] = named | {
                key: value for key, value in inner.items() if value not in (None, [])
            }
        return own

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return an option, whose names the table has."""


def _refuse_of_others(key: str, value: Any, named: str) -> None:
    """Raise ValueError for another method's option, unless it has the value that stands for its absence."""
    owners = [row for row in METHODS.values() if has_option(row.options, key)]
    found = [option for row in owners for name, option in row.options.items() if key in (name, option.alias)]
    for option in found:
        if (option.convert(value) if option.convert else value) == option.default:
            return
    words = found[0].belongs
    if words is None:
        plain = [row.name for row in owners if not row.control_of]
        words = " and ".join(plain or [row.name for row in owners])
        words = f"norm={words}" if plain else words
        words += " and its controls" if {*plain} & {*CONTROLLED} else ""
    raise ValueError(f"norm.{key} belongs to {words}, not to {named}: leave it out")


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


def section(row: Method, matched: Method | None = None) -> type[NormSection]:
    """Return the class of a method's section, for a control that of its section when matched to another method."""
    matched = matched or row
    options = row.options if matched is row else options_of(row.name, matched.name)
    fields: dict[str, Any] = {}
    for name, option in options.items():
        default = ... if option.needed else option.default
        fields[name] = (_annotation(option), Field(default, alias=option.alias))
    model = create_model(
        f"{row.name}_of_{matched.name}",
        __base__=NormSection,
        __module__=__name__,
        __doc__=row.summary,
        **fields,
    )
    model.row, model.matched, model.fields = row, matched, options
    return model


def _annotation(option: Option) -> Any:
    members = [one for one in get_args(option.type) if one is not NoneType]
    optional = NoneType in get_args(option.type)
    limited: Any = Annotated[members[0] if optional else option.type, Field(**option.limits)]
    if option.convert is not None:
        limited = Annotated[limited, BeforeValidator(option.convert)]
    return limited | None if optional else limited


_SECTIONS = {
    (row.name, of): section(row, METHODS[of])
    for row in METHODS.values()
    for of in row.control_of or (row.name,)
}
globals().update({one.__name__: one for one in _SECTIONS.values()})  # so that they can be pickled


def _tag(given: Any) -> str:
    """Return which of the sections is meant; any of them refuses what is none."""
    get = given.get if isinstance(given, Mapping) else lambda key: getattr(given, key, None)
    method = get("method")
    row = METHODS.get(method) if isinstance(method, str) else None
    row = row or METHODS["bn"]
    return f"{row.name} of {matched_method(get('matched_to')) if row.control_of else row.name}"


if TYPE_CHECKING:
    NormConfig = NormSection
else:
    _tagged = [Annotated[one, Tag(f"{name} of {of}")] for (name, of), one in _SECTIONS.items()]
    NormConfig = Annotated[functools.reduce(operator.or_, _tagged), Discriminator(_tag)]
