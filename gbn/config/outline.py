"""The contents of ``experiments/<name>/sweep.yaml``, before anything is composed.

The format of the file; overrides are lists in Hydra's grammar::

    title: GBN on CIFAR-10
    base: [dataset=cifar10, trainer.epochs=8]     # for every run
    settings:                                     # optional: arms are compared within a setting
      cnn: [model=cnn, model.width=0.25]
    arms:
      bn: [norm=bn]
      gbn_cvar_75: [norm=gbn_cvar, norm.alpha=0.75]
    controls: [gbn_cvar_75]                       # arms (pairs, mixtures) that get bn_matched[arm], bn_reparam[arm];
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
    scales:                                       # optional: named presets that replace or extend the above
      small: {base: [dataset.subset=12000], seeds: 8, settings: [cnn]}

:mod:`gbn.config.grid` turns it into runs.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        arms: arm -> its overrides, controls included.
        controls, targets, measure, selected: as in :class:`gbn.config.grid.Grid`.
        cells: setting -> arm -> overrides for the arm's runs in that setting only.
    """

    name: str
    title: str
    scale: str | None
    settings: dict[str, list[str]]
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
    spec = _checked(WholeSweep, _scaled(given, scale, file), file)
    arms, controls = _with_controls(spec, file)
    if spec.reference not in arms:
        raise unknown(f"reference in {file}:", spec.reference, arms)
    settings = {name: [*spec.base, *own] for name, own in (spec.settings or {"": []}).items()}
    targets = spec.targets
    by_setting = targets if isinstance(targets, dict) else dict.fromkeys(settings, targets)
    of_all = {*settings, *(given.get("settings") or {}), *_settings_of_scales(given)}
    for setting in by_setting:
        if setting not in of_all:
            raise unknown(f"setting under targets in {file}:", setting, settings)
    return Outline(
        name=file.parent.name,
        title=spec.title or file.parent.name,
        scale=scale,
        settings=settings,
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


def _settings_of_scales(given: Mapping[str, Any]) -> set[str]:
    return {name for preset in given.get("scales", {}).values() for name in preset.get("settings") or ()}


def _scaled(given: Mapping[str, Any], scale: str | None, file: Path) -> dict[str, Any]:
    """Apply a preset: lists of overrides are appended, `settings` and `arms` select, other keys replace."""
    if scale is None:
        return dict(given)
    presets = given.get("scales", {})
    if scale not in presets:
        raise unknown(f"scale of {file}:", scale, [FULL, *presets])
    result = dict(given)
    for key, value in presets[scale].items():
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
    if presets[scale].get("arms"):
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
