"""Runs on disk -> convergence figures (PNG and PDF): accuracy and loss against updates and against seconds.

With --sensitivity: speed-up against the target, since one threshold can be picked to please.
"""

from gbn.analysis import cli

EXAMPLES = (
    "python scripts/plot_convergence.py experiments/quick",
    "python scripts/plot_convergence.py experiments/quick --source archive --measure val_accuracy_exact",
    "python scripts/plot_convergence.py experiments/quick --source archive --sensitivity",
    "python scripts/plot_convergence.py --runs 'cifar10-resnet-*' --out /tmp/figures",
)


def run() -> int:
    """Parse, load, draw, list the files."""
    parser = cli.parser(__doc__ or "", EXAMPLES)
    cli.add_measures(parser)
    parser.add_argument("--linear", action="store_true", help="linear horizontal axes (default: logarithmic)")
    parser.add_argument(
        "--sensitivity", action="store_true", help="speed-up against the target instead of the curves"
    )
    parser.add_argument(
        "--matrix", action="store_true", help="arms named row+column as a matrix of differences instead"
    )
    args = parser.parse_args()
    cli.check(parser, args)
    runs = cli.load(args, cli.grid(args))

    from gbn.analysis import plots
    from gbn.analysis.compare import Comparison
    from gbn.analysis.inference import sensitivity_plot

    folder, comparison = cli.out_dir(args) / "figures", Comparison(runs, cli.options(args))
    if args.matrix:
        from gbn.analysis.effects import matrix_plot

        paths, notes = matrix_plot.save(comparison, folder)
    elif args.sensitivity:
        paths, notes = sensitivity_plot.save(comparison, folder)
    else:
        paths, notes = plots.save(comparison, folder, linear=args.linear)
    for note in (*runs.notes, *notes):
        print(f"- {note}")
    print("Written:", *paths, sep="\n  ")
    return 0


if __name__ == "__main__":
    cli.main(run)
