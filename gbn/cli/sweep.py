"""``gbn sweep`` and ``gbn reproduce``: the runs of an experiment's grid, and what is written from them."""

import argparse
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gbn import cli
from gbn.cli import options
from gbn.cli.arguments import Whole, duration, output_folder, usable_folder
from gbn.config.seeds import seed_list

if TYPE_CHECKING:
    from gbn.analysis.runs.load import Source
    from gbn.config.grid import Grid
    from gbn.config.schema import Config
    from gbn.engine.run import Outcome
    from gbn.store.records import RunStore

#: Folders written under the results folder: that of the runs, and those of what is made from them.
WRITTEN = ("runs", "scratch/tables", "scratch/figures", "scratch/reports")


def sweep(result: cli.Parser) -> cli.Run:
    """Train the missing runs of an experiment's grid, seed-major, and write no table.

    Started again, it only does what is missing; after a stop (Ctrl-C, --budget, kill) it resumes from the
    checkpoints.

    Examples:
        gbn sweep experiments/quick
        gbn sweep experiments/gbn_cifar10 --scale small --seeds 0-3 --jobs 4
        gbn sweep experiments/quick trainer.epochs=2 --results /tmp/short
    """
    _add_options(result)
    return lambda arguments: _resumable(arguments, tables=False)


def reproduce(result: cli.Parser) -> cli.Run:
    """Train the missing runs of an experiment's grid, seed-major, then write its table, figures and report.

    Started again, it only does what is missing; after a stop (Ctrl-C, --budget, kill) it resumes from the
    checkpoints.

    Examples:
        gbn reproduce experiments/quick
        gbn reproduce experiments/gbn_cifar10 --scale small --budget 60m
        gbn reproduce experiments/gbn_mnist --dry-run
    """
    _add_options(result)
    return lambda arguments: _resumable(arguments, tables=True)


def _add_options(result: cli.Parser) -> None:
    result.statuses |= {1: "a run failed", 3: "the budget ended before the runs"}
    options.add_experiment(result)
    add = result.add_argument
    add("overrides", nargs="*", help="overrides for every run, in Hydra's grammar")
    what = "folder for runs, tables and figures (default: results)"
    add("--results", type=output_folder, default="results", metavar="DIR", help=what)
    what = "parallel runs (default: one per core, or one on a GPU)"
    add("--jobs", type=Whole(most=1000), metavar="N", help=what)
    add("--seeds", type=seed_list, help="only these seeds of the grid: 3 or 4-7 or 0,2,4-7")
    add("--budget", type=duration, metavar="TIME", help="stop cleanly after this time: 90s, 20m, 2h")
    add("--dry-run", action="store_true", help="print the missing runs and an estimate of their time")
    what = "archived runs of this device kind and these versions count as done"
    add("--use-archive", action="store_true", help=what)
    add("--track", action="store_true", help="mirror the runs in W&B (tracker.mode=auto)")


def _resumable(arguments: argparse.Namespace, tables: bool) -> int:
    """Train and write; Ctrl-C at any moment loses no finished run."""
    from gbn.sweep.streams import outlive_readers

    outlive_readers()
    try:
        return train_and_write(arguments, tables)
    except KeyboardInterrupt:
        print("stopped; the same command resumes from here", file=sys.stderr)
        return cli.STOPPED


def train_and_write(arguments: argparse.Namespace, tables: bool) -> int:
    """Train the missing runs and, with `tables`, write what is made from them; return the exit status."""
    from gbn.config.grid import load_grid
    from gbn.store.files import StoreError
    from gbn.store.records import RunStore
    from gbn.sweep.train_all import default_jobs, is_done, train_all

    for part in WRITTEN if tables else WRITTEN[:1]:
        usable_folder(arguments.results / part)
    extra = ["trainer.progress=quiet", *([] if arguments.track else ["tracker.mode=disabled"])]
    extra += options.check_overrides(arguments.overrides)
    grid = load_grid(arguments.experiment, arguments.scale, extra)
    seeds = options.seeds_of(grid, arguments.seeds)
    # Set here, not as overrides: a path may contain characters that Hydra's grammar does not accept.
    own = {"results_dir": str(arguments.results), "experiment": grid.name}
    wanted = [(one, config.model_copy(update=own)) for one, config in grid.configs() if config.seed in seeds]
    store = RunStore(arguments.results)
    jobs = arguments.jobs or default_jobs()
    missing = [(run_id, config) for run_id, config in wanted if not is_done(store, run_id)]
    if arguments.use_archive:
        missing = without_archived(missing, arguments.results)
    print(f"{grid.title}: {len(wanted)} runs, {len(wanted) - len(missing)} done", flush=True)
    if arguments.dry_run:
        dry_run(grid, missing, store, arguments.results, jobs)
        return 0
    budget = arguments.budget or float("inf")
    outcomes = train_all(missing, jobs=jobs, budget=budget, report=_reporter()) if missing else []
    code = summarize(outcomes)
    if not tables:
        return code
    try:
        results(grid, arguments)
    except (OSError, StoreError) as error:
        print(f"error: no table: {cli.one_line(error)}", file=sys.stderr)
        return 1
    return code


