"""Overrides in Hydra's grammar, checked against the groups on disk before Hydra sees them."""

import functools
import math
import os
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
)

from gbn.config.errors import ConfigError, unknown
from gbn.config.messages import one_line
from gbn.config.places import config_path
from gbn.config.schema import Config
from gbn.config.tasks import with_implied
from gbn.targets import KINDS, offered

#: Keys whose value is any text, without quotes: a path or a name. None of them changes a number of a run, so none can
#: have several values.
TEXTS = ("results_dir", "dataset.root", "experiment", "tracker.project", "tracker.entity")
_PATHS = ("results_dir", "dataset.root")

# Keys of Hydra that would have no effect, or lead Hydra astray.
_WITHOUT_USE = {
    "hydra": "give the keys in it one by one, as hydra.verbose=true",
    "hydra.mode": "write -m for a sweep",
    "hydra.run": "runs go to results_dir",
    "hydra.sweep": "runs go to results_dir",
}

#: The maximum number of values in a sweep; checked before they are listed.
MOST_RUNS = 10_000


def groups() -> dict[str, tuple[str, ...]]:
    """Return the groups of the configuration and their choices."""
    return _groups(config_path())


@functools.cache
def _groups(roots: tuple[Path, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for root in roots:
        for file in root.glob("*/**/*.yaml"):
            found.setdefault(file.parent.relative_to(root).as_posix(), set()).add(file.stem)
    return {group: tuple(sorted(found[group])) for group in sorted(found)}


def rewrite(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides, check groups and choices, and leave keys to the schema's own check.

    A value override ``a.b=c`` becomes ``++a.b=c``: Hydra would reject keys that the YAML files don't list
    (a quadrangle's parameters, a default of the schema) with a message about its own internals; the
    schema knows what is allowed.

    Raises:
        ConfigError: an override is malformed, a group, choice or top-level key is unknown, or values cannot be
            listed.
    """
    overrides = [one for text in with_implied(overrides) for one in _spelled_out(text)]
    # Only norm=gbn lists a statistic and a deviation; for a control they need to be added.
    adds_functionals = any(text.startswith("norm=") and text != "norm=gbn" for text in overrides)
    result = [_rewritten(text, adds_functionals) for text in overrides]
    for one in result:
        _check_names(one, custom="norm=custom" in overrides)
    return result


def refuse_two_folders(overrides: Sequence[str]) -> None:
    """Raise ConfigError if the overrides, or an override and an option, name two results folders."""
    folders = {str(one.value()): None for one in rewrite(overrides) if one.key_or_group == "results_dir"}
    if len(folders) > 1:
        raise ConfigError(f"results_dir is given more than once, as {' and '.join(folders)}: give it once")


def values(one: Override) -> list[str]:
    """Return each value of an override as a separate override, in the given order.

    Raises:
        ConfigError: there are no values, more than :data:`MOST_RUNS`, or they cannot be listed.
    """
    if not one.is_sweep_override():
        return [one.input_line or ""]
    key, given, text = one.key_or_group, one.value(), one.input_line or ""
    if isinstance(given, IntervalSweep):
        raise ConfigError(f"{text}: an interval has no values to train: list them, as {key}=1,2,3")
    if isinstance(given, Glob):
        choices = groups().get(key)
        if choices is None:
            raise ConfigError(
                f"{text}: glob chooses among the files of a group, and {key} is none: list values"
            )
        found = given.filter(list(choices))
    elif isinstance(given, RangeSweep):
        _check_range(given, text)
        found = list(one.sweep_string_iterator())
    else:
        assert isinstance(given, ChoiceSweep)
        if any(isinstance(inner, Sweep | Glob) for inner in given.list):
            raise ConfigError(f"{text}: a list of values holds no further list: write the values out")
        found = list(one.sweep_string_iterator())
    if not found:
        raise ConfigError(f"{text} has no value: {_what_is_there(given, key)}")
    return [f"{one.get_key_element()}={value}" for value in found]


def _what_is_there(given: object, key: str) -> str:
    if isinstance(given, Glob):
        return f"it matches none of {', '.join(groups()[key])}"
    return "a range runs from its first number to below its second, as range(0,3) or range(3,0,-1)"


def _check_range(given: RangeSweep, text: str) -> None:
    start, stop, step = (Decimal(end or 0) for end in (given.start, given.stop, given.step))
    if not (start.is_finite() and stop.is_finite() and step.is_finite() and step):
        raise ConfigError(f"{text}: a range needs finite ends and a step that is not 0, as range(0,3)")
    refuse_too_many((stop - start) / step, text)


def refuse_too_many(count: int | Decimal, what: str) -> None:
    """Raise ConfigError if a sweep would have too many runs."""
    if count > MOST_RUNS:
        raise ConfigError(
            f"{what} asks for {f'{count:.2e}' if count > 1_000_000 else f'{math.ceil(count):,}'} runs, a sweep has "
            f"at most {MOST_RUNS:,}: divide it into several commands"
        )


def _rewritten(text: str, adds_functionals: bool) -> Override:
    one = _read(text)
    key, given = one.key_or_group, one.value()
    if one.package is not None:
        raise ConfigError(f"{text!r}: there are no packages here, write {key}=...")
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        _check_hydra(key)
        return one
    if key.split(".")[0].split("/")[0] not in Config.model_fields or ("/" in key and key not in groups()):
        raise unknown("key", key, groups() if "/" in key else Config.model_fields)
    if one.is_delete():
        return one
    text = (one.input_line or "").lstrip("+")
    if key in groups() and not isinstance(given, dict):
        for value in values(one):
            _check_choice(key, str(_parsed(value).value()), swept=one.is_sweep_override())
        added = adds_functionals and key in ("norm/statistic", "norm/deviation")
        return _parsed(f"+{text}" if added else text)
    values(one)
    return _parsed(f"++{text}")


def _check_choice(group: str, value: str, *, swept: bool) -> None:
    if value in groups()[group]:
        return
    foreign = offered(KINDS[group]) if group in KINDS else {}
    if swept and value in foreign:
        raise ConfigError(
            f"{group}={value} is another package's and cannot be swept with others: sweep it alone"
        )
    raise unknown(f"choice of {group}:", value, (*groups()[group], *foreign))


def _check_names(one: Override, *, custom: bool) -> None:
    """Check that a part's name is its choice: any other name would file the same run under another id."""
    given = one.value()
    for key in (
        (f"{one.key_or_group}.{name}" for name in given) if isinstance(given, dict) else (one.key_or_group,)
    ):
        group, _, last = key.replace(".", "/").rpartition("/")
        if group in groups() and last in ("name", "method") and not (custom and key == "norm.name"):
            raise ConfigError(
                f"{key} follows from the choice of {group}: write {group}=..., one of its choices"
            )


def _check_hydra(key: str) -> None:
    for part, instead in _WITHOUT_USE.items():
        if key == part or (part != "hydra" and key.startswith(f"{part}.")):
            raise ConfigError(f"{key} has no use here: {instead}")


def _read(text: str) -> Override:
    """Parse an override; the value of a text key is taken literally if Hydra's grammar does not read it as text."""
    key, sign, value = text.partition("=")
    key = key.lstrip("+")
    try:
        one = _parsed(text)
    except ConfigError:
        if not sign or key not in TEXTS or "${" in value:
            raise
        one = None
    if key not in TEXTS or (one is not None and (one.is_delete() or one.value() is None)):
        assert one is not None
        return one
    given = one.value() if one is not None else value
    literal = given if isinstance(given, str) else value
    if "${" in literal:
        return _parsed(text)
    if key in _PATHS:
        literal = os.path.expanduser(literal)
    if one is not None and literal == given:
        return one
    return _parsed(f"{key}={QuotedString(literal, Quote.single).with_quotes()}")


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> Override:
    """Parse an override, cached since all runs of a grid share most of them.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return OverridesParser.create().parse_override(text)
    except Exception as error:  # Hydra's parser raises whatever its Python does
        key, sign, value = text.partition("=")
        said = one_line(error)
        if "while evaluating" in said:
            how = "gbn train --help shows sweeps"
        elif sys.flags.optimize and "(" in value:
            said, how = "it has a function", "unset PYTHONOPTIMIZE, or write the values out"
        elif not sign:
            how = "write key=value"
        else:
            how = f"a value with such characters needs its own quotes, as \"{key}='...'\""
        raise ConfigError(f"cannot read the override {text!r}: {said}; {how}") from error


def _spelled_out(text: str) -> list[str]:
    """Return ``norm=theirs``, where `theirs` is an entry point, as the group's choice `custom` with their target."""
    group, _, name = text.partition("=")
    if group not in KINDS or name in groups()[group] or name not in (foreign := offered(KINDS[group])):
        return [text]
    named = [f"norm.name={name}"] if group == "norm" else []
    return [f"{group}=custom", *named, f"{group}._target_='{foreign[name]}'"]
