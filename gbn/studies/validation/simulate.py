"""Simulated runs with known speed-ups, to see what tables and figures make of them.

A simulated arm is a learning curve with given speed, final accuracy and noise, so the truth behind a table is known:
an arm of speed 2 needs half the updates. The tests rely on it, and so does the warning under the metric of the
maximum (an arm of equal speed and half a point more final accuracy seems to save a third).

A grid whose measure is not an accuracy gets runs of that measure alone, as another task's would be. If lower is
better, the curve falls from ``start`` to the arm's final value. A measure on the validation set also exists on the
test set; one of generated images exists nowhere else.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gbn import measures
from gbn.measures import Measure
from gbn.store.files import config_text, line_of, provenance_text
from gbn.store.finished import CONFIG, LAYERS, METRICS, PROVENANCE, SUMMARY, summary_text
from gbn.store.identity import run_id_of
from gbn.store.record import Record
from gbn.store.records import RunStore


@dataclass(frozen=True)
class Arm:
    """The truth about an arm.

    Attributes:
        speed: updates of an arm of speed 1 / updates of this one, to any value that both can reach.
        final: the value that the curve tends to (an accuracy is a fraction).
        noise: standard deviation of each measured value.
        spread: standard deviation of the logarithm of a seed's speed, shared by all arms of the seed.
        own_spread: the same for the arm alone, which pairing cannot remove.
        diverges_at: the update at which the loss becomes NaN.
        norm: further keys of the norm section of the identity.
    """

    speed: float = 1.0
    final: float = 0.9
    noise: float = 0.002
    spread: float = 0.2
    own_spread: float = 0.0
    diverges_at: int | None = None
    norm: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """The machine of simulated runs."""

    device_kind: str = "Simulated CPU"
    torch: str = "2.13.0"
    clock: str = "exclusive"
    threads: int = 2
    seconds_per_update: float = 0.01


@dataclass(frozen=True)
class SimulatedCell:
    """One arm in one setting."""

    setting: str
    label: str
    config: dict[str, Any]
    run_ids: dict[int, str]


@dataclass(frozen=True)
class SimulatedGrid:
    """A grid of simulated runs, with the fields of :class:`gbn.config.grid.Grid`.

    Attributes:
        start: where curves begin if lower is better.
    """

    arms: Mapping[str, Arm]
    seeds: Sequence[int] = tuple(range(8))
    settings: Sequence[str] = ("",)
    name: str = "simulated"
    title: str = "Simulated runs"
    scale: str | None = None
    reference: str = "bn"
    thresholds: Sequence[float] = (0.6, 0.8)
    controls: Mapping[str, Sequence[str]] = field(default_factory=dict)
    updates: int = 2000
    points: int = 40
    measure: str = measures.DEFAULT
    start: float = 1.0
    levels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def targets(self) -> dict[str, list[float]]:
        """The same thresholds in every setting."""
        return {setting: list(self.thresholds) for setting in self.settings}

    @property
    def cells(self) -> list[SimulatedCell]:
        """Every arm in every setting."""
        return [
            SimulatedCell(
                s, a, self.identity(s, a, 0), {n: run_id_of(self.identity(s, a, n)) for n in self.seeds}
            )
            for s in self.settings
            for a in self.arms
        ]

    def identity(self, setting: str, arm: str, seed: int) -> dict[str, Any]:
        """Return the identity of a run."""
        return {
            "dataset": {"name": "simulated", "revision": 1},
            "model": {"name": setting or "net", "revision": 1},
            "norm": {
                "name": arm,
                "method": "bn" if arm == "bn" else "gbn",
                "revision": 1,
                **self.arms[arm].norm,
            },
            "seed": seed,
        }

    def record(self, setting: str, arm: str, seed: int, machine: Machine | None = None) -> Record:
        """Return one run as it would be on disk."""
        return _record(self, setting, arm, seed, machine or Machine())

    def records(self, machine: Machine | None = None) -> list[Record]:
        """Return all runs, seed-major."""
        return [self.record(s, a, n, machine) for n in self.seeds for s in self.settings for a in self.arms]


def _record(grid: SimulatedGrid, setting: str, arm: str, seed: int, machine: Machine) -> Record:
    truth, identity = grid.arms[arm], grid.identity(setting, arm, seed)
    run_id = run_id_of(identity)
    curve = _curve(grid, setting, arm, seed, machine)
    diverged = truth.diverges_at is not None and truth.diverges_at <= grid.updates
    config = {**identity, "results_dir": "results"}
    status = "diverged" if diverged else "finished"
    summary = {
        "run_id": run_id,
        "status": status,
        "config": config,
        "identity": identity,
        "updates": curve[-1]["update"],
        "seconds": curve[-1]["seconds"],
        "clock": machine.clock,
        "diverged_at": truth.diverges_at if diverged else None,
        "parameters": 1000,
        "final": curve[-1],
        **_best_points(grid, curve),
        "environment": {
            "device": "cpu",
            "device_kind": machine.device_kind,
            "torch": machine.torch,
            "kernels": "reference",
            "threads": machine.threads,
        },
    }
    return Record(run_id, status, config, summary, curve, [{"command": "simulated"}])  # type: ignore[arg-type]


def _best_points(grid: SimulatedGrid, curve: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a classifier's summary says of its best points."""
    if measures.measure(grid.measure).family != "accuracy":
        return {}
    measured = [point for point in curve if point.get("test_accuracy") is not None]
    return {
        "best_by_validation": max(measured, key=lambda point: point["val_accuracy"], default=None),
        "best_on_test": max(measured, key=lambda point: point["test_accuracy"], default=None),
    }


