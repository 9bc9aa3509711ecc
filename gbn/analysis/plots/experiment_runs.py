"""The runs behind a figure of pictures or weights: the arms of one setting and seed of an experiment."""

import argparse
from pathlib import Path

from gbn import cli
from gbn.analysis import options
from gbn.arguments import Whole, output_folder, usable_folder
from gbn.arguments import name as name_of


def parser(description: str | None) -> cli.Parser:
    """Return a parser with the options that choose runs."""
    result = cli.Parser(description)
    add = result.add_argument
    add("what", nargs="+", metavar="EXPERIMENT | RUN", help="a folder with a sweep.yaml, or ids of runs")
    add("--scale", type=name_of, help="a preset of the experiment, for example small")
    add("--setting", help="one of the experiment's settings, where it has several")
    add("--seed", type=Whole(0), help="whose runs (default: the first of the grid)")
    add("--arms", nargs="+", metavar="ARM", help="only these arms, in this order")
    options.add_results(result, source=None)
    add(
        "--out",
        type=output_folder,
        metavar="DIR",
        help="folder of the figures (default: figures of --results)",
    )
    return result


def chosen(args: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """Return (stem of the figures' names, label -> run id); for runs given by id, the ids are the labels.

    Raises:
        ConfigError: an experiment, setting, seed or arm is unknown.
        StoreError: there is no run with this id.
        ValueError: an option for experiments is combined with ids, two experiments are given, or a folder cannot be
            written.
    """
    from gbn.config.grid import load_grid
    from gbn.store.records import RunStore

    usable_folder(folder(args))
    first = Path(args.what[0])
    if not (first / "sweep.yaml").is_file():
        for option in ("--scale", "--setting", "--seed", "--arms"):
            if option in args.given:
                raise ValueError(f"{option} applies to an experiment, not to run ids: leave it out")
        return "runs", {run_id: run_id for run_id in RunStore(args.results).match(args.what)}
    if len(args.what) > 1:
        raise ValueError(f"give one experiment at a time, not {len(args.what)}: {', '.join(args.what)}")
    grid = load_grid(first, args.scale)
    setting = grid.settings[0] if args.setting is None else options.setting_of(grid, args.setting)
    seeds = [str(seed) for seed in grid.seeds]
    seed = grid.seeds[0] if args.seed is None else int(cli.one_of("seed", str(args.seed), seeds))
    cells = {cell.label: cell.run_ids[seed] for cell in grid.cells if cell.setting == setting}
    arms = [cli.one_of("arm", arm, cells) for arm in args.arms or cells]
    parts = (grid.name, grid.scale, setting if len(grid.settings) > 1 else "")
    return "-".join(filter(None, parts)), {arm: cells[arm] for arm in arms}


def folder(args: argparse.Namespace) -> Path:
    """Return the folder that the figures are written to."""
    return args.out if args.out is not None else Path(args.results) / "figures"
