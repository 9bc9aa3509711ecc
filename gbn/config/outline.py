"""The contents of ``experiments/<name>/sweep.yaml``, before anything is composed.

The format of the file; overrides are lists in Hydra's grammar::

    title: GBN on CIFAR-10
    base: [dataset=cifar10, trainer.epochs=8]     # for every run
    axes:                                         # optional: what the names below are made of; a list of values of
      optimizer.lr: [0.05, 0.1]                   # an override, or names with a value or a list of overrides each
      norm.alpha: {"60": 0.6, "75": 0.75}
    settings:                                     # optional: arms are compared within a setting
      "cnn_lr_{optimizer.lr}": [model=cnn]        # a name with {axis} stands for one name per level of the axis
    arms:
      bn: [norm=bn]
      "gbn_cvar_{norm.alpha}": [norm=gbn_cvar]
    controls: ["gbn_cvar_{norm.alpha}"]           # arms (pairs, mixtures) that get bn_matched[arm], bn_reparam[arm];
                                                  # or {arm: [arms that control for it]}, all listed above
    control_methods: [bn_reparam, bn_tracking]    # optional: which controls these arms get instead
    reference: bn
    seeds: 8                                      # 0 to 7, or a list
    targets: [0.8, 0.9]                           # values of the measure, or {setting: [...]}
    measure: val_accuracy_exact                   # the curve that targets are measured on (default val_accuracy);
                                                  # also kid_own_<digest>, val_dice, ...: gbn.measures
    selected: {experiment: pairs_screen, ...}     # optional: the first stage that selected the arms
    cells:                                        # optional: overrides for one arm in one setting, say the learning
      cnn: {bn: [optimizer.lr=0.1]}               # rate that a first stage selected for it
    scales:                                       # optional: named presets that replace or extend the above; lists
      small: {base: [dataset.subset=12000], seeds: 8, axes: {optimizer.lr: [0.1]}}  # of names, levels select

:mod:`gbn.config.grid` turns it into runs.
"""

import itertools
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from gbn.config.errors import ConfigError, unknown
from gbn.config.messages import explain
from gbn.config.sweep_file import SweepFile, WholeSweep
from gbn.config.yaml_files import mapping
from gbn.measures import measure as measure_of
from gbn.methods import CONTROLLED

__all__ = ["FULL", "Outline", "outline", "scales"]

#: The name of the grid without a preset, whatever its default scale is.
FULL = "full"


@dataclass(frozen=True)
class Outline:
    """The contents of a sweep.yaml at one scale, before anything is composed (composing takes a while).

    Attributes:
        settings: setting -> the overrides of all its runs.
        levels: setting -> axis -> level, for the settings named by axes.
        arms: arm -> its overrides, controls included.
        controls, targets, measure, selected: as in :class:`gbn.config.grid.Grid`.
        cells: setting -> arm -> overrides for the arm's runs in that setting only.
    """

    name: str
    title: str
    scale: str | None
    settings: dict[str, list[str]]
    levels: dict[str, dict[str, str]]
    arms: dict[str, list[str]]
    seeds: list[int]
    reference: str
    targets: dict[str, list[float]]
    controls: dict[str, list[str]]
    measure: str
    selected: dict[str, Any]
    cells: dict[str, dict[str, list[str]]]


def outline(path: str | Path, scale: str | None = None) -> Outline:
    """Read ``experiments/<name>`` (or its sweep.yaml) without composing a configuration.

    Args:
        path, scale: as in :func:`gbn.config.grid.load_grid`.

    Raises:
        ConfigError: there is no such file, or a key, scale or reference is unknown.
    """
    file = _file(path)
    given = _read(file)
    scale = None if scale == FULL else scale or given.get("default_scale")
    axes = _axes(given, {} if scale is None else given.get("scales", {}).get(scale, {}), file)
    spec = _checked(WholeSweep, _scaled(given, scale, axes, file), file)
    arms, controls = _with_controls(spec, file)
    if spec.reference not in arms:
        raise unknown(f"reference in {file}:", spec.reference, arms)
    settings = {name: [*spec.base, *own] for name, own in (spec.settings or {"": []}).items()}
    targets = spec.targets
    by_setting = targets if isinstance(targets, dict) else dict.fromkeys(settings, targets)
    every = _axes(given, {}, file)
    named = [
        name for part in (given, *given.get("scales", {}).values()) for name in part.get("settings") or ()
    ]
    levels = {one.name: one.levels for name in named for one in _variants(name, axes, file) if one.levels}
    of_all = {*settings, *(one.name for name in named for one in _variants(name, every, file))}
    for setting in by_setting:
        if setting not in of_all:
            raise unknown(f"setting under targets in {file}:", setting, settings)
    return Outline(
        name=file.parent.name,
        title=spec.title or file.parent.name,
        scale=scale,
        settings=settings,
        levels={setting: levels[setting] for setting in settings if setting in levels},
        arms=arms,
        seeds=list(range(spec.seeds)) if isinstance(spec.seeds, int) else spec.seeds,
        reference=spec.reference,
        targets={setting: _targets(by_setting.get(setting, []), spec.measure, file) for setting in settings},
        controls=controls,
        measure=spec.measure,
        selected={} if spec.selected is None else spec.selected.model_dump(exclude_unset=True),
        cells=_checked_cells(spec.cells, settings, arms, file),
    )


