"""Runs on disk -> a speed-up table as Markdown, LaTeX and CSV, with a summary in the terminal."""

import argparse
import gc

from gbn import cli
from gbn.analysis import options

EXAMPLES = (
    "python scripts/speedup_table.py experiments/quick",
    "python scripts/speedup_table.py experiments/gbn_cifar10 --scale small --source archive",
    "python scripts/speedup_table.py --runs 'cifar10-resnet-*' --targets 0.8 0.9",
)


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__, EXAMPLES)
    options.add_runs(result)
    options.add_results(result)
    options.add_measures(result)
    return result


def run(args: argparse.Namespace) -> int:
    """Load, write, print."""
    options.check_runs(args)
    grid = options.grid(args)

    from gbn.analysis.results import write_results

    folder, runs = options.out_dir(args, "tables"), options.load(args, grid)
    print(write_results(None, runs, folder, options=options.measuring(args), figures=False), end="")
    return 0


if __name__ == "__main__":
    gc.disable()  # all objects live to the end: collecting garbage takes a tenth of the time and finds none
    cli.main(parser, run)
