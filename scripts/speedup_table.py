"""Runs on disk -> a speed-up table as Markdown, LaTeX and CSV, with a summary in the terminal."""

import argparse
import gc

from gbn import cli

EXAMPLES = (
    "python scripts/speedup_table.py experiments/quick",
    "python scripts/speedup_table.py experiments/gbn_cifar10 --scale small --source archive",
    "python scripts/speedup_table.py --runs 'cifar10-resnet-*' --targets 0.8 0.9",
)


def parser() -> cli.Parser:
    """The command line."""
    result = cli.Parser(__doc__, EXAMPLES)
    cli.add_runs(result)
    cli.add_results(result)
    cli.add_measures(result)
    return result


def run(args: argparse.Namespace) -> int:
    """Load, write, print."""
    cli.check_runs(args)
    grid = cli.grid(args)

    from gbn.analysis.results import write_results

    folder, runs = cli.out_dir(args, "tables"), cli.load(args, grid)
    print(write_results(None, runs, folder, options=cli.options(args), figures=False), end="")
    return 0


if __name__ == "__main__":
    gc.disable()  # what is made here lives to the end: looking for garbage takes a tenth of the time and finds none
    cli.main(parser, run)
