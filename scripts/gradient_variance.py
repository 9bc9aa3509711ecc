"""How noisy is the weight gradient under each arm of an experiment, at equal weights and on the same batches?

    python scripts/gradient_variance.py experiments/quantile_gradient --scale small
    python scripts/gradient_variance.py experiments/quantile_gradient --scale small --batches 64 --at 0 93 279
    python scripts/gradient_variance.py --render results/gradient_variance/quantile_gradient-small.csv

One arm is trained (--trajectory); at each of its states every arm's gradient is measured over independent batches.
Writes <experiment>-<scale>.csv (after each seed: what is measured outlives a kill), .md and .png, made from it.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from gbn.analysis import cli
from gbn.config.errors import ConfigError, unknown
from gbn.config.grid import Grid, load_grid
from gbn.config.schema import Config
from gbn.engine.gradient_variance import Study, rows_of_seed


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = result.add_argument
    add("experiment", nargs="?", help="folder with a sweep.yaml")
    add("--scale", help="a preset of the experiment, for example small")
    add("--setting", help="one of the experiment's settings, where it has several")
    add("--arms", nargs="+", metavar="ARM", help="only these arms (default: all)")
    add("--trajectory", default="window_centred", metavar="ARM", help="the arm that is trained (%(default)s)")
    add(
        "--exact", default="exact", metavar="ARM", help="the arm whose mean gradient is the aim (%(default)s)"
    )
    add("--at", nargs="+", type=int, metavar="UPDATE", help="states to measure at (start, a third, end)")
    add("--seeds", type=int, default=3, help="the first so many of the grid's seeds (%(default)s)")
    add("--batches", type=int, default=128, help="independent batches at each state (%(default)s)")
    add(
        "--sizes",
        nargs="*",
        type=int,
        default=[32, 128, 512],
        help="batch sizes for the statistic's own noise",
    )
    add("--layer", help="block for the statistic's own noise (default: the last that is normalized)")
    add("--jobs", type=int, default=1, help="seeds measured side by side (%(default)s)")
    add("--out", type=Path, default=Path("results/gradient_variance"), metavar="DIR", help="(%(default)s)")
    add("--render", type=Path, metavar="CSV", help="make table and figure again, measure nothing")
    return result


def study_of(grid: Grid, args: argparse.Namespace) -> Study:
    """What is to be measured.

    Raises:
        ConfigError: an unknown arm or setting, or several settings and none chosen.
    """
    if args.setting is not None and args.setting not in grid.settings:
        raise unknown("setting", args.setting, grid.settings)
    if args.setting is None and len(grid.settings) > 1:
        raise ConfigError(
            f"{grid.name} has several settings: choose one with --setting {'|'.join(grid.settings)}"
        )
    setting = grid.settings[0] if args.setting is None else args.setting
    cells = {cell.label: cell for cell in grid.cells if cell.setting == setting}
    for arm in (*(args.arms or ()), args.trajectory, args.exact):
        if arm not in cells:
            raise unknown("arm", arm, cells)
    named = {*args.arms, args.trajectory, args.exact, grid.reference} if args.arms else set(cells)
    configs = {arm: Config.model_validate(cell.config) for arm, cell in cells.items() if arm in named}
    against = list(dict.fromkeys([grid.reference, args.trajectory, args.exact]))
    return Study(configs, args.trajectory, against, args.at, args.batches, args.sizes, args.layer)


def measured(
    study: Study, seeds: list[int], jobs: int
) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Each seed's rows and provenance, in order."""
    if jobs == 1:
        yield from (rows_of_seed(study, seed) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(rows_of_seed, study, seed, jobs) for seed in seeds]
        yield from (future.result() for future in futures)


def header_of(grid: Grid, args: argparse.Namespace, made: dict[str, Any]) -> dict[str, Any]:
    """The first line of the file."""
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
    """Table and figure of a file."""
    from gbn.analysis.inside import gradient_variance, gradient_variance_plot

    found = gradient_variance.read(path)
    path.with_suffix(".md").write_text(gradient_variance.markdown(found, path.stem), encoding="utf-8")
    gradient_variance_plot.save(found, path.with_suffix(".png"))


def run() -> int:
    """Measure seed by seed, write, render."""
    result = parser()
    args = result.parse_args()
    if bool(args.experiment) == bool(args.render):
        result.error("give an experiment (experiments/<name>) or --render CSV, one of them")
    if args.render:
        render(args.render)
        return 0
    from gbn.analysis.inside.gradient_variance import write

    grid = load_grid(args.experiment, args.scale, ["tracker.mode=disabled"])
    study = study_of(grid, args)
    seeds = grid.seeds[: args.seeds]
    path = args.out / ("-".join(filter(None, (grid.name, args.setting, grid.scale))) + ".csv")
    rows: list[dict[str, Any]] = []
    for seed, (found, made) in zip(seeds, measured(study, seeds, args.jobs), strict=True):
        rows += found
        write(path, header_of(grid, args, made), rows)
        print(f"seed {seed}: {len(found)} numbers", flush=True)
    render(path)
    print(path.with_suffix(".md"))
    return 0


if __name__ == "__main__":
    cli.main(run)
