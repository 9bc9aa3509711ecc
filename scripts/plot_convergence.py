"""Runs on disk -> convergence figures: accuracy and loss against updates and against seconds.

With --sensitivity: speed-up against the target, since a single threshold can be cherry-picked.
"""

import argparse

from gbn import cli
from gbn.analysis import options

EXAMPLES = (
    "python scripts/plot_convergence.py experiments/quick",
    "python scripts/plot_convergence.py experiments/quick --source archive --measure val_accuracy_exact",
    "python scripts/plot_convergence.py experiments/quick --source archive --sensitivity",
    "python scripts/plot_convergence.py --runs 'cifar10-resnet-*' --out /tmp/figures",
)


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__, EXAMPLES)
    options.add_runs(result)
    options.add_results(result)
    options.add_measures(result)
    options.add_paper(result)
    kind = result.add_mutually_exclusive_group().add_argument
    kind("--linear", action="store_true", help="linear horizontal axes (default: logarithmic)")
    kind("--sensitivity", action="store_true", help="speed-up against the target instead of the curves")
    kind("--matrix", action="store_true", help="arms named row+column as a matrix of differences instead")
    return result


def run(args: argparse.Namespace) -> int:
    """Load, draw, list the files."""
    options.check_runs(args)
    folder = options.out_dir(args, "figures") / "figures"
    runs = options.load(args, options.grid(args))

    from gbn.analysis.comparison.comparison import Comparison
    from gbn.analysis.plots import convergence as plots
    from gbn.analysis.plots import sensitivity as sensitivity_plot
    from gbn.plot_style import save

    comparison = Comparison(runs, options.measuring(args))
    if args.matrix:
        from gbn.analysis.plots import matrix as matrix_plot

        pictures, notes = matrix_plot.pictures(comparison)
    elif args.sensitivity:
        pictures, notes = sensitivity_plot.pictures(comparison)
    else:
        pictures, notes = plots.pictures(comparison, linear=args.linear)
    if not pictures:
        raise LookupError(f"nothing to draw: {' '.join(notes)}")
    for note in (*runs.notes, *notes):
        print(f"- {note}")
    print("Written:", *save(pictures, folder, args.paper), sep="\n  ")
    return 0


if __name__ == "__main__":
    cli.main(parser, run)
