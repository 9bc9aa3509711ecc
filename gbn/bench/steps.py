"""The training steps of an experiment's arms, built by the trainer, timed in turns block by block."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from gbn import kernels
from gbn.config.errors import ConfigError, unknown
from gbn.config.grid import Cell, Grid
from gbn.config.schema import Config
from gbn.data import ImageSet
from gbn.engine.build import build_model, task_of
from gbn.engine.clock import LIMIT
from gbn.engine.provenance import package_versions
from gbn.engine.trainer import Trainer

from .environment import COLUMNS as ENVIRONMENT
from .providers import attempt
from .timing import Samples, Step, interleave, spread, wall_clock

COLUMNS = (
    *("experiment", "setting", "arm", "run_id", "block", "status", "seconds_per_update", "p20", "p80"),
    *("rounds", "updates", "batch", "others", "kernels", "numpy", "cudnn", *ENVIRONMENT),
)


def plan_name(grid: Grid) -> str:
    """Return the grid's name with its scale, as in the names of its tables."""
    return grid.name + (f"-{grid.scale}" if grid.scale else "")


def chosen(grid: Grid, settings: Sequence[str] | None, arms: Sequence[str] | None) -> dict[str, list[Cell]]:
    """Return the cells to time, by setting, always including the reference.

    Raises:
        ConfigError: a setting or an arm is not in the grid.
    """
    if settings and not any(grid.settings):
        raise ConfigError(
            f"unknown setting of {grid.name}: {settings[0]!r}; it has none, leave out --settings"
        )
    known = list(dict.fromkeys(cell.label for cell in grid.cells))
    for name, given, allowed in (("setting", settings, grid.settings), ("arm", arms, known)):
        for one in given or ():
            if one not in allowed:
                raise unknown(f"{name} of {grid.name}:", one, allowed)
    wanted = {*(arms or known), grid.reference}
    return {
        setting: [cell for cell in grid.cells if cell.setting == setting and cell.label in wanted]
        for setting in (settings or grid.settings)
    }


class SettingTiming:
    """The arms of one setting, timed block by block.

    Args:
        updates: number of updates between clock readings.

    Only the first seed is timed, since the cost of an update hardly depends on it.
    """

    def __init__(
        self, grid: Grid, setting: str, cells: Sequence[Cell], device: torch.device, updates: int
    ) -> None:
        self.setting, self.device, self.updates = setting, device, updates
        self.run_ids = {cell.label: cell.run_ids[grid.seeds[0]] for cell in cells}
        seed = {"seed": grid.seeds[0]}
        self.configs = {
            cell.label: Config.model_validate(cell.config).model_copy(update=seed) for cell in cells
        }
        # Arms that differ only in their norm share one data set in memory.
        self._data: dict[str, tuple[ImageSet, Any, Any, Any]] = {}
        self._trainers: dict[str, Trainer] = {}

    def block(self, number: int, seconds: float) -> list[dict[str, Any]]:
        """Time a block of about `seconds`; return one row per arm, whose status tells if it failed or diverged."""
        errors = self._build()
        timed = {arm: Step(partial(self._advance, trainer)) for arm, trainer in self._trainers.items()}
        samples = None
        if timed:
            samples = interleave(
                timed,
                wall_clock(self.device),
                blocks=1,
                block_seconds=seconds,
                warm_up=2,
                exclusive=self.device.type == "cpu",
            )
        return [self._row(arm, number, samples, errors.get(arm, "")) for arm in self.configs]

    def _advance(self, trainer: Trainer, _round: int = 0) -> None:
        for _ in range(self.updates):
            if trainer.step >= trainer.total:  # a schedule has no rate beyond its end
                trainer.step = 0
            trainer._update()

    def _build(self) -> dict[str, str]:
        """Rebuild the trainers, unless they are compiled (to avoid compiling again); return errors by arm."""
        errors = {}
        for arm, config in self.configs.items():
            if config.trainer.compile and arm in self._trainers:
                continue
            self._trainers.pop(arm, None)
            made, error = attempt(partial(self._trainer, config))
            if error:
                errors[arm] = error
            else:
                self._trainers[arm] = made
        return errors

    def _trainer(self, config: Config) -> Trainer:
        key = config.model_dump_json(exclude={"norm"})
        if key not in self._data:
            task = task_of(config)
            images = task.load(config)
            self._data[key] = (images, *task.build(config, images, self.device))
        images, loader, evaluator, task = self._data[key]
        model = build_model(config, images, self.device)
        # Writer and tracker are for train(); only updates are made here.
        nowhere: Any = None
        trainer = Trainer(config, model, loader, evaluator, task, nowhere, nowhere, self.device)
        trainer.recorder = None
        model.train()
        trainer._update()  # compiles, and fails here if at all
        return trainer

    def _row(self, arm: str, block: int, samples: Samples | None, error: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "setting": self.setting,
            "arm": arm,
            "run_id": self.run_ids[arm],
            "block": block,
            "updates": self.updates,
            "batch": self.configs[arm].trainer.batch_size,
            "kernels": kernels.selected(self.device.type),
            "numpy": package_versions().get("numpy"),
            "cudnn": torch.backends.cudnn.version() if self.device.type == "cuda" else None,
        }
        if error or samples is None:
            return row | {"status": f"error: {error}"}
        found = spread([second / self.updates for second in samples.seconds[arm]])
        status = "ok"
        if int(self._trainers[arm].diverged_at) >= 0:
            status = "diverged"
        elif self.device.type == "cpu" and (samples.others or 0.0) > LIMIT:
            status = "busy"
        return row | {
            "status": status,
            "seconds_per_update": found.median,
            "p20": found.p20,
            "p80": found.p80,
            "rounds": samples.rounds,
            "others": samples.others,
        }
