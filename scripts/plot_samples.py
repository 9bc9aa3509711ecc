"""Samples of several arms side by side, at equal updates and from equal latents -> one figure.

    python scripts/plot_samples.py experiments/mixture_dcgan --scale small
    python scripts/plot_samples.py experiments/mixture_dcgan --scale small --seed 1 --arms bn mixture_all
    python scripts/plot_samples.py cifar10-dcgan-bn-s0-1a2b3c4d5e cifar10-dcgan-mixture-s0-1a2b3c4d5e

Made from the pictures in the folders of the runs (trainer.record.pictures). The archive holds no pictures: to
regenerate this figure, train the runs again, which gives the same pictures on the same machine.
"""

import argparse

from gbn import cli
from gbn.analysis.plots import experiment_runs as pictured
from gbn.arguments import Whole


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = pictured.parser(__doc__)
    add = result.add_argument
    what = "updates, one per row (default: every picture that all runs have)"
    add("--at", nargs="+", type=Whole(), metavar="UPDATE", help=what)
    what = "rows and columns of each part, at most 8 (%(default)s)"
    add("--images", type=Whole(most=8), default=4, metavar="N", help=what)
    return result


def run(args: argparse.Namespace) -> int:
    """Find the runs, draw, list the files."""
    name, runs = pictured.chosen(args)

    from gbn.analysis.plots import samples
    from gbn.plot_style import Picture, save
    from gbn.store.records import RunStore

    store = RunStore(args.results)
    figure = samples.draw({label: store.path(run_id) for label, run_id in runs.items()}, args.at, args.images)
    paths = save([Picture(f"{name}-samples", figure)], pictured.folder(args), args.paper)
    print("Written:", *paths, sep="\n  ")
    return 0


if __name__ == "__main__":
    cli.main(parser, run)
