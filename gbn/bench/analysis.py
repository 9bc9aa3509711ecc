"""Time and memory of tables of many simulated runs, from the command to the written file, in fresh processes."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gbn.bench.names import ROOT

if TYPE_CHECKING:
    from gbn.store.record import Record
    from gbn.studies.validation.simulate import SimulatedGrid

CORES, EVALUATIONS, ARMS = 2, 200, 50
TARGETS = ("0.6", "0.8", "0.88")
#: runs -> the maximum seconds and megabytes for the table.
GOALS = {10_000: (15.0, 1000.0)}
LIBRARIES = ("numpy", "pandas", "pyarrow", "scipy")


@dataclass(frozen=True)
class Cost:
    """The cost of one process: wall and processor seconds, and peak memory in megabytes."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def grid_of(runs: int) -> "SimulatedGrid":
    """Return a grid of this many runs, in which one arm diverges and one misses the highest targets."""
    from gbn.studies.validation.simulate import Arm, SimulatedGrid

    arms = {"bn": Arm()}
    for k in range(1, min(ARMS, max(runs // 8, 2))):
        alpha = round(0.5 + k / 200, 3)
        arms[f"gbn_cvar_{alpha}"] = Arm(
            speed=1 + k / 50,
            final=0.85 if k == 3 else 0.9,
            own_spread=0.05,
            diverges_at=700 if k == 4 else None,
            norm={"name": "gbn_cvar", "quadrangle": "cvar", "alpha": alpha},
        )
    grid = SimulatedGrid(arms, seeds=range(-(-runs // len(arms))), updates=20_000, points=EVALUATIONS)
    while len(grid.record("", "bn", 0).curve) < EVALUATIONS:  # early points of the grid coincide
        grid = replace(grid, points=grid.points + 1)
    return grid


def records(grid: "SimulatedGrid", runs: int) -> "Iterator[Record]":
    """Yield the runs, seed-major, with curves, configurations and provenance as large as a trainer's."""
    keys = ((seed, arm) for seed in grid.seeds for arm in grid.arms)
    for (seed, arm), _ in zip(keys, range(runs), strict=False):
        record = grid.record("", arm, seed)
        curve = [_measured(point) for point in record.curve]
        filler = {f"key_{k}": k / 7 for k in range(80)}
        provenance = [{"device_kind": "Simulated CPU", "versions": dict.fromkeys(LIBRARIES * 4, "1.2.3")}]
        config = {**record.config, "trainer": filler}
        summary = {**(record.summary or {}), "config": config}
        yield replace(record, curve=curve, config=config, summary=summary, provenance=provenance)


def _measured(point: dict[str, Any]) -> dict[str, Any]:
    """Add what a trainer also writes: the learning rate, training measures and those with exact statistics."""
    accuracy, loss = point["val_accuracy"], point["val_loss"]
    more = {"lr": 0.1 / (1 + point["epoch"]), "train_loss": loss, "train_accuracy": accuracy}
    return {**point, **more, "val_loss_exact": loss, "val_accuracy_exact": accuracy}


def table(results: Path, out: Path) -> Cost:
    """Make the table of all runs in a fresh process."""
    command = [sys.executable, "-m", "gbn", "table", "--runs", "*"]
    command += ["--results", str(results), "--targets", *TARGETS, "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    assert process.stderr is not None
    error = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ChildProcessError(f"gbn table failed: {error.strip()}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return Cost(wall, usage.ru_utime + usage.ru_stime, kilobytes / 1000)


def row_of(runs: int, folder: str | None, repeats: int) -> dict[str, Any]:
    """Return the costs of the table of one store, with medians over the repeats."""
    from gbn.store.records import METRICS
    from gbn.studies.validation.simulate import write_files

    with tempfile.TemporaryDirectory(dir=folder) as name:
        results = Path(name)
        write_files(records(grid_of(runs), runs), results)
        size = sum(path.stat().st_size for path in (results / "runs").glob(f"*/{METRICS}"))
        costs = [table(results, results / "out") for _ in range(repeats)]
    walls = sorted(cost.wall_s for cost in costs)
    row = {"runs": runs, "evaluations": EVALUATIONS, "curves_mb": round(size / 1e6, 1), "repeats": repeats}
    row |= {"wall_s": statistics.median(walls), "wall_least_s": walls[0], "wall_most_s": walls[-1]}
    row["cpu_s"] = statistics.median(cost.cpu_s for cost in costs)
    row["peak_mb"] = max(cost.peak_mb for cost in costs)
    text = (
        f"{runs:>6} runs: {row['wall_s']:.2f} s ({row['cpu_s']:.2f} s of processor), {row['peak_mb']:.0f} MB"
    )
    print(f"{text}{_judged(row)}", flush=True)
    return row


def _judged(row: dict[str, Any]) -> str:
    goal = GOALS.get(row["runs"])
    if goal is None:
        return ""
    met = row["wall_s"] < goal[0] and row["peak_mb"] < goal[1]
    return f" (goal {goal[0]:g} s, {goal[1]:g} MB: {'met' if met else 'NOT met'})"


def measure(runs: Sequence[int], folder: str | None, repeats: int) -> list[dict[str, Any]]:
    """Return one row per store, with the number of cores and the versions of the libraries.

    Raises:
        ValueError: this system does not report a process's memory.
        ChildProcessError: no table was made.
    """
    if not hasattr(os, "wait4"):
        raise ValueError(
            "a process's memory is read with os.wait4, which Windows lacks: use Linux, macOS or WSL"
        )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    where: dict[str, Any] = {"cores": min(CORES, os.cpu_count() or 1)}
    where |= {name: version(name) for name in LIBRARIES}
    return [row_of(count, folder, repeats) | where for count in runs]
