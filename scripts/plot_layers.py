"""Recorded layers -> figures (PNG and PDF) of what each arm's normalizers saw and did along training.

Runs have recordings where they were trained with trainer.record.layers=true.
"""

from gbn.analysis import cli

EXAMPLES = (
    "python scripts/plot_layers.py experiments/quick",
    "python scripts/plot_layers.py experiments/gbn_cifar10 --source archive --quantities active slope level",
    "python scripts/plot_layers.py --runs 'cifar10-cnn-*' --layers layer1.norm layer4.norm",
)


def run() -> int:
    """Parse, load, draw, list the files."""
    parser = cli.parser(__doc__ or "", EXAMPLES)
    cli.add_measures(parser)
    parser.add_argument("--quantities", nargs="+", default=[], metavar="NAME", help="rows, in this order")
    parser.add_argument(
        "--layers", nargs="+", default=[], metavar="PATH", help="columns (default: first, middle and last)"
    )
    args = parser.parse_args()
    cli.check(parser, args)
    runs = cli.load(args, cli.grid(args))

    from gbn.analysis.compare import Comparison
    from gbn.analysis.inside import activations, layer_plots

    choice = layer_plots.Choice(tuple(args.quantities) or activations.SHOWN, tuple(args.layers))
    frame = activations.layer_frame(runs)
    activations.require(frame, runs)
    folder = cli.out_dir(args) / "figures"
    paths, notes = layer_plots.save(frame, Comparison(runs, cli.options(args)), folder, choice)
    for note in (*runs.notes, *notes):
        print(f"- {note}")
    print("Written:", *paths, sep="\n  ")
    return 0


if __name__ == "__main__":
    cli.main(run)