def _curve(grid: SimulatedGrid, setting: str, arm: str, seed: int, machine: Machine) -> list[dict[str, Any]]:
    truth = grid.arms[arm]
    own = random.Random(f"{setting}/{arm}/{seed}")
    shared = random.Random(f"{setting}/{seed}").gauss(0, truth.spread)
    speed = truth.speed * pow(2.718281828459045, shared + own.gauss(0, truth.own_spread))
    points: list[dict[str, Any]] = []
    key = measures.measure(grid.measure)
    for update in _geometric(5, grid.updates, grid.points):
        learned = 1 - 1 / (1 + update * speed / 40)
        tested = update == grid.updates or len(points) % 8 == 7
        point = {
            "update": update,
            "epoch": update / 100,
            "images": update * 128,
            "seconds": update * machine.seconds_per_update,
        }
        value = (
            truth.final * learned
            if key.higher_is_better
            else grid.start + (truth.final - grid.start) * learned
        )
        quality = _quality(key, value, tested, lambda: own.gauss(0, truth.noise))
        if truth.diverges_at is not None and update >= truth.diverges_at:
            nothing = dict.fromkeys(quality)
            return [*points, point | nothing | {"update": truth.diverges_at, "diverged": True}]
        points.append(point | quality)
    return points


def _quality(key: Measure, value: float, tested: bool, noise: Callable[[], float]) -> dict[str, float]:
    """Return what a point says of a run with this true value of the measure."""
    if key.family == "accuracy":
        known = {"val_accuracy": value + noise(), "val_loss": 2.3 * (1 - value) + noise()}
    else:
        known = {key.key: value + noise()}
    if tested and key.final.key not in known:
        known[key.final.key] = value + noise()
    return known


def _geometric(first: int, last: int, count: int) -> list[int]:
    ratio = (last / first) ** (1 / (count - 1))
    return sorted({*(round(first * ratio**k) for k in range(count)), last})


def write_runs(records: Sequence[Record], results_dir: str | Path) -> None:
    """Write records to a run store as a trainer would; a summary's final point is the last one of its curve."""
    store = RunStore(results_dir)
    for record in records:
        with store.writer(record.run_id) as writer:
            writer.write_config(record.config)
            for point in record.curve:
                writer.append(point)
            for recording in record.layers:
                writer.append_layers(recording)
            for segment in record.provenance:
                writer.add_provenance(segment)
            writer.write_summary(_summary(record))


def write_files(records: Iterable[Record], results_dir: str | Path) -> None:
    """Write finished records to a run store directly as files.

    The files are those of :func:`write_runs`, without its locks, syncs and checks: for stores of ten thousand runs.
    """
    for record in records:
        folder = RunStore(results_dir).path(record.run_id)
        folder.mkdir(parents=True)
        texts = {
            CONFIG: config_text(record.config),
            METRICS: "".join(map(line_of, record.curve)),
            LAYERS: "".join(map(line_of, record.layers)),
            PROVENANCE: provenance_text(record.provenance),
        }
        contents: dict[str, bytes | None] = {name: text.encode() for name, text in texts.items() if text}
        texts[SUMMARY] = summary_text(_summary(record), contents)
        for name, text in texts.items():
            if text:
                (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _summary(record: Record) -> dict[str, Any]:
    return {**(record.summary or {}), "final": record.curve[-1] if record.curve else None}
