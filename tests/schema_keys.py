"""Every key of the schema, with values that it can have and values that it can't."""

import functools
import types
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import BaseModel

from gbn.config.overrides import TEXTS
from gbn.config.schema import Config

#: What a choice of a group can't be composed without.
NEEDED = {
    "lenet": ("dataset=mnist",),
    "vgg": ("dataset=cifar10",),
    "dcgan": ("task=generation",),
    **dict.fromkeys(("unet", "cardiac", "sunnybrook"), ("task=segmentation",)),
    "model=custom": ("model._target_=their.Net",),
    "dataset=custom": ("dataset._target_=their.load",),
}

#: What a key needs beside it to be used; None: it follows from others, and no value of its own is valid.
BESIDE: dict[str, tuple[str, ...] | None] = {
    **dict.fromkeys(("norm.quadrangle", "norm.statistic", "norm.deviation", "task.features_digest"), None),
    "norm.matched_to": ("norm=bn_matched",),
    **dict.fromkeys(("norm.rescaled", "norm.samples", "norm.without_act"), ("norm=gbn_cvar",)),
    **dict.fromkeys(("norm.instance_enhancement", "norm.start"), ("norm=gbn_cvar",)),
    "norm.gate_bias": ("norm=iebn",),
    **dict.fromkeys(("norm.components", "norm.mixture", "norm.em_steps", "norm.subset"), ("norm=mixture",)),
    **dict.fromkeys(("norm.variance_floor", "norm.warm_start", "norm.posterior_gradient"), ("norm=mixture",)),
    "norm.groups": ("norm=group",),
    "norm._target_": ("norm=custom",),
    "norm.kwargs": ("norm=custom", "norm._target_=their.Layer"),
    **dict.fromkeys(("norm.placement.roles", "norm.placement.pattern"), ("norm=gbn_cvar",)),
    "norm.placement.otherwise": ("norm=gbn_cvar", "norm.placement.roles=[stem]"),
    "optimizer.bnp": ("optimizer.precondition=bnp",),
    "optimizer.momentum": ("optimizer.nesterov=false",),
    "trainer.attack.dataset": ("trainer.attack.images=5",),
    "trainer.attack.images": ("trainer.attack.dataset=mnist",),
    "launcher.jobs": ("launcher=parallel",),
    "trainer.epochs": ("trainer.evaluation.test_every=0",),
    "dataset.subset": ("trainer.batch_size=1",),
}

#: Values of keys whose other conditions their types don't tell.
SPECIAL = {
    "norm.matched_to": ("gbn_cvar", "gbn_mad", "iebn", "mixture"),
    "norm.instance_enhancement": ("true", "[stem]", "[stem,body]"),
    **dict.fromkeys(
        ("norm._target_", "model._target_", "dataset._target_"), ("their.Thing", "'their.module:Thing'")
    ),
    "norm.groups": ("1", "4", "32"),
    "norm.subset": ("3", "1024", "1000000"),
    **dict.fromkeys(("norm.kwargs", "model.kwargs", "dataset.kwargs"), ("{}", "{a:1}")),
    "trainer.evaluation.test_every": ("0", "0.5", "2", "1000000"),
    "trainer.evaluation.images": ("2", "2000"),
    "trainer.attack.dataset": ("mnist", "cifar10"),
    "trainer.attack.images": ("1", "128"),
    "dataset.side": ("16", "96", "4096"),
    "dataset.validation_fold": ("1", "4", "null"),
    "model.aux": ("false",),
}
DEPTHS = {
    **dict.fromkeys(("resnet", "preact_resnet"), ("8", "20", "110")),
    **dict.fromkeys(("resnet_bottleneck", "preact_resnet_bottleneck", "resnext"), ("11", "29", "164")),
    "densenet": ("10", "100"),
    "unet": ("1", "4", "6"),
}


@dataclass(frozen=True)
class Key:
    """A key of the schema as it stands on a command line, and the choices without which it isn't there."""

    name: str
    annotation: Any
    metadata: tuple[Any, ...]
    choices: tuple[str, ...]

    @property
    def context(self) -> tuple[str, ...]:
        """What has to stand beside the key for its values to be used."""
        if self.name.startswith("optimizer.bnp."):
            return (*self.choices, *(BESIDE["optimizer.bnp"] or ()))
        if self.name == "optimizer.momentum" and "optimizer=sgd" not in self.choices:
            return self.choices
        return (*self.choices, *(BESIDE.get(self.name) or ()))

    def valid(self) -> st.SearchStrategy[str] | None:
        """Values that the key can have; None where it follows from others."""
        if BESIDE.get(self.name, ()) is None or self.name.rsplit(".", 1)[-1] in ("name", "method"):
            return None
        if self.name == "model.depth" and (chosen := DEPTHS.get(self.choices[-1].split("=")[1])):
            return st.sampled_from(chosen)
        if self.name in SPECIAL:
            return st.sampled_from(SPECIAL[self.name])
        return _valid(self.annotation, self.metadata)

    def wrong(self) -> list[str]:
        """Values that the key can't have; none where it takes every text."""
        if self.name == "experiment":
            return []
        if self.name in TEXTS:
            return [""] if _nullable(self.annotation) else ["", "null"]
        found = _wrong(self.annotation, self.metadata)
        if self.name == "norm.instance_enhancement":
            found = [value for value in found if value not in ("true", "false")]
        return found


