"""The noise of the weight gradient under each arm of an experiment, at equal weights and on the same batches.

    python scripts/gradient_variance.py experiments/quantile_gradient --scale small
    python scripts/gradient_variance.py experiments/quantile_gradient --scale small --batches 64 --at 0 93 279
    python scripts/gradient_variance.py --render results/gradient_variance/quantile_gradient-small.csv

One arm is trained (--trajectory); at each of its states every arm's gradient is measured over independent batches.
Writes <experiment>-<scale>.csv (after each seed, so that a kill loses no finished seed), and .md and .png from it.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gbn import cli
from gbn.analysis import options
from gbn.arguments import Whole, existing_file, output_file, output_folder

if TYPE_CHECKING:
    from gbn.config.grid import Grid
    from gbn.plot_style import Picture
    from gbn.studies.gradient_variance.measure import Study


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__)
    options.add_experiment(result, "?")
    add = result.add_argument
    add("--setting", help="one of the experiment's settings, if it has several")
    add("--arms", nargs="+", metavar="ARM", help="only these arms (default: all)")
    add("--trajectory", default="window_centred", metavar="ARM", help="the arm that is trained (%(default)s)")
    add(
        "--exact",
        default="exact",
        metavar="ARM",
        help="the arm whose mean gradient is the target (%(default)s)",
    )
    what = "updates to measure at (default: start, a third, end)"
    add("--at", nargs="+", type=Whole(0), metavar="UPDATE", help=what)
    what = "how many of the grid's first seeds (%(default)s)"
    add("--seeds", type=Whole(), default=3, metavar="N", help=what)
    what = "independent batches at each state (%(default)s)"
    add("--batches", type=Whole(2), default=128, metavar="N", help=what)
    what = "batch sizes for the statistic's own noise"
    add("--sizes", nargs="*", type=Whole(), default=[32, 128, 512], metavar="N", help=what)
    add("--layer", help="block for the statistic's own noise (default: the last normalized one)")
    what = "seeds measured in parallel (%(default)s)"
    add("--jobs", type=Whole(most=1000), default=1, metavar="N", help=what)
    add("--out", type=output_folder, default="results/gradient_variance", metavar="DIR", help="(%(default)s)")
    add("--render", type=existing_file, metavar="CSV", help="regenerate table and figure, measure nothing")
    return result


def study_of(grid: "Grid", args: argparse.Namespace) -> "Study":
    """Return what to measure.

    Raises:
        ValueError: an arm or setting is unknown, no setting of several is chosen, or there are not enough seeds.
    """
    from gbn.config.schema import Config
    from gbn.studies.gradient_variance.measure import Study

    setting = options.setting_of(grid, args.setting)
    if "--seeds" in args.given and args.seeds > len(grid.seeds):
        raise ValueError(f"--seeds {args.seeds}: the grid has {len(grid.seeds)}")
    cells = {cell.label: cell for cell in grid.cells if cell.setting == setting}
    for arm in (*(args.arms or ()), args.trajectory, args.exact):
        cli.one_of("arm", arm, cells)
    named = {*args.arms, args.trajectory, args.exact, grid.reference} if args.arms else set(cells)
    configs = {arm: Config.model_validate(cell.config) for arm, cell in cells.items() if arm in named}
    against = list(dict.fromkeys([grid.reference, args.trajectory, args.exact]))
    return Study(configs, args.trajectory, against, args.at, args.batches, args.sizes, args.layer)


def measured(
    study: "Study", seeds: list[int], jobs: int
) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Yield each seed's rows and provenance, in order."""
    from gbn.studies.gradient_variance.measure import rows_of_seed

    if jobs == 1:
        yield from (rows_of_seed(study, seed) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(rows_of_seed, study, seed, jobs) for seed in seeds]
        yield from (future.result() for future in futures)


def header_of(grid: "Grid", args: argparse.Namespace, made: dict[str, Any]) -> dict[str, Any]:
    """Return the first line of the file."""
    versions = made["versions"]
    names = ("python", "torch", "numba", "triton")
    return {
        "title": grid.title,
        "experiment": grid.name,
        "scale": grid.scale,
        "baseline": grid.reference,
        "trajectory": args.trajectory,
        "exact": args.exact,
        "command": shlex.join(["python", "scripts/gradient_variance.py", *sys.argv[1:]]),
        "device": made["device_kind"],
        "versions": ", ".join(f"{name} {versions[name]}" for name in names if name in versions),
        **{key: made[key] for key in ("kernels", "threads", "commit", "dirty", "date", "data_digest")},
    }


def render(path: Path) -> None:
    """Write table and figure of a file."""
    from gbn.plot_style import save
    from gbn.store.files import write_atomically

    text, picture = made(path)
    write_atomically(path.with_suffix(".md"), text)
    save([picture], path.parent)


def made(path: Path) -> "tuple[str, Picture]":
    """Table and figure of a file."""
    from gbn.studies.gradient_variance import plot, table

    found = table.read(path)
    return table.markdown(found, path.stem), plot.picture(found, path.stem)


def run(args: argparse.Namespace) -> int:
    """Measure seed by seed, write, render."""
    if bool(args.experiment) == bool(args.render):
        raise ValueError("give either an experiment (experiments/<name>) or --render CSV")
    cli.alone(args, "--render")
    if args.render:
        render(args.render)
        return 0
    from gbn.config.grid import load_grid
    from gbn.studies.gradient_variance.table import write

    grid = load_grid(args.experiment, args.scale, ["tracker.mode=disabled"])
    study = study_of(grid, args)
    seeds = grid.seeds[: args.seeds]
    path = output_file(
        str(args.out / ("-".join(filter(None, (grid.name, args.setting, grid.scale))) + ".csv"))
    )
    rows: list[dict[str, Any]] = []
    for seed, (found, made) in zip(seeds, measured(study, seeds, args.jobs), strict=True):
        rows += found
        write(path, header_of(grid, args, made), rows)
        print(f"seed {seed}: {len(found)} numbers", flush=True)
    render(path)
    print(path.with_suffix(".md"))
    return 0


if __name__ == "__main__":
    cli.main(parser, run)
