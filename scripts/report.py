"""Runs on disk -> one self-contained HTML file: verdicts, tables, interactive curves, configurations, provenance."""

import argparse
from pathlib import Path

from gbn import cli
from gbn.analysis import options

EXAMPLES = (
    "python scripts/report.py experiments/quick",
    "python scripts/report.py experiments/gbn_cifar10 --scale small --source archive",
    "python scripts/report.py --runs 'cifar10-resnet-*' --targets 0.8 0.9 --out resnet.html",
)


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__, EXAMPLES)
    options.add_runs(result)
    options.add_results(result)
    options.add_measures(result, out="FILE")
    return result


def run(args: argparse.Namespace) -> int:
    """Load, write, print the path."""
    options.check_runs(args)
    if args.out is None:
        options.out_dir(args, "reports")
    runs = options.load(args, options.grid(args))

    from gbn.analysis.comparison.comparison import Comparison
    from gbn.analysis.report import Sources, default_path, write

    comparison = Comparison(runs, options.measuring(args))
    path = write(Sources(comparison, args.experiment), args.out or default_path(comparison))
    print(f"{path} ({Path(path).stat().st_size / 1e6:.1f} MB): open it in a browser, it needs no network")
    return 0


if __name__ == "__main__":
    cli.main(parser, run)
