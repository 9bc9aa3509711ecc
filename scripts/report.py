"""Runs on disk -> one self-contained HTML file: verdicts, tables, interactive curves, configurations, provenance."""

import argparse
import shlex
from pathlib import Path

from gbn.analysis import cli

EXAMPLES = (
    "python scripts/report.py experiments/quick",
    "python scripts/report.py experiments/gbn_cifar10 --scale small --source archive",
    "python scripts/report.py --runs 'cifar10-resnet-*' --targets 0.8 0.9 --out resnet.html",
)


def run() -> int:
    """Parse, load, write, say where."""
    parser = cli.parser(__doc__ or "", EXAMPLES)
    cli.add_measures(parser)
    args = parser.parse_args()
    cli.check(parser, args)
    runs = cli.load(args, cli.grid(args))

    from gbn.analysis.compare import Comparison
    from gbn.analysis.report import Sources, default_path, write

    comparison = Comparison(runs, cli.options(args))
    path = Path(args.out) if args.out else default_path(comparison)
    write(Sources(comparison, args.experiment, command(args)), path)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser, it needs no network")
    return 0


def command(args: argparse.Namespace) -> str:
    """The command that makes this report again, wherever it is written."""
    words = ["python", "scripts/report.py"]
    words += [args.experiment] if args.experiment else ["--runs", *args.runs]
    for name in ("scale", "reference", "measure"):
        if value := getattr(args, name):
            words += [f"--{name}", value]
    words += ["--targets", *(f"{target:g}" for target in args.targets)] if args.targets else []
    words += ["--first-hit"] if args.first_hit else []
    words += ["--source", args.source] if args.source != "store" else []
    return shlex.join(words)


if __name__ == "__main__":
    cli.main(run)
