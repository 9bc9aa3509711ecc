"""The arms that a screen passes on: ranked by mean area under the curve, the reference and --without excepted."""

from gbn.analysis import cli


def run() -> int:
    """Print the ranking; the first --top arms are selected."""
    example = (
        "python scripts/select_arms.py experiments/pairs_screen --scale small --top 4 --without mean+std"
    )
    parser = cli.parser(__doc__, [example])
    parser.add_argument("--top", type=int, default=4, help="how many are selected (default: 4)")
    parser.add_argument("--without", nargs="+", default=[], metavar="ARM", help="arms that are no candidates")
    parser.add_argument("--setting", default="", help="one of the grid's settings")
    args = parser.parse_args()
    cli.check(parser, args)
    grid = cli.grid(args)
    if grid is None:
        parser.error("a selection needs an experiment (experiments/<name>)")
    from gbn.analysis.compare import Comparison
    from gbn.analysis.load import load_grid_runs
    from gbn.analysis.selection import rank_by_area

    comparison = Comparison(load_grid_runs(grid, args.results, args.source))
    ranked = rank_by_area(comparison, args.setting, tuple(args.without))
    measured = comparison.measured
    print(f"{grid.title}: mean area under the curve of {comparison.measure}")
    for place, one in enumerate(ranked, start=1):
        mark = "*" if place <= args.top and not one.out else " "
        print(f"{mark} {place:3d}  {one.out or f'{measured.number(one.value):>6}'}  n={one.n}  {one.arm}")
    return 0


if __name__ == "__main__":
    cli.main(run)