def scales(path: str | Path) -> list[str]:
    """Return the names of the scales in ``experiments/<name>``.

    Raises:
        ConfigError: there is no such file, or it is invalid.
    """
    return list(_read(_file(path)).get("scales", {}))


def _targets(given: Sequence[float], measure: str, file: Path) -> list[float]:
    """Check that the targets are possible values of the measure; return them in the file's order."""
    try:
        measure_of(measure).checked(given)
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from None
    return list(given)


def _file(path: str | Path) -> Path:
    folder = Path(path)
    file = folder if folder.suffix == ".yaml" else folder / "sweep.yaml"
    if not os.path.isfile(file):
        beside = folder.parent.glob("*/sweep.yaml") if os.path.isdir(folder.parent) else ()
        raise unknown("experiment", str(path), [str(other.parent) for other in beside])
    return file


def _checked(schema: type[Any], given: Mapping[str, Any], file: Path) -> Any:
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error, given, schema)}") from None


def _read(file: Path) -> dict[str, Any]:
    """Read the file and check each key by itself."""
    given = mapping(file)
    checked: SweepFile = _checked(SweepFile, given, file)
    if FULL in checked.scales:
        raise ConfigError(
            f"{file}: the scale {FULL!r} is reserved for the grid without a preset: give this preset another name"
        )
    if checked.default_scale not in (None, FULL, *checked.scales):
        raise unknown(f"default_scale in {file}:", str(checked.default_scale), [FULL, *checked.scales])
    return given


class _Variant(NamedTuple):
    """One of the names that a name with axes stands for."""

    name: str
    overrides: list[str]
    levels: dict[str, str]


def _axes(given: Mapping[str, Any], preset: Mapping[str, Any], file: Path) -> dict[str, dict[str, list[str]]]:
    """Return axis -> level -> overrides; a preset's list selects levels of an axis with names, or replaces values."""
    axes: dict[str, dict[str, list[str]]] = {}
    for axis, levels in {**given.get("axes", {}), **preset.get("axes", {})}.items():
        named = given.get("axes", {}).get(axis)
        if isinstance(levels, list) and isinstance(named, Mapping):
            for level in levels:
                if level not in named:
                    raise unknown(f"level of the axis {axis} in {file}:", str(level), named)
            levels = {level: named[level] for level in levels}
        elif isinstance(levels, list):
            levels = {str(value): value for value in levels}
        axes[axis] = {
            level: value if isinstance(value, list) else [f"{axis}={value}"]
            for level, value in levels.items()
        }
    return axes


def _variants(name: str, axes: Mapping[str, Mapping[str, list[str]]], file: Path) -> list[_Variant]:
    """Return what a name such as ``lr_{optimizer.lr}`` stands for, the last axis varying fastest."""
    used = list(dict.fromkeys(re.findall(r"\{([^{}]*)\}", name)))
    for axis in used:
        if axis not in axes:
            raise unknown(f"axis in {name!r} in {file}:", axis, axes)
    found = []
    for levels in itertools.product(*(axes[axis] for axis in used)):
        one = _Variant(name, [], {})
        for axis, level in zip(used, levels, strict=True):
            one = _Variant(
                one.name.replace(f"{{{axis}}}", level),
                [*one.overrides, *axes[axis][level]],
                {**one.levels, axis: level},
            )
        found.append(one)
    return found


