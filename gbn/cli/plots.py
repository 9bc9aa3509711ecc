"""``gbn plot``: figures of curves, of recorded layers, of samples and of segmentations."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gbn import cli
from gbn.cli import options
from gbn.cli.arguments import Whole, output_folder, usable_folder
from gbn.cli.arguments import name as name_of

if TYPE_CHECKING:
    from gbn.plot_style import Picture


def convergence(result: cli.Parser) -> cli.Run:
    """Draw accuracy and loss against updates and against seconds.

    With --sensitivity: speed-up against the target, since a single threshold can be cherry-picked.

    Examples:
        gbn plot convergence experiments/quick
        gbn plot convergence experiments/quick --source archive --measure val_accuracy_exact
        gbn plot convergence experiments/quick --source archive --sensitivity
        gbn plot convergence --runs 'cifar10-resnet-*' --out /tmp/figures
    """
    _add_runs(result)
    kind = result.add_mutually_exclusive_group().add_argument
    kind("--linear", action="store_true", help="linear horizontal axes (default: logarithmic)")
    kind("--sensitivity", action="store_true", help="speed-up against the target instead of the curves")
    kind("--matrix", action="store_true", help="arms named row+column as a matrix of differences instead")
    return _convergence


def _convergence(args: argparse.Namespace) -> int:
    options.check_runs(args)
    folder = options.out_dir(args, "figures") / "figures"
    runs = options.load(args, options.grid(args))

    from gbn.analysis.comparison.comparison import Comparison
    from gbn.analysis.plots import convergence, matrix, sensitivity

    comparison = Comparison(runs, options.measuring(args))
    if args.matrix:
        found = matrix.pictures(comparison)
    elif args.sensitivity:
        found = sensitivity.pictures(comparison)
    else:
        found = convergence.pictures(comparison, linear=args.linear)
    return _draw(*found, folder, args.paper, runs.notes)


def layers(result: cli.Parser) -> cli.Run:
    """Draw what each arm's normalizers saw and did along training.

    Runs have recordings if they were trained with trainer.record.layers=true.

    Examples:
        gbn plot layers experiments/quick
        gbn plot layers experiments/gbn_cifar10 --source archive --quantities active slope level
        gbn plot layers --runs 'cifar10-cnn-*' --layers layer1.norm layer4.norm
    """
    _add_runs(result)
    add = result.add_argument
    add("--quantities", nargs="+", default=[], metavar="NAME", help="rows, in this order")
    add("--layers", nargs="+", default=[], metavar="PATH", help="columns (default: first, middle and last)")
    return _layers


def _layers(args: argparse.Namespace) -> int:
    options.check_runs(args)
    folder = options.out_dir(args, "figures") / "figures"
    runs = options.load(args, options.grid(args))

    from gbn.analysis.comparison.comparison import Comparison
    from gbn.analysis.plots import layers
    from gbn.analysis.runs import activations

    choice = layers.Choice(tuple(args.quantities) or activations.SHOWN, tuple(args.layers))
    frame = activations.layer_frame(runs)
    activations.require(frame, runs)
    found = layers.pictures(frame, Comparison(runs, options.measuring(args)), choice)
    return _draw(*found, folder, args.paper, runs.notes)


def samples(result: cli.Parser) -> cli.Run:
    """Draw samples of several arms side by side, at equal updates and from equal latents, as one figure.

    Made from the pictures in the folders of the runs (trainer.record.pictures). The archive holds no pictures: to
    regenerate this figure, train the runs again, which gives the same pictures on the same machine.

    Examples:
        gbn plot samples experiments/mixture_dcgan --scale small
        gbn plot samples experiments/mixture_dcgan --scale small --seed 1 --arms bn mixture_all
        gbn plot samples cifar10-dcgan-bn-s0-1a2b3c4d5e cifar10-dcgan-mixture-s0-1a2b3c4d5e
    """
    _add_arms(result)
    add = result.add_argument
    what = "updates, one per row (default: every picture that all runs have)"
    add("--at", nargs="+", type=Whole(), metavar="UPDATE", help=what)
    what = "rows and columns of each part, at most 8 (%(default)s)"
    add("--images", type=Whole(most=8), default=4, metavar="N", help=what)
    return _samples


def _samples(args: argparse.Namespace) -> int:
    name, runs = _arms(args)

    from gbn.analysis.plots import samples
    from gbn.plot_style import Picture
    from gbn.store.records import RunStore

    store = RunStore(args.results)
    figure = samples.draw({label: store.path(run_id) for label, run_id in runs.items()}, args.at, args.images)
    return _draw([Picture(f"{name}-samples", figure)], [], _folder(args), args.paper)


def segmentation(result: cli.Parser) -> cli.Run:
    """Draw what the networks of several arms find on the test part: overlays and a Bland-Altman plot.

    Overlays: the best, median and worst patient of the first arm, on the same slices for every arm. Bland-Altman:
    area of the first structure, one panel per arm. The networks are loaded from the folders of the runs, with running
    statistics as in the tables' test scores. The archive holds no weights: to regenerate the figures, train again.

    Examples:
        gbn plot segmentation experiments/bnunet_cardiac --scale small --overlay bn none gbn_cvar
        gbn plot segmentation cardiac-unet-bn-s0-1a2b3c4d5e cardiac-unet-none-s0-1a2b3c4d5e
    """
    _add_arms(result)
    what = "arms of the overlays (default: the first four)"
    result.add_argument("--overlay", nargs="+", metavar="ARM", help=what)
    return _segmentation


def _segmentation(args: argparse.Namespace) -> int:
    name, runs = _arms(args)
    shown = args.overlay or list(runs)[:4]
    for arm in shown:
        if arm not in runs:
            raise ValueError(f"--overlay {arm}: among the chosen runs are {', '.join(runs)}")

    from gbn.engine.restore import trained
    from gbn.plot_style import Picture
    from gbn.store.records import RunStore
    from gbn.studies.drawings import areas, drawings, overlays

    store = RunStore(args.results)
    found = drawings({label: trained(store, run_id) for label, run_id in runs.items()})
    figures = {"overlays": overlays(found, shown), "areas": areas(found)}
    pictures = [Picture(f"{name}-{kind}", figure) for kind, figure in figures.items()]
    return _draw(pictures, [], _folder(args), args.paper)


def _add_runs(result: cli.Parser) -> None:
    options.add_runs(result)
    options.add_results(result)
    options.add_measures(result)
    options.add_paper(result)


def _add_arms(result: cli.Parser) -> None:
    add = result.add_argument
    add("what", nargs="+", metavar="EXPERIMENT | RUN", help="a folder with a sweep.yaml, or ids of runs")
    add("--scale", type=name_of, help="a preset of the experiment, for example small")
    add("--setting", help="one of the experiment's settings, where it has several")
    add("--seed", type=Whole(0), help="whose runs (default: the first of the grid)")
    add("--arms", nargs="+", metavar="ARM", help="only these arms, in this order")
    options.add_results(result, source=None)
    what = "folder of the figures (default: figures of --results)"
    add("--out", type=output_folder, metavar="DIR", help=what)
    options.add_paper(result)


def _arms(args: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """Return (stem of the figures' names, label -> run id): the arms of one setting and seed, or runs by their ids.

    Raises:
        ConfigError: an experiment, setting, seed or arm is unknown.
        StoreError: there is no run with this id.
        ValueError: an option for experiments is combined with ids, two experiments are given, or a folder cannot be
            written.
    """
    from gbn.config.grid import load_grid
    from gbn.store.records import RunStore

    usable_folder(_folder(args))
    first = Path(options.experiment(args.what[0]))
    if not (first / "sweep.yaml").is_file():
        for option in ("--scale", "--setting", "--seed", "--arms"):
            if option in args.given:
                raise ValueError(f"{option} applies to an experiment, not to run ids: leave it out")
        return "runs", {run_id: run_id for run_id in RunStore(args.results).match(args.what)}
    if len(args.what) > 1:
        raise ValueError(f"give one experiment at a time, not {len(args.what)}: {', '.join(args.what)}")
    grid = load_grid(first, args.scale)
    setting = grid.settings[0] if args.setting is None else options.setting_of(grid, args.setting)
    seeds = [str(seed) for seed in grid.seeds]
    seed = grid.seeds[0] if args.seed is None else int(cli.one_of("seed", str(args.seed), seeds))
    cells = {cell.label: cell.run_ids[seed] for cell in grid.cells if cell.setting == setting}
    arms = [cli.one_of("arm", arm, cells) for arm in args.arms or cells]
    parts = (grid.name, grid.scale, setting if len(grid.settings) > 1 else "")
    return "-".join(filter(None, parts)), {arm: cells[arm] for arm in arms}


def _folder(args: argparse.Namespace) -> Path:
    return args.out if args.out is not None else Path(args.results) / "figures"


def _draw(
    pictures: "Sequence[Picture]", notes: Sequence[str], folder: Path, paper: bool, more: Iterable[str] = ()
) -> int:
    """Write pictures, print their notes and those of the runs (`more`); return the exit status.

    Raises:
        LookupError: there is no picture.
    """
    from gbn.plot_style import save

    if not pictures:
        raise LookupError(f"nothing to draw: {' '.join(notes)}")
    for note in (*more, *notes):
        print(f"- {note}")
    print("Written:", *save(pictures, folder, paper), sep="\n  ")
    return 0
