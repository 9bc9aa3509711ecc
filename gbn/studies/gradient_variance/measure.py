"""One seed of a study of gradient variance: every arm at the states of one run, and the statistic's own noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gbn.config.schema import Config

__all__ = ["Study", "rows_of_seed"]


@dataclass(frozen=True)
class Study:
    """The settings of a study.

    Attributes:
        configs: the arms.
        trajectory: the arm that is trained; every arm is measured at its weights.
        against: arms that each arm is compared with.
        at: number of updates before each measurement, 0 for the initial state; None means the start, a third and the
            end.
        batches: number of independent batches of the configuration's size.
        sizes: batch sizes for the statistic's own noise at the first state; empty to skip that.
        layer: block for the statistic's own noise; None means the last one followed by a generalized normalizer.
    """

    configs: Mapping[str, Config]
    trajectory: str
    against: Sequence[str]
    at: Sequence[int] | None = None
    batches: int = 128
    sizes: Sequence[int] = (32, 128, 512)
    layer: str | None = None


def rows_of_seed(study: Study, seed: int, jobs: int = 1) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return (rows, provenance) of one seed.

    A row has ``seed``, ``update``, ``batch_size``, ``batches`` and the keys of
    :class:`gbn.studies.gradient_variance.moments.Reading`.

    Args:
        study: what to measure.
        seed: of initial values, training batches and measured batches.
        jobs: number of processes that share this machine.

    Raises:
        ValueError: see :mod:`gbn.studies.gradient_variance.states` and :mod:`gbn.studies.gradient_variance.moments`.
    """
    from gbn import kernels
    from gbn.engine.build import task_of
    from gbn.engine.provenance import provenance
    from gbn.engine.run import choose_device, set_threads
    from gbn.studies.gradient_variance.moments import readings
    from gbn.studies.gradient_variance.noise import measure
    from gbn.studies.gradient_variance.states import at_weights, independent_batches, trajectory

    configs = {arm: config.model_copy(update={"seed": seed}) for arm, config in study.configs.items()}
    config = configs[study.trajectory]
    device = choose_device(config.trainer.device)
    set_threads(config.trainer.threads, jobs)
    if config.dataset.has_masks:
        raise ValueError(
            f"gradient noise needs images with labels; dataset={config.dataset.name} has masks: use another data set"
        )
    images = task_of(config).load(config)
    rows: list[dict[str, Any]] = []
    for state in trajectory(config, images, study.at, device):
        arms = at_weights(state.model, configs, images)
        place: dict[str, Any] = {"seed": seed, "update": state.update, "batches": study.batches}
        # This comes first, so that its errors are raised before the long part.
        by_size = [] if rows else _by_size(study, arms, state, place)
        size = config.trainer.batch_size
        batches = independent_batches(state.loader, seed, size, study.batches)
        found = readings(measure(arms, batches, state.task.loss, seed=seed), study.against)
        rows += [{**place, "batch_size": size, **asdict(one)} for one in found] + by_size
    return rows, provenance(device, start=0, kernels=kernels.selected(device.type), data_digest=images.digest)


def _by_size(
    study: Study, arms: Mapping[str, Any], state: Any, place: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the statistic's own noise at each batch size."""
    from gbn.studies.gradient_variance.states import independent_batches
    from gbn.studies.gradient_variance.statistic_noise import (
        measure_statistic,
        normalized_layers,
        statistics_at,
    )

    layers = normalized_layers(arms[study.trajectory])
    if not study.sizes or not layers:
        return []
    layer = study.layer or layers[-1]
    statistics = statistics_at(arms, layer)
    rows: list[dict[str, Any]] = []
    for size in study.sizes:
        batches = independent_batches(state.loader, place["seed"], size, study.batches)
        found = measure_statistic(arms[study.trajectory], layer, statistics, batches, state.task.loss)
        rows += [{**place, "batch_size": size, **asdict(one)} for one in found]
    return rows