def _spelled_out(
    given: Mapping[str, Any], axes: Mapping[str, Mapping[str, list[str]]], file: Path
) -> dict[str, Any]:
    """Return the keys of a file or preset without axes: each name with axes replaced by those it stands for."""
    result = {key: value for key, value in given.items() if key != "axes"}
    for key in ("settings", "arms", "targets", "controls"):
        value = result.get(key)
        if isinstance(value, Mapping):
            result[key] = {}
            for name, own in value.items():
                for one in _variants(name, axes, file):
                    if one.name in result[key]:
                        raise ConfigError(f"{file}: {one.name!r} appears twice under {key}: name it once")
                    result[key][one.name] = [*own, *one.overrides] if key in ("settings", "arms") else own
        elif isinstance(value, list) and key != "targets":
            result[key] = [one.name for name in value for one in _variants(name, axes, file)]
    return result


def _scaled(
    given: Mapping[str, Any], scale: str | None, axes: Mapping[str, Mapping[str, list[str]]], file: Path
) -> dict[str, Any]:
    """Apply a preset: lists of overrides are appended, `settings` and `arms` select, other keys replace."""
    result = _spelled_out(given, axes, file)
    if scale is None:
        return result
    presets = given.get("scales", {})
    if scale not in presets:
        raise unknown(f"scale of {file}:", scale, [FULL, *presets])
    given, preset = dict(result), _spelled_out(presets[scale], axes, file)
    for key, value in preset.items():
        if key == "base":
            result["base"] = [*given.get("base", []), *value]
        elif key in ("settings", "arms") and isinstance(value, list):
            known = given.get(key) or {}
            for choice in value:
                if choice not in known:
                    raise unknown(f"{key[:-1]} in scale {scale} of {file}:", choice, known)
            result[key] = {choice: known[choice] for choice in value}
        else:
            result[key] = value
    if preset.get("arms"):
        kept = result.get("controls", [])
        if isinstance(kept, Mapping):
            result["controls"] = {
                arm: [one for one in inner if one in result["arms"]]
                for arm, inner in kept.items()
                if arm in result["arms"]
            }
        else:
            result["controls"] = [arm for arm in kept if arm in result["arms"]]
    return result


def _checked_cells(
    cells: dict[str, dict[str, list[str]]], settings: Collection[str], arms: Collection[str], file: Path
) -> dict[str, dict[str, list[str]]]:
    """Check that `cells` only names settings and arms of the grid, and return it."""
    for setting, inner in cells.items():
        if setting not in settings:
            raise unknown(f"setting under cells in {file}:", setting, settings)
        for arm in inner:
            if arm not in arms:
                raise unknown(f"arm of {setting} under cells in {file}:", arm, arms)
    return cells


def _with_controls(spec: WholeSweep, file: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    wanted = spec.controls
    named = (
        [one for arm, inner in wanted.items() for one in (arm, *inner)]
        if isinstance(wanted, dict)
        else wanted
    )
    for arm in named:
        if arm not in spec.arms:
            raise unknown(f"arm under controls in {file}:", arm, spec.arms)
    if isinstance(wanted, dict):
        return dict(spec.arms), wanted
    arms: dict[str, list[str]] = {}
    controls: dict[str, list[str]] = {}
    for label, overrides in spec.arms.items():
        arms[label] = overrides
        if label in wanted:
            controls[label] = []
            for kind in spec.control_methods:
                control = f"{kind}[{label}]"
                if control in spec.arms:
                    raise ConfigError(
                        f"{file}: the arm {control!r} is already added by controls: [{label}]: name it once"
                    )
                arms[control] = _control(kind, overrides, label, file)
                controls[label].append(control)
    return arms, controls


def _control(kind: str, overrides: Sequence[str], label: str, file: Path) -> list[str]:
    """Return the arm's overrides with the norm replaced by the control; the norm's options and placement stay."""
    norms = [one.removeprefix("norm=") for one in overrides if one.startswith("norm=")]
    if not norms or not norms[-1].startswith(CONTROLLED):
        raise ConfigError(
            f"arm {label!r} in {file} has no norm=gbn_..., iebn or mixture: only a pair or a mixture has controls"
        )
    rest = [one for one in overrides if not one.startswith("norm=")]
    return [f"norm={kind}", f"norm.matched_to={norms[-1]}", *rest]
