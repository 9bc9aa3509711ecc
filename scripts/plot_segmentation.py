"""Segmentations of the test part by several arms -> overlays and a Bland-Altman plot (PNG and PDF each).

    python scripts/plot_segmentation.py experiments/bnunet_cardiac --scale small --overlay bn none gbn_cvar
    python scripts/plot_segmentation.py cardiac-unet-bn-s0-1a2b3c4d5e cardiac-unet-none-s0-1a2b3c4d5e

Overlays: the best, median and worst patient of the first arm, on the same slices for every arm. Bland-Altman: area
of the first structure, one panel per arm. The networks are loaded from the folders of the runs, with running
statistics as in the tables' test scores. The archive holds no weights: to regenerate the figures, train again.
"""

import argparse

from gbn import cli
from gbn.analysis.plots import experiment_runs


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = experiment_runs.parser(__doc__)
    what = "arms of the overlays (default: the first four)"
    result.add_argument("--overlay", nargs="+", metavar="ARM", help=what)
    return result


def run(args: argparse.Namespace) -> int:
    """Find the runs, load their networks, draw, list the files."""
    name, runs = experiment_runs.chosen(args)
    shown = args.overlay or list(runs)[:4]
    for arm in shown:
        if arm not in runs:
            raise ValueError(f"--overlay {arm}: among the chosen runs are {', '.join(runs)}")

    from gbn.engine.restore import trained
    from gbn.plot_style import save
    from gbn.store.records import RunStore
    from gbn.studies import drawings

    store = RunStore(args.results)
    found = drawings.drawings({label: trained(store, run_id) for label, run_id in runs.items()})
    out = experiment_runs.folder(args)
    paths = save(drawings.overlays(found, shown), out / f"{name}-overlays")
    print("Written:", *paths, *save(drawings.areas(found), out / f"{name}-areas"), sep="\n  ")
    return 0


if __name__ == "__main__":
    cli.main(parser, run)
