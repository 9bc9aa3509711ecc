"""The arms selected by a screen: ranked by mean area under the curve, without the reference and --without."""

import argparse

from gbn import cli
from gbn.analysis import options
from gbn.arguments import Whole

EXAMPLES = (
    "python scripts/select_arms.py experiments/pairs_screen --scale small --top 4 --without mean+std",
)


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__, EXAMPLES)
    options.add_experiment(result)
    options.add_results(result)
    add = result.add_argument
    add("--top", type=Whole(), default=4, metavar="N", help="number of arms to select (default: 4)")
    add("--without", nargs="+", default=[], metavar="ARM", help="arms to leave out")
    add("--setting", help="one of the grid's settings, if it has several")
    return result


def run(args: argparse.Namespace) -> int:
    """Print the ranking; the first --top arms are selected."""
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


if __name__ == "__main__":
    cli.main(parser, run)
