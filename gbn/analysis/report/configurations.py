"""The training configuration of each arm: how it differs from the reference, and the whole resolved configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.runs.derive import flatten
from gbn.methods import METHODS, own_options
from gbn.store.record import Record

#: Keys that differ without changing a number, or that the page shows elsewhere.
_NOT_SHOWN = ("seed", "experiment", "results_dir", "launcher", "tracker", "norm.name", "norm.revision")

_DEFAULTS = {f"norm.{key}": one.default for row in METHODS.values() for key, one in row.options.items()}


@dataclass(frozen=True)
class Configuration:
    """One arm in one setting.

    Attributes:
        parameters: of the network; None if no run says.
        differences: (key, value here, value of the reference) where they differ, sorted.
        yaml: the whole configuration; empty if no run has one.
        runs: (seed, run id, status).
    """

    arm: str
    parameters: int | None
    differences: tuple[tuple[str, str, str], ...]
    yaml: str
    runs: tuple[tuple[int, str, str], ...]


def configurations(
    comparison: Comparison, records: Mapping[str, Record], setting: str
) -> list[Configuration]:
    """Return every arm of a setting in the plan, with or without finished runs."""
    runs = comparison.runs
    reference = _config(comparison, records, setting, runs.plan.reference)
    return [_one(comparison, records, setting, arm, reference) for arm in runs.plan.arms(setting)]


def _one(
    comparison: Comparison, records: Mapping[str, Record], setting: str, arm: str, reference: dict[str, Any]
) -> Configuration:
    rows = comparison.runs.runs
    rows = rows[(rows.setting == setting) & (rows.arm == arm)].sort_values("seed")
    config = _config(comparison, records, setting, arm)
    parameters = rows.parameters.dropna()
    return Configuration(
        arm=arm,
        parameters=int(parameters.iloc[0]) if len(parameters) else None,
        differences=tuple(differences(config, reference)) if config and reference else (),
        yaml=yaml.safe_dump(config, sort_keys=True, allow_unicode=True) if config else "",
        runs=tuple(
            (int(seed), run_id, str(status).replace("_", " "))
            for seed, run_id, status in zip(rows.seed, rows.run_id, rows.status, strict=True)
        ),
    )


def _config(comparison: Comparison, records: Mapping[str, Record], setting: str, arm: str) -> dict[str, Any]:
    """Return the configuration of the arm's first recorded seed (seeds differ in nothing else)."""
    rows = comparison.runs.runs
    rows = rows[(rows.setting == setting) & (rows.arm == arm)].sort_values("seed")
    for run_id in rows.run_id:
        if run_id in records and records[run_id].config:
            config = {key: part for key, part in records[run_id].config.items() if key != "seed"}
            return {**config, "norm": own_options(config.get("norm") or {})}
    return {}


def differences(config: Mapping[str, Any], reference: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (key, value, value of the reference) where they differ, sorted.

    An option of one norm alone is there if it is not the default.
    """
    ours, theirs = flatten(config), flatten(reference)
    return [
        (key, _text(ours.get(key)), _text(theirs.get(key)))
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key, _DEFAULTS.get(key)) != theirs.get(key, _DEFAULTS.get(key)) and not _hidden(key)
    ]


def _hidden(key: str) -> bool:
    return any(key == hidden or key.startswith(f"{hidden}.") for hidden in _NOT_SHOWN)


def _text(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False).strip('"')
