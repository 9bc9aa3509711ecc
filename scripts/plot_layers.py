"""Recorded layers -> figures of what each arm's normalizers saw and did along training.

Runs have recordings if they were trained with trainer.record.layers=true.
"""

import argparse

from gbn import cli
from gbn.analysis import options

EXAMPLES = (
    "python scripts/plot_layers.py experiments/quick",
    "python scripts/plot_layers.py experiments/gbn_cifar10 --source archive --quantities active slope level",
    "python scripts/plot_layers.py --runs 'cifar10-cnn-*' --layers layer1.norm layer4.norm",
)


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__, EXAMPLES)
    options.add_runs(result)
    options.add_results(result)
    options.add_measures(result)
    options.add_paper(result)
    add = result.add_argument
    add("--quantities", nargs="+", default=[], metavar="NAME", help="rows, in this order")
    add("--layers", nargs="+", default=[], metavar="PATH", help="columns (default: first, middle and last)")
    return result


def run(args: argparse.Namespace) -> int:
    """Load, draw, list the files."""
    options.check_runs(args)
    folder = options.out_dir(args, "figures") / "figures"
    runs = options.load(args, options.grid(args))

    from gbn.analysis.comparison.comparison import Comparison
    from gbn.analysis.plots import layers as layer_plots
    from gbn.analysis.runs import activations
    from gbn.plot_style import save

    choice = layer_plots.Choice(tuple(args.quantities) or activations.SHOWN, tuple(args.layers))
    frame = activations.layer_frame(runs)
    activations.require(frame, runs)
    pictures, notes = layer_plots.pictures(frame, Comparison(runs, options.measuring(args)), choice)
    if not pictures:
        raise LookupError(f"nothing to draw: {' '.join(notes)}")
    for note in (*runs.notes, *notes):
        print(f"- {note}")
    print("Written:", *save(pictures, folder, args.paper), sep="\n  ")
    return 0


if __name__ == "__main__":
    cli.main(parser, run)
