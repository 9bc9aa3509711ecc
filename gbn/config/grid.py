"""An experiment's grid: its outline (:mod:`gbn.config.outline`) as cells (setting, arm) and their run ids.

An experiment owns no runs: the grid names them, and a run that two experiments name is trained once.
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
    """One arm in one setting: a configuration and, for each seed, the id of its run."""

    setting: str
    label: str
    config: dict[str, Any]
    run_ids: dict[int, str]
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """The runs of an experiment at one scale.

    Attributes:
        controls: for each arm that has them, its control arms, BN-started first.
        targets: for each setting, the fixed values of the measure of the time-to-target columns.
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

    @property
    def settings(self) -> list[str]:
        """Settings in the file's order."""
        return list(dict.fromkeys(cell.setting for cell in self.cells))

    def run_ids(self) -> list[str]:
        """The ids of all runs, seed-major: whenever a sweep is stopped, its pairs are whole.

        A run that stands in several cells (the same arm by two names, or in two settings) is named once.
        """
        return list(dict.fromkeys(cell.run_ids[seed] for seed in self.seeds for cell in self.cells))

    def configs(self) -> Iterator[tuple[str, Config]]:
        """(run id, configuration) of every run, each once, in the order of :meth:`run_ids`."""
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
    """The grid of ``experiments/<name>`` (or of its sweep.yaml).

    Args:
        path: the experiment's folder or its sweep.yaml.
        scale: one of the file's ``scales``, or "full": the grid as it stands; None takes its ``default_scale``, or
            the grid as it stands.
        extra: overrides added to every run's (``results_dir=...``, ``tracker.mode=offline``).
        only: compose these (setting, arm) alone; None composes all.

    Raises:
        ConfigError: no such file, an unknown key or scale, or a run whose configuration is refused.
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
