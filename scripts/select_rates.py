"""Select each arm's best learning rate (setting) by the tuning seeds' validation values; warn at a grid's end."""

import argparse
import itertools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gbn import cli
from gbn.analysis import options
from gbn.arguments import usable_folder

if TYPE_CHECKING:
    from gbn.analysis.comparison.selection import BestSetting


EXAMPLES = ("python scripts/select_rates.py experiments/learning_rate --scale small --source archive",)


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__, EXAMPLES, {1: "the best rate of some arm is at an end of the grid"})
    options.add_experiment(result)
    options.add_results(result)
    add = result.add_argument
    what = "print `selected` and `cells` instead, for a scale at the end of the second stage's sweep.yaml"
    add("--cells", action="store_true", help=what)
    add("--plot", action="store_true", help="draw quality against the rate: figures/<name>-rates")
    options.add_paper(result)
    return result


def run(args: argparse.Namespace) -> int:
    """Print each arm's values over the settings; return exit status 1 if an optimum is at an end."""
    from gbn.analysis.results import output_folder
    from gbn.config.grid import load_grid

    cli.belongs(args, "--paper", "--plot")
    grid = load_grid(args.experiment, args.scale)
    figures = output_folder(args.results, args.source) / "figures"
    if args.plot:
        usable_folder(figures)

    from gbn.analysis.comparison.comparison import Comparison
    from gbn.analysis.comparison.selection import best_settings, rate_of, selecting
    from gbn.analysis.runs.load import load_grid_runs

    comparison = Comparison(load_grid_runs(grid, args.results, args.source))
    found, measure = best_settings(comparison.times), selecting(comparison.times)
    if args.plot:
        from gbn.analysis.plots import rates as rates_plot
        from gbn.plot_style import save

        paths = save(rates_plot.pictures(comparison), figures, args.paper)
        print("Written:", *paths, sep="\n  ")
    if args.cells:
        print("\n".join(cells_of(found, grid.name, grid.scale)))
    else:
        what = "accuracy (%) on the whole validation set" if measure.family == "accuracy" else measure.label
        print(f"{grid.title}: mean {what} at the last update, * the best")
    for group, arms in itertools.groupby([] if args.cells else found, key=lambda best: best.group):
        if group:
            print(f"{group}:")
        for best in arms:
            cells = "  ".join(
                f"{rate_of(setting)[1]} {measure.number(value):>5}{'*' if setting == best.setting else ' '}"
                for setting, value in best.values.items()
            )
            print(f"{best.arm:28s} {cells}")
    ends = [" in ".join(part for part in (best.arm, best.group) if part) for best in found if best.at_an_end]
    if ends:
        print(
            f"at an end of the grid (extend it for every arm alike): {', '.join(ends)}",
            file=sys.stderr if args.cells else sys.stdout,
        )
    return 1 if ends else 0


def cells_of(found: Sequence["BestSetting"], experiment: str, scale: str | None) -> list[str]:
    """Return the lines of a second stage's sweep.yaml that state the selected rates and their source."""
    from gbn.analysis.comparison.selection import rate_of

    lines = [
        f"    selected: {{experiment: {experiment}, scale: {scale or 'full'}, rule: rate}}",
        "    cells:",
    ]
    for group, arms in itertools.groupby(found, key=lambda best: best.group):
        lines.append(f"      {group}:")
        lines += [f"        {best.arm}: [optimizer.lr={rate_of(best.setting)[1]}]" for best in arms]
    return lines


if __name__ == "__main__":
    cli.main(parser, run)
