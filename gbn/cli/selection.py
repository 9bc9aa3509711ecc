"""``gbn select``: what a first stage selects for a second one, by the rule of its protocol."""

import argparse
import itertools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gbn import cli
from gbn.cli import options
from gbn.cli.arguments import Whole, usable_folder

if TYPE_CHECKING:
    from gbn.analysis.comparison.selection import BestRate


def rates(result: cli.Parser) -> cli.Run:
    """Select each arm's best learning rate by the tuning seeds' validation values; warn at a grid's end.

    Examples:
        gbn select rates experiments/learning_rate --scale small --source archive
    """
    result.statuses |= {1: "the best rate of some arm is at an end of the grid"}
    options.add_experiment(result)
    options.add_results(result)
    add = result.add_argument
    what = "print `selected` and `cells` instead, for a scale at the end of the second stage's sweep.yaml"
    add("--cells", action="store_true", help=what)
    add("--plot", action="store_true", help="draw quality against the rate: figures/<name>-rates")
    options.add_paper(result)
    return _rates


def _rates(args: argparse.Namespace) -> int:
    from gbn.analysis.results import output_folder
    from gbn.config.grid import load_grid

    cli.belongs(args, "--paper", "--plot")
    grid = load_grid(args.experiment, args.scale)
    figures = output_folder(args.results, args.source) / "figures"
    if args.plot:
        usable_folder(figures)

    from gbn.analysis.comparison.comparison import Comparison
    from gbn.analysis.comparison.selection import best_rates, selecting
    from gbn.analysis.runs.load import load_grid_runs

    comparison = Comparison(load_grid_runs(grid, args.results, args.source))
    found, measure = best_rates(comparison.times), selecting(comparison.times)
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
                f"{rate} {measure.number(value):>5}{'*' if rate == best.rate else ' '}"
                for rate, value in best.values.items()
            )
            print(f"{best.arm:28s} {cells}")
    ends = [" in ".join(part for part in (best.arm, best.group) if part) for best in found if best.at_an_end]
    if ends:
        print(
            f"at an end of the grid (extend it for every arm alike): {', '.join(ends)}",
            file=sys.stderr if args.cells else sys.stdout,
        )
    return 1 if ends else 0


def cells_of(found: Sequence["BestRate"], experiment: str, scale: str | None) -> list[str]:
    """Return the lines of a second stage's sweep.yaml that state the selected rates and their source."""
    lines = [
        f"    selected: {{experiment: {experiment}, scale: {scale or 'full'}, rule: rate}}",
        "    cells:",
    ]
    for group, arms in itertools.groupby(found, key=lambda best: best.group):
        lines.append(f"      {group or repr('')}:")
        lines += [f"        {best.arm}: [optimizer.lr={best.rate}]" for best in arms]
    return lines


def arms(result: cli.Parser) -> cli.Run:
    """Rank the arms of a screen by mean area under the curve, without the reference and --without.

    Examples:
        gbn select arms experiments/pairs_screen --scale small --top 4 --without mean+std
    """
    options.add_experiment(result)
    options.add_results(result)
    add = result.add_argument
    add("--top", type=Whole(), default=4, metavar="N", help="number of arms to select (default: 4)")
    add("--without", nargs="+", default=[], metavar="ARM", help="arms to leave out")
    add("--setting", help="one of the grid's settings, if it has several")
    return _arms


def _arms(args: argparse.Namespace) -> int:
    from gbn.config.grid import load_grid

    grid = load_grid(args.experiment, args.scale)
    setting = options.setting_of(grid, args.setting)
    for arm in args.without:
        cli.one_of("arm", arm, [cell.label for cell in grid.cells])

    from gbn.analysis.comparison.comparison import Comparison
    from gbn.analysis.comparison.selection import rank_by_area
    from gbn.analysis.runs.load import load_grid_runs

    comparison = Comparison(load_grid_runs(grid, args.results, args.source))
    ranked = rank_by_area(comparison.times, setting, tuple(args.without))
    measured = comparison.measured
    print(f"{grid.title}: mean area under the curve of {measured.key}")
    for place, one in enumerate(ranked, start=1):
        mark = "*" if place <= args.top and not one.out else " "
        print(f"{mark} {place:3d}  {one.out or f'{measured.number(one.value):>6}'}  n={one.n}  {one.arm}")
    return 0
