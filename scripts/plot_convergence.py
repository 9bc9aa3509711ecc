"""Runs on disk -> convergence figures (PNG and PDF): accuracy and loss against updates and against seconds."""

from gbn.analysis import cli

EXAMPLES = (
    "python scripts/plot_convergence.py experiments/quick",
    "python scripts/plot_convergence.py experiments/quick --source archive --measure val_accuracy_exact",
    "python scripts/plot_convergence.py --runs 'cifar10-resnet-*' --out /tmp/figures",
)


def run() -> int:
    """Parse, load, draw, list the files."""
    parser = cli.parser(__doc__ or "", EXAMPLES)
    cli.add_measures(parser)
    parser.add_argument("--linear", action="store_true", help="linear horizontal axes (default: logarithmic)")
    args = parser.parse_args()
    cli.check(parser, args)
    runs = cli.load(args, cli.grid(args))

    from gbn.analysis import plots
    from gbn.analysis.compare import Comparison

    folder = cli.out_dir(args) / "figures"
    paths, notes = plots.save(Comparison(runs, cli.options(args)), folder, linear=args.linear)
    for note in (*runs.notes, *notes):
        print(f"- {note}")
    print("Written:", *paths, sep="\n  ")
    return 0


if __name__ == "__main__":
    cli.main(run)
