"""Which runs a figure made from pictures or weights shows: the arms of one setting and seed of an experiment."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gbn.config.errors import unknown
from gbn.config.grid import load_grid
from gbn.store.records import RunStore


def parser(description: str) -> argparse.ArgumentParser:
    """The options that choose runs."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = result.add_argument
    add("what", nargs="+", metavar="EXPERIMENT | RUN", help="a folder with a sweep.yaml, or ids of runs")
    add("--scale", help="a preset of the experiment, for example small")
    add("--setting", help="one of the experiment's settings, where it has several")
    add("--seed", type=int, help="whose runs (default: the first of the grid)")
    add("--arms", nargs="+", metavar="ARM", help="only these arms, in this order")
    add("--results", default="results", metavar="DIR", help="where the runs are (%(default)s)")
    add("--out", type=Path, help="folder of the figures (default: figures of --results)")
    return result


def chosen(args: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """(stem of the figures' names, label -> run id); of runs that are named by their ids, these are the labels.

    Raises:
        ConfigError: an unknown experiment, setting, seed or arm.
    """
    first = Path(args.what[0])
    if not (first / "sweep.yaml").is_file():
        return "runs", {run_id: run_id for run_id in RunStore(args.results).match(args.what)}
    grid = load_grid(first, args.scale)
    setting = grid.settings[0] if args.setting is None else _one_of("setting", args.setting, grid.settings)
    seeds = [str(seed) for seed in grid.seeds]
    seed = grid.seeds[0] if args.seed is None else int(_one_of("seed", str(args.seed), seeds))
    cells = {cell.label: cell.run_ids[seed] for cell in grid.cells if cell.setting == setting}
    arms = [_one_of("arm", arm, list(cells)) for arm in args.arms or cells]
    parts = (grid.name, grid.scale, setting if len(grid.settings) > 1 else "")
    return "-".join(filter(None, parts)), {arm: cells[arm] for arm in arms}


def _one_of(what: str, name: str, allowed: Sequence[str]) -> str:
    if name not in allowed:
        raise unknown(what, name, allowed)
    return name


def folder(args: argparse.Namespace) -> Path:
    """Where the figures go."""
    return args.out if args.out is not None else Path(args.results) / "figures"
