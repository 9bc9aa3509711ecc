"""What the networks of several arms draw on the test part -> overlays and Bland-Altman plot.

    python scripts/plot_segmentation.py experiments/bnunet_cardiac --scale small --overlay bn none gbn_cvar
    python scripts/plot_segmentation.py cardiac-unet-bn-s0-1a2b3c4d5e cardiac-unet-none-s0-1a2b3c4d5e

Overlays: the best, median and worst patient of the first arm, on the same slices for every arm. Bland-Altman: area
of the first structure, one panel per arm. The networks are loaded from the folders of the runs, with running
statistics as in the tables' test scores. The archive holds no weights: to regenerate the figures, train again.
"""

import argparse

from gbn import cli
from gbn.analysis.plots import experiment_runs as pictured


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = pictured.parser(__doc__)
    what = "arms of the overlays (default: the first four)"
    result.add_argument("--overlay", nargs="+", metavar="ARM", help=what)
    return result


def run(args: argparse.Namespace) -> int:
    """Find the runs, load their networks, draw, list the files."""
    name, runs = pictured.chosen(args)
    shown = args.overlay or list(runs)[:4]
    for arm in shown:
        if arm not in runs:
            raise ValueError(f"--overlay {arm}: among the chosen runs are {', '.join(runs)}")

    from gbn.engine.restore import trained
    from gbn.plot_style import Picture, save
    from gbn.store.records import RunStore
    from gbn.studies import drawings as drawn

    store = RunStore(args.results)
    found = drawn.drawings({label: trained(store, run_id) for label, run_id in runs.items()})
    pictures = [
        Picture(f"{name}-overlays", drawn.overlays(found, shown)),
        Picture(f"{name}-areas", drawn.areas(found)),
    ]
    print("Written:", *save(pictures, pictured.folder(args), args.paper), sep="\n  ")
    return 0


if __name__ == "__main__":
    cli.main(parser, run)
