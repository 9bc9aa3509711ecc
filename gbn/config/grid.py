"""An experiment's grid: its outline (:mod:`gbn.config.outline`) as cells (setting, arm) and their run ids.

An experiment owns no runs: the grid only names them, and a run that two experiments share is trained once.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gbn.config.compose import compose
from gbn.config.errors import ConfigError
from gbn.config.outline import FULL, Outline, outline, scales
from gbn.config.overrides import refuse_two_folders
from gbn.config.schema import Config
from gbn.measures import DEFAULT
from gbn.store.identity import run_id

__all__ = ["FULL", "Cell", "Grid", "Outline", "load_grid", "outline", "scales"]


@dataclass(frozen=True)
class Cell:
    """One arm in one setting: a configuration and, for each seed, a run id."""

    setting: str
    label: str
    config: dict[str, Any]
    run_ids: dict[int, str]
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """The runs of an experiment at one scale.

    Attributes:
        controls: for each arm that has them, its control arms, those starting with BN first.
        levels: for each setting named by axes, its level on each axis.
        targets: for each setting, the target values of the measure for the time-to-target columns.
        measure: the key of the curve that targets are measured on (:mod:`gbn.measures`). selected: the first stage
            that the arms were selected by, and its rule (:mod:`gbn.analysis.comparison.selection`).
    """

    name: str
    title: str
    scale: str | None
    cells: list[Cell]
    seeds: list[int]
    reference: str
    targets: dict[str, list[float]]
    controls: dict[str, list[str]] = field(default_factory=dict)
    measure: str = DEFAULT
    selected: dict[str, Any] = field(default_factory=dict)
    levels: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def settings(self) -> list[str]:
        """The settings in the file's order."""
        return list(dict.fromkeys(cell.setting for cell in self.cells))

    def run_ids(self) -> list[str]:
        """Return the ids of all runs, seed-major, so that a sweep stopped at any time has complete pairs.

        A run in several cells (one arm under two names, or in two settings) is listed once.
        """
        return list(dict.fromkeys(cell.run_ids[seed] for seed in self.seeds for cell in self.cells))

    def configs(self) -> Iterator[tuple[str, Config]]:
        """Yield (run id, configuration) for every run, once each, in the order of :meth:`run_ids`."""
        checked = [Config.model_validate(cell.config) for cell in self.cells]
        seen: set[str] = set()
        for seed in self.seeds:
            for cell, config in zip(self.cells, checked, strict=True):
                if cell.run_ids[seed] not in seen:
                    seen.add(cell.run_ids[seed])
                    yield cell.run_ids[seed], config.model_copy(update={"seed": seed})


def load_grid(
    path: str | Path,
    scale: str | None = None,
    extra: Sequence[str] = (),
    only: Container[tuple[str, str]] | None = None,
) -> Grid:
    """Load the grid of ``experiments/<name>`` (or of its sweep.yaml).

    Args:
        path: the experiment's folder or its sweep.yaml.
        scale: one of the file's ``scales``, or "full" for the grid without a preset; None takes its
            ``default_scale``, or "full" if there is none.
        extra: overrides added to every run's (``results_dir=...``, ``tracker.mode=offline``).
        only: compose only these (setting, arm) pairs; None composes all.

    Raises:
        ConfigError: there is no such file, a key or scale is unknown, or a run's configuration is invalid.
    """
    of = outline(path, scale)
    refuse_two_folders(extra)
    cells = [
        _cell(setting, label, [*shared, *own, *of.cells.get(setting, {}).get(label, ()), *extra], of.seeds)
        for setting, shared in of.settings.items()
        for label, own in of.arms.items()
        if only is None or (setting, label) in only
    ]
    return Grid(
        name=of.name,
        title=of.title,
        scale=of.scale,
        cells=cells,
        seeds=of.seeds,
        reference=of.reference,
        targets=of.targets,
        controls=of.controls,
        measure=of.measure,
        selected=of.selected,
        levels=of.levels,
    )


def _cell(setting: str, label: str, overrides: Sequence[str], seeds: Sequence[int]) -> Cell:
    try:
        config = compose([*overrides, "seed=0"])
    except ConfigError as error:
        where = f"arm {label!r} of setting {setting!r}" if setting else f"arm {label!r}"
        raise ConfigError(f"{error} (in {where})") from None
    defaults = config.defaults()
    ids = {seed: run_id(config.model_copy(update={"seed": seed}).as_dict(), defaults) for seed in seeds}
    return Cell(setting, label, config.as_dict(), ids, tuple(overrides))
