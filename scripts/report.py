"""Runs on disk -> one self-contained HTML file: verdicts, tables, interactive curves, configurations, provenance."""

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
    cli.add_measures(parser, out="FILE")
    args = parser.parse_args()
    cli.check(parser, args)
    runs = cli.load(args, cli.grid(args))

    from gbn.analysis.compare import Comparison
    from gbn.analysis.report import Sources, default_path, write

    comparison = Comparison(runs, cli.options(args))
    path = write(Sources(comparison, args.experiment), args.out or default_path(comparison))
    print(f"{path} ({Path(path).stat().st_size / 1e6:.1f} MB): open it in a browser, it needs no network")
    return 0


if __name__ == "__main__":
    cli.main(run)
