"""The best learning rate (setting) of each arm by the tuning seeds' validation accuracy; warns at a grid's end."""

from gbn.analysis import cli


def run() -> int:
    """Print each arm's accuracies over the settings; exit status 1 where an optimum lies at an end."""
    parser = cli.parser(
        __doc__, ["python scripts/select_rates.py experiments/learning_rate --scale small --source archive"]
    )
    args = parser.parse_args()
    cli.check(parser, args)
    grid = cli.grid(args)
    if grid is None:
        parser.error("a selection needs an experiment (experiments/<name>)")
    from gbn.analysis.compare import Comparison
    from gbn.analysis.load import load_grid_runs
    from gbn.analysis.selection import best_settings

    found = best_settings(Comparison(load_grid_runs(grid, args.results, args.source)))
    print(f"{grid.title}: mean accuracy (%) on the whole validation set at the last update, * the best")
    for best in found:
        cells = "  ".join(
            f"{setting} {100 * value:5.2f}{'*' if setting == best.setting else ' '}"
            for setting, value in best.values.items()
        )
        print(f"{best.arm:28s} {cells}")
    ends = [best.arm for best in found if best.at_an_end]
    if ends:
        print(f"at an end of the grid, extend it for every arm alike: {', '.join(ends)}")
    return 1 if ends else 0


if __name__ == "__main__":
    cli.main(run)
