"""From overrides to a checked configuration.

Hydra composes; this module makes its use strict and its errors one line: overrides are checked against the
groups on disk before Hydra sees them, and the composed values against the schema before torch is imported.
"""

import copy
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, get_args

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from gbn.config.errors import ConfigError, unknown
from gbn.config.norms import CONTROLS
from gbn.config.places import config_dir
from gbn.config.schema import Config
from gbn.config.tasks import with_implied
from gbn.suggest import did_you_mean

ENTRY_POINTS = "gbn.norms"


def compose(overrides: Sequence[str] = ()) -> Config:
    """The checked configuration of one run.

    Args:
        overrides: in Hydra's grammar, without sweeps: ``["norm=gbn_cvar", "norm.alpha=0.6", "seed=3"]``.

    Raises:
        ConfigError: one line saying what is wrong, what is allowed, and what was probably meant.
    """
    groups = _groups()
    choices: list[Override] = []
    values: list[Override] = []
    for one in rewrite(overrides):
        # A value, ++a.b=c, changes what was chosen; everything else takes part in the choice.
        (values if one.is_force_add() and one.key_or_group not in groups else choices).append(one)
    try:
        composed = copy.deepcopy(_chosen(str(config_dir()), tuple(str(one.input_line) for one in choices)))
        for one in values:
            # As Hydra does it, which reads all files again for every run of a grid.
            OmegaConf.update(composed, one.key_or_group, one.value(), merge=True, force_add=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from error
    return resolve(composed)


@functools.lru_cache(maxsize=64)
def _chosen(folder: str, choices: tuple[str, ...]) -> DictConfig:
    """The configuration of a choice in each group, before single values are set."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(folder, version_base="1.3"):
        return hydra_compose("config", overrides=list(choices))


def resolve(composed: DictConfig | Mapping[str, Any]) -> Config:
    """Check a composed configuration (as Hydra gives it, or as stored with a run).

    Raises:
        ConfigError: see :func:`compose`.
    """
    if isinstance(composed, DictConfig):
        try:
            plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise ConfigError(_one_line(error)) from error
    else:
        plain = dict(composed)
    assert isinstance(plain, dict)
    plain = {key: value for key, value in plain.items() if key != "hydra"}
    if isinstance(plain.get("norm"), dict):
        plain["norm"] = _with_pair(plain["norm"])
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(_explain(error, plain)) from error


def rewrite(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides, check groups and their choices, and let keys through to the schema's own check.

    A value override ``a.b=c`` becomes ``++a.b=c``: Hydra would refuse keys that the YAML files don't spell
    out (a quadrangle's parameters, a default of the schema) with a message about its own internals; the
    schema knows what is allowed.

    Raises:
        ConfigError: a malformed override, an unknown group, choice or top-level key.
    """
    groups = _groups()
    overrides = _with_foreign(with_implied(overrides), groups["norm"])
    # Only norm=gbn lists a statistic and a deviation; a control that is given them needs them added.
    adds_functionals = any(text.startswith("norm=") and text != "norm=gbn" for text in overrides)
    result = []
    for text in overrides:
        try:
            one = _parsed(text)
        except HydraException as error:
            raise ConfigError(f"cannot read the override {text!r}: {_one_line(error)}") from error
        key = one.key_or_group
        if key.startswith("hydra") or one.is_delete():
            result.append(one)
        elif key in groups and not isinstance(one.value(), dict):
            choice = _checked_choice(one, groups[key])
            added = adds_functionals and key in ("norm/statistic", "norm/deviation")
            result.append(_parsed("+" + choice.lstrip("+") if added else choice))
        else:
            top = key.split(".")[0].split("/")[0]
            if top not in Config.model_fields or ("/" in key and key not in groups):
                raise unknown("key", key, groups if "/" in key else Config.model_fields)
            result.append(_parsed("++" + text.lstrip("+")))
    return result


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> Override:
    """One override; a grid has the same ones in every run."""
    return OverridesParser.create().parse_override(text)


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The runs of a sweep: every combination, the last override varying fastest (as Hydra's own sweeper)."""
    return [list(combination) for combination in itertools.product(*map(_choices, rewrite(overrides)))]


def check_sweep(overrides: Sequence[str]) -> int:
    """Check each value of each swept override, the others at their first, and return the number of runs.

    Checking the sum of the values rather than their product keeps a sweep of thousands of runs quick to
    start; a combination that is impossible only together fails alone, as one failed run, when reached.
    """
    choices = [_choices(one) for one in rewrite(overrides)]
    first = [values[0] for values in choices]
    compose(first)
    for place, values in enumerate(choices):
        if values[0].split("=")[0].lstrip("+") == "seed":
            continue
        for value in values[1:]:
            compose([*first[:place], value, *first[place + 1 :]])
    count = 1
    for values in choices:
        count *= len(values)
    return count


def _choices(one: Override) -> list[str]:
    if not one.is_sweep_override():
        return [one.input_line or ""]
    key = one.get_key_element()
    return [f"{key}={value}" for value in one.sweep_string_iterator()]


@functools.cache
def _groups() -> dict[str, tuple[str, ...]]:
    root = config_dir()
    found = {}
    for folder in sorted(path for path in root.rglob("*") if path.is_dir()):
        found[folder.relative_to(root).as_posix()] = tuple(
            sorted(file.stem for file in folder.glob("*.yaml"))
        )
    return {group: choices for group, choices in found.items() if choices}


def _entry_points() -> dict[str, str]:
    """Norms that installed packages offer in the entry-point group ``gbn.norms``: name -> their.module:Layer."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def _with_foreign(overrides: Sequence[str], built_in: Sequence[str]) -> list[str]:
    """Spell out ``norm=theirs``, where `theirs` is an entry point, as the group `custom` with their target."""
    result = []
    for text in overrides:
        name = text.removeprefix("norm=")
        if name == text or name in built_in or name not in (foreign := _entry_points()):
            result.append(text)
        else:
            result += ["norm=custom", f"norm.name={name}", f"norm._target_='{foreign[name]}'"]
    return result


def _checked_choice(one: Override, allowed: tuple[str, ...]) -> str:
    text = one.input_line or ""
    group = one.key_or_group
    values = (
        [value.strip() for value in one.sweep_string_iterator()] if one.is_sweep_override() else [one.value()]
    )
    for value in values:
        if str(value) in allowed:
            continue
        foreign = _entry_points() if group == "norm" else {}
        if str(value) in foreign:
            raise ConfigError(
                f"norm={value} is another package's and cannot be swept with others: sweep it alone"
            )
        raise unknown(f"choice of {group}:", str(value), (*allowed, *foreign))
    return text


def _with_pair(norm: dict[str, Any]) -> dict[str, Any]:
    """Fill in, for a control, the options of the norm it is matched to."""
    name = norm.get("matched_to")
    if name is None or norm.get("method") not in CONTROLS:
        return norm
    pairs = {
        file.stem: entry
        for file in (config_dir() / "norm").glob("*.yaml")
        if (entry := yaml.safe_load(file.read_text(encoding="utf-8"))).get("method")
        in ("gbn", "iebn", "mixture")
    }
    if name not in pairs:
        raise unknown("norm.matched_to", str(name), pairs)
    pair = {
        key: value
        for key, value in pairs[name].items()
        if key not in ("name", "method", "revision", "defaults")
    }
    return {**pair, **norm}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _explain(error: ValidationError, plain: Mapping[str, Any]) -> str:
    """Pydantic's findings as one line, each naming the key as the user would write it."""
    return "; ".join(_explain_one(one, plain) for one in error.errors(include_url=False))


def _explain_one(one: Any, plain: Mapping[str, Any]) -> str:
    # A discriminated union puts the chosen name into the location; the user's key has no such part.
    path = [str(part) for part in one["loc"]]
    # (The group norm is no union: there `mixture` is a key as well as a name.)
    section = plain.get(path[0]) if len(path) > 1 else None
    if isinstance(section, dict) and path[0] != "norm" and path[1] == section.get("name"):
        path.pop(1)
    key, given, kind = ".".join(path), one.get("input"), one["type"]
    context = one.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = _keys_beside(path, plain)
        return (
            f"unknown key {key!r}{did_you_mean(path[-1], allowed)}; allowed in "
            f"{'.'.join(path[:-1]) or 'the configuration'}: {', '.join(sorted(allowed))}"
        )
    if kind == "missing":
        return f"{key} is missing: give {key}=..."
    if kind == "value_error":
        message = str(context.get("error", one["msg"]))
        return (
            message
            if not path or path[-1] in message.split("=")[0]
            else f"{key}={given!r}: {message}"
            if (not isinstance(given, dict))
            else message
        )
    if kind in ("literal_error", "union_tag_invalid"):
        expected = str(context.get("expected") or context.get("expected_tags"))
        return f"{key}={given!r} is not allowed{did_you_mean(given, _quoted(expected))}; allowed: {expected}"
    return f"{key}={given!r} is not allowed: {one['msg'][0].lower()}{one['msg'][1:]}"


def _quoted(expected: str) -> list[str]:
    return [part.strip(" '") for part in expected.replace(" or ", ",").split(",")]


def _keys_beside(path: Sequence[str], plain: Mapping[str, Any]) -> Iterable[str]:
    """The keys that the schema knows in the section that `path` ends in."""
    section: Any = Config
    values: Any = plain
    for part in path[:-1]:
        values = values.get(part, {}) if isinstance(values, Mapping) else {}
        annotation = section.model_fields[part].annotation
        options = [o for o in (get_args(annotation) or (annotation,)) if isinstance(o, type)]
        models = [option for option in options if issubclass(option, BaseModel)]
        named = [
            m
            for m in models
            if "name" in m.model_fields and values.get("name") in get_args(m.model_fields["name"].annotation)
        ]
        section = (named or models)[0]
    return section.model_fields
