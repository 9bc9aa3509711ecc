"""Samples of several arms side by side, at equal updates and from equal latents -> one figure (PNG and PDF).

    python scripts/plot_samples.py experiments/mixture_dcgan --scale small
    python scripts/plot_samples.py experiments/mixture_dcgan --scale small --seed 1 --arms bn mixture_all
    python scripts/plot_samples.py cifar10-dcgan-bn-s0-1a2b3c4d5e cifar10-dcgan-mixture-s0-1a2b3c4d5e

Made from the pictures in the folders of the runs (trainer.record.pictures). The archive holds no pictures: to make
this figure anew, train the runs anew, which gives the same pictures on the same machine.
"""

import argparse
import sys
from pathlib import Path

from gbn.config.errors import ConfigError, unknown
from gbn.config.grid import load_grid
from gbn.store.files import StoreError
from gbn.store.records import RunStore


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = result.add_argument
    add("what", nargs="+", metavar="EXPERIMENT | RUN", help="a folder with a sweep.yaml, or ids of runs")
    add("--scale", help="a preset of the experiment, for example small")
    add("--setting", help="one of the experiment's settings, where it has several")
    add("--seed", type=int, help="whose runs (default: the first of the grid)")
    add("--arms", nargs="+", metavar="ARM", help="only these arms, in this order")
    add(
        "--at", nargs="+", type=int, metavar="UPDATE", help="rows (default: every picture that all runs have)"
    )
    add("--images", type=int, default=4, help="rows and columns of each part, at most 8 (%(default)s)")
    add("--results", default="results", metavar="DIR", help="where the runs are (%(default)s)")
    add("--out", type=Path, help="folder of the figure (default: figures of --results)")
    return result


def chosen(args: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """(name of the figure, label -> run id).

    Raises:
        ConfigError: an unknown experiment, setting, seed or arm.
    """
    first = Path(args.what[0])
    if not (first / "sweep.yaml").is_file():
        return "samples", {run_id: run_id for run_id in RunStore(args.results).match(args.what)}
    grid = load_grid(first, args.scale)
    setting = args.setting if args.setting is not None else grid.settings[0]
    if setting not in grid.settings:
        raise unknown("setting", setting, grid.settings)
    seed = grid.seeds[0] if args.seed is None else args.seed
    if seed not in grid.seeds:
        raise unknown("seed", str(seed), map(str, grid.seeds))
    cells = {cell.label: cell.run_ids[seed] for cell in grid.cells if cell.setting == setting}
    for arm in args.arms or ():
        if arm not in cells:
            raise unknown("arm", arm, cells)
    scale = f"-{grid.scale}" if grid.scale else ""
    return f"{grid.name}{scale}-samples", {arm: cells[arm] for arm in args.arms or cells}


def main() -> int:
    """Find the runs, draw, list the files."""
    args = parser().parse_args()
    try:
        name, runs = chosen(args)
        from gbn.analysis import samples
        from gbn.figures.style import save

        store = RunStore(args.results)
        folders = {label: store.path(run_id) for label, run_id in runs.items()}
        figure = samples.draw(folders, args.at, args.images)
        out = args.out if args.out is not None else Path(args.results) / "figures"
        print("Written:", *save(figure, out / name), sep="\n  ")
    except (ConfigError, StoreError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