def _reporter() -> "Callable[[Outcome, int, int], None]":
    """Return what prints a line for each run that ends, with the progress."""
    from gbn.sweep.journal import standing

    began = time.monotonic()

    def report(outcome: "Outcome", done: int, total: int) -> None:
        if outcome.status != "waiting":
            print(f"{standing(began, done, total)} {outcome.run_id}: {outcome.message}", flush=True)

    return report


def summarize(outcomes: "list[Outcome]") -> int:
    """Print what failed and where its error is; return the exit status."""
    failed = [outcome for outcome in outcomes if outcome.status in ("failed", "locked")]
    stopped = [outcome for outcome in outcomes if outcome.status in ("interrupted", "waiting")]
    for outcome in failed:
        print(f"{outcome.status}: {outcome.run_id}: {outcome.message}", file=sys.stderr)
    if stopped:
        print(f"the budget ended first: {len(stopped)} runs are left; the same command resumes from here")
    return 1 if failed else 3 if stopped else 0


def without_archived(missing: "list[tuple[str, Config]]", results_dir: Path) -> "list[tuple[str, Config]]":
    """Drop the runs that the archive holds from this device kind with this torch version."""
    from gbn.engine.provenance import device_kind
    from gbn.engine.run import choose_device
    from gbn.store.archive import Archive

    archived = {record.run_id: record for record in Archive(results_dir)}
    import torch

    def counts(run_id: str, config: "Config") -> bool:
        environment = archived[run_id].environment if run_id in archived else {}
        here = device_kind(choose_device(config.trainer.device))
        return environment.get("device_kind") == here and environment.get("torch") == torch.__version__

    return [(run_id, config) for run_id, config in missing if not counts(run_id, config)]


def dry_run(
    grid: "Grid", missing: "list[tuple[str, Config]]", store: "RunStore", results_dir: Path, jobs: int
) -> None:
    """Print the missing runs and an estimate from finished runs of the same arms."""
    from gbn.store.archive import Archive
    from gbn.sweep.train_all import is_done

    wanted = {run_id for run_id, _ in missing}
    known = {record.run_id: record for record in Archive(results_dir)}
    known |= {run_id: store.load(run_id) for run_id in grid.run_ids() if is_done(store, run_id)}
    total, unknown = 0.0, 0
    for cell in grid.cells:
        ids = cell.run_ids.values()
        found = [(known[one].summary or {}).get("wall_seconds") for one in ids if one in known]
        times: list[float] = [one for one in found if one]
        needed = sum(one in wanted for one in ids)
        total += needed * sum(times) / len(times) if times else 0.0
        unknown += needed if not times else 0
        wanted.difference_update(ids)  # a run in several cells is trained once
    for run_id, _ in missing:
        print(f"  {run_id}")
    if unknown:
        print(f"{unknown} of {len(missing)} missing runs belong to arms without a finished run: no estimate")
    print(f"estimate for the others: {timedelta(seconds=round(total / jobs))} with {jobs} jobs")


def results(grid: "Grid", arguments: argparse.Namespace) -> None:
    """Write table, figures and report, print table and verdicts, compare with the archive."""
    from gbn.analysis import Comparison, NothingFound, compare_with_archive, load_grid_runs, write_results
    from gbn.analysis.claims import of_experiment
    from gbn.analysis.report import Sources, default_path, write
    from gbn.config.errors import ConfigError

    source: Source = "both" if arguments.use_archive else "store"
    try:
        print(write_results(grid, arguments.results, source=source))
    except NothingFound as nothing:
        print(f"no table yet: {nothing}")
        return
    print(compare_with_archive(grid, arguments.results))
    try:
        print(of_experiment(arguments.experiment, arguments.results, source))
    except ConfigError as error:
        print(f"no verdicts: {error}", file=sys.stderr)
    comparison = Comparison(load_grid_runs(grid, arguments.results, source))
    print(f"Report: {write(Sources(comparison, arguments.experiment), default_path(comparison))}")
