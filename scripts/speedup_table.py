"""Runs on disk -> a speed-up table as Markdown, LaTeX and CSV, with a summary in the terminal."""

import gc

from gbn.analysis import cli

EXAMPLES = (
    "python scripts/speedup_table.py experiments/quick",
    "python scripts/speedup_table.py experiments/gbn_cifar10 --scale small --source archive",
    "python scripts/speedup_table.py --runs 'cifar10-resnet-*' --targets 0.8 0.9",
)


def run() -> int:
    """Parse, load, write, print."""
    parser = cli.parser(__doc__ or "", EXAMPLES)
    cli.add_measures(parser)
    args = parser.parse_args()
    cli.check(parser, args)
    grid = cli.grid(args)

    from gbn.analysis.results import write_results

    runs = cli.load(args, grid)
    print(write_results(None, runs, cli.out_dir(args), options=cli.options(args), figures=False), end="")
    return 0


if __name__ == "__main__":
    gc.disable()  # what is made here lives to the end: looking for garbage takes a tenth of the time and finds none
    cli.main(run)
