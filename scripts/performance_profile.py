"""Experiments -> one performance profile over all their tasks (AlgoPerf's): figure, Markdown, CSV.

A task is a setting with one of its fixed targets. Arms missing from some setting are left out and listed.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gbn import cli
from gbn.analysis import options
from gbn.arguments import Number, name, output_folder

EXAMPLES = (
    "python scripts/performance_profile.py experiments/gbn_mnist experiments/gbn_cifar10@small --source archive",
    "python scripts/performance_profile.py experiments/quick --arms gbn_cvar_60 gbn_cvar_75",
)


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__, EXAMPLES)
    add = result.add_argument
    what = "experiments/<name>, or experiments/<name>@<scale>"
    add("experiments", nargs="+", metavar="EXPERIMENT", help=what)
    options.add_results(result)
    options.add_paper(result)
    add("--arms", nargs="+", help="beside the reference (default: all that every setting has)")
    add("--controls", action="store_true", help="with the arms that only control for others")
    add("--unit", choices=("updates", "seconds"), default="updates", help="default: updates")
    what = "end of the profile (default: 4, as in AlgoPerf)"
    add("--r-max", type=Number(1.0, 1e6), default=4.0, metavar="RATIO", help=what)
    add("--measure", help="curve key for targets (default: each experiment's own)")
    add("--first-hit", action="store_true", help="take the first point at a target, without interpolation")
    add("--name", type=name, default="profile", help="name of the files (default: profile)")
    add("--out", type=output_folder, metavar="DIR", help="folder for profiles/ (default: as for the tables)")
    return result


def run(args: argparse.Namespace) -> int:
    """Load, profile, write, print."""
    from gbn.plot_style import Picture, save
    from gbn.store.files import write_atomically

    folder = options.out_dir(args, "profiles") / "profiles"

    chosen = ("experiments", "source", "arms", "controls", "unit", "r_max", "measure", "first_hit")
    selection = {key: getattr(args, key) for key in chosen}
    # A path may end in a slash or be absolute; the header must not depend on where the files are.
    selection["experiments"] = [f"experiments/{Path(one).name}" for one in args.experiments]
    texts, figure = made(selection, args.results, args.experiments)
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in texts.items():
        write_atomically(folder / f"{args.name}{suffix}", text)
    drawn = save([Picture(args.name, figure)], folder, args.paper)
    print(texts[".md"].partition("\n")[2])
    print("Written:", *(folder / f"{args.name}{suffix}" for suffix in texts), *drawn, sep="\n  ")
    return 0


def made(
    selection: Mapping[str, Any], results: str | Path, paths: list[str] | None = None
) -> tuple[dict, Any]:
    """Return the files' texts by suffix, and the figure, for the choices of a header or the command line."""
    from gbn.analysis.comparison.comparison import Comparison, Options
    from gbn.analysis.profiles import plot, score, table
    from gbn.analysis.profiles.tasks import tasks_of
    from gbn.analysis.runs.load import load_grid_runs
    from gbn.config.grid import load_grid

    how = Options(selection["measure"], "first" if selection["first_hit"] else "interpolated")
    experiments = []
    for one in paths or selection["experiments"]:
        path, _, scale = one.partition("@")
        runs = load_grid_runs(load_grid(path, scale or None), results, selection["source"])
        experiments.append(Comparison(options.measured(runs, how.measure), how).times)
    tasks = tasks_of(experiments, selection["unit"], selection["arms"], selection["controls"])
    found = score.profiles(tasks, selection["r_max"])
    texts = table.render(tasks, found, selection, selection["r_max"])
    return texts, plot.draw(tasks, found, selection["r_max"])


if __name__ == "__main__":
    cli.main(parser, run)