@functools.cache
def all_keys() -> list[Key]:
    """Every key of every section, those of each choice of a group apart, but what norms share once."""
    seen: dict[Any, Key] = {}
    for key in _keys(Config, "", ()):
        seen.setdefault((key.name, key.choices, None if key.name.startswith("norm.") else repr(key)), key)
    return list(seen.values())


def _keys(schema: type[BaseModel], prefix: str, choices: tuple[str, ...]) -> Any:
    for name, field in schema.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        sections = [one for one in _members(field.annotation) if _is_section(one)]
        for section in sections:
            named = section.model_fields.get("name")
            chosen = choices
            if field.discriminator is not None and named is not None:
                options = get_args(named.annotation)
                for option in options[:1]:
                    choice = f"{name}={option}"
                    chosen = (*NEEDED.get(choice, NEEDED.get(option, ())), choice)
            yield from _keys(section, f"{key}.", chosen)
        if not sections:
            yield Key(key, field.annotation, tuple(field.metadata), choices)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _members(annotation: Any) -> tuple[Any, ...]:
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return tuple(origin if _is_section(origin := getattr(one, "__origin__", one)) else one for one in members)


def _nullable(annotation: Any) -> bool:
    return type(None) in _members(annotation)


def _bare(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """An annotation without Annotated, and what that said."""
    if hasattr(annotation, "__metadata__"):
        found: list[Any] = []
        for one in annotation.__metadata__:
            found += getattr(one, "metadata", [one])
        return annotation.__origin__, tuple(found)
    return annotation, ()


def _bounds(metadata: tuple[Any, ...]) -> dict[str, float]:
    names = ("gt", "ge", "lt", "le")
    return {name: getattr(one, name) for one in metadata for name in names if hasattr(one, name)}


def _valid(annotation: Any, metadata: tuple[Any, ...]) -> st.SearchStrategy[str]:
    annotation, own = _bare(annotation)
    metadata = (*metadata, *own)
    members = _members(annotation)
    if len(members) > 1:
        return st.one_of(*(_valid(member, metadata) for member in members))
    bounds = _bounds(metadata)
    if annotation is type(None):
        return st.just("null")
    if annotation is bool:
        return st.sampled_from(["true", "false"])
    if annotation is int:
        low = bounds.get("ge", bounds.get("gt", -1) + 1)
        high = bounds.get("le", bounds.get("lt", 2**31) - 1)
        return st.integers(int(low), int(high)).map(str)
    if annotation is float:
        low, high = bounds.get("ge", bounds.get("gt", -1e9)), bounds.get("le", bounds.get("lt", 1e9))
        return st.floats(
            low, high, exclude_min="gt" in bounds, exclude_max="lt" in bounds, allow_subnormal=False
        ).map(repr)
    if annotation is str:
        return st.sampled_from(["a", "a_b", "some/where", "x.y", "'a,b'", "'ü (1)'"])
    if get_origin(annotation) is Literal:
        return st.sampled_from([str(value) for value in get_args(annotation)])
    if get_origin(annotation) is list:
        (inner,) = get_args(annotation)
        sizes = {
            name: getattr(one, name)
            for one in metadata
            for name in ("min_length", "max_length")
            if hasattr(one, name)
        }
        items = st.lists(
            _valid(inner, ()), min_size=sizes.get("min_length", 1), max_size=sizes.get("max_length", 3)
        )
        return items.map(lambda values: f"[{','.join(values)}]")
    raise AssertionError(f"no valid value is known of {annotation}")


def _wrong(annotation: Any, metadata: tuple[Any, ...]) -> list[str]:
    annotation, own = _bare(annotation)
    metadata = (*metadata, *own)
    members = _members(annotation)
    if len(members) > 1:
        # What is wrong of each member; a text stands for every choice of texts.
        of_each = [set(_wrong(member, metadata)) for member in members if member is not type(None)]
        return sorted(set.intersection(*of_each) - ({"null"} if type(None) in members else set()))
    bounds = _bounds(metadata)
    outside = []
    if "ge" in bounds or "gt" in bounds:
        outside.append(str(bounds.get("ge", bounds.get("gt", 0)) - (1 if "ge" in bounds else 0)))
    if "le" in bounds or "lt" in bounds:
        outside.append(str(bounds.get("le", bounds.get("lt", 0)) + (1 if "le" in bounds else 0)))
    always = ["null", "nosuch_word", "[[]]", "{b:{}}"]
    if annotation is bool:
        return [*always, "0", "1.0", "yes", "[true]"]
    if annotation is int:
        return [*always, *outside, "1.5", "inf", "nan", "true", "[1]", ""]
    if annotation is float:
        return [*always, *outside, "inf", "-inf", "nan", "1e400", "true", "[1]", ""]
    if annotation is str:
        return ["null", "[[]]", "{b:{}}", "3", "1.5", "true", "[1]"]
    if get_origin(annotation) is Literal:
        return [*always, "1.5", "true", "[1]", "", "inf"]
    if get_origin(annotation) is list:
        (inner,) = get_args(annotation)
        items = [f"[{value}]" for value in _wrong(inner, ()) if value]
        return ["null", "nosuch_word", "3", "{b:{}}", "1.5", "inf", *items]
    assert get_origin(annotation) is dict, annotation
    return ["3", "nosuch_word", "[1]", "true"]


def numbers() -> list[Key]:
    """The keys that hold a fraction, a list of them included."""

    def holds(annotation: Any) -> bool:
        annotation, _ = _bare(annotation)
        return annotation is float or any(holds(inner) for inner in get_args(annotation))

    return [key for key in all_keys() if holds(key.annotation)]
