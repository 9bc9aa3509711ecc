"""``gbn study``: measurements other than training runs."""

import argparse
import hashlib
import io
import json
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gbn import cli
from gbn.cli import options
from gbn.cli.arguments import Number, Whole, existing_file, output_file, output_folder, usable_folder
from gbn.cli.bench import render

if TYPE_CHECKING:
    from gbn.config.grid import Grid
    from gbn.plot_style import Picture
    from gbn.studies.gradient_variance.measure import Study


def variance(result: cli.Parser) -> cli.Run:
    """Measure the noise of the weight gradient under each arm of an experiment, at equal weights and batches.

    One arm is trained (--trajectory); at each of its states every arm's gradient is measured over independent
    batches. Writes <experiment>-<scale>.csv (after each seed, so that a kill loses no finished seed), and .md and
    .png from it.

    Examples:
        gbn study variance experiments/quantile_gradient --scale small
        gbn study variance experiments/quantile_gradient --scale small --batches 64 --at 0 93 279
        gbn study variance --render results/gradient_variance/quantile_gradient-small.csv
    """
    options.add_experiment(result, "?")
    add = result.add_argument
    add("--setting", help="one of the experiment's settings, if it has several")
    add("--arms", nargs="+", metavar="ARM", help="only these arms (default: all)")
    add("--trajectory", default="window_centred", metavar="ARM", help="the arm that is trained (%(default)s)")
    what = "the arm whose mean gradient is the target (%(default)s)"
    add("--exact", default="exact", metavar="ARM", help=what)
    what = "updates to measure at (default: start, a third, end)"
    add("--at", nargs="+", type=Whole(0), metavar="UPDATE", help=what)
    what = "how many of the grid's first seeds (%(default)s)"
    add("--seeds", type=Whole(), default=3, metavar="N", help=what)
    what = "independent batches at each state (%(default)s)"
    add("--batches", type=Whole(2), default=128, metavar="N", help=what)
    what = "batch sizes for the statistic's own noise"
    add("--sizes", nargs="*", type=Whole(), default=[32, 128, 512], metavar="N", help=what)
    add("--layer", help="block for the statistic's own noise (default: the last normalized one)")
    what = "seeds measured in parallel (%(default)s)"
    add("--jobs", type=Whole(most=1000), default=1, metavar="N", help=what)
    add("--out", type=output_folder, default="results/gradient_variance", metavar="DIR", help="(%(default)s)")
    add("--render", type=existing_file, metavar="CSV", help="regenerate table and figure, measure nothing")
    return _variance


def _variance(args: argparse.Namespace) -> int:
    if bool(args.experiment) == bool(args.render):
        raise ValueError("give either an experiment (experiments/<name>) or --render CSV")
    cli.alone(args, "--render")
    if args.render:
        return render(args.render, variance_files)
    from gbn.config.grid import load_grid
    from gbn.studies.gradient_variance.table import write

    grid = load_grid(args.experiment, args.scale, ["tracker.mode=disabled"])
    study = _study_of(grid, args)
    seeds = grid.seeds[: args.seeds]
    name = "-".join(filter(None, (grid.name, args.setting, grid.scale)))
    path = output_file(str(args.out / f"{name}.csv"))
    rows: list[dict[str, Any]] = []
    for seed, (found, made) in zip(seeds, _measured(study, seeds, args.jobs), strict=True):
        rows += found
        write(path, _header_of(grid, args, made), rows)
        print(f"seed {seed}: {len(found)} numbers", flush=True)
    print(path.with_suffix(".md"))
    return render(path, variance_files)


def _study_of(grid: "Grid", args: argparse.Namespace) -> "Study":
    """Return what to measure.

    Raises:
        ValueError: an arm or setting is unknown, no setting of several is chosen, or there are not enough seeds.
    """
    from gbn.config.schema import Config
    from gbn.studies.gradient_variance.measure import Study

    setting = options.setting_of(grid, args.setting)
    if "--seeds" in args.given and args.seeds > len(grid.seeds):
        raise ValueError(f"--seeds {args.seeds}: the grid has {len(grid.seeds)}")
    cells = {cell.label: cell for cell in grid.cells if cell.setting == setting}
    for arm in (*(args.arms or ()), args.trajectory, args.exact):
        cli.one_of("arm", arm, cells)
    named = {*args.arms, args.trajectory, args.exact, grid.reference} if args.arms else set(cells)
    configs = {arm: Config.model_validate(cell.config) for arm, cell in cells.items() if arm in named}
    against = list(dict.fromkeys([grid.reference, args.trajectory, args.exact]))
    return Study(configs, args.trajectory, against, args.at, args.batches, args.sizes, args.layer)


def _measured(
    study: "Study", seeds: list[int], jobs: int
) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Yield each seed's rows and provenance, in order."""
    from gbn.studies.gradient_variance.measure import rows_of_seed

    if jobs == 1:
        yield from (rows_of_seed(study, seed) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(rows_of_seed, study, seed, jobs) for seed in seeds]
        yield from (future.result() for future in futures)


def _header_of(grid: "Grid", args: argparse.Namespace, made: dict[str, Any]) -> dict[str, Any]:
    """Return the first line of the file."""
    versions = made["versions"]
    names = ("python", "torch", "numba", "triton")
    return {
        "title": grid.title,
        "experiment": grid.name,
        "scale": grid.scale,
        "baseline": grid.reference,
        "trajectory": args.trajectory,
        "exact": args.exact,
        "command": shlex.join(["gbn", "study", "variance", *args.words]),
        "device": made["device_kind"],
        "versions": ", ".join(f"{name} {versions[name]}" for name in names if name in versions),
        **{key: made[key] for key in ("kernels", "threads", "commit", "dirty", "date", "data_digest")},
    }


def variance_files(path: Path) -> "dict[str, str | Picture]":
    """Return the table and the figure of a CSV, by suffix."""
    from gbn.studies.gradient_variance import plot, table

    found = table.read(path)
    return {".md": table.markdown(found, path.stem), ".png": plot.picture(found, path.stem)}


def hessian(result: cli.Parser) -> cli.Run:
    """Measure condition numbers of Hessians during training, with and without preconditioning.

    What is measured: gbn/studies/hessian.py. Writes hessian.csv and .md into preconditioning/ of --out, and the
    figure figures/bnp-hessian.png, made from the CSV.

    Examples:
        gbn study hessian
        gbn study hessian --render results/preconditioning/hessian.csv
    """
    add = result.add_argument
    add("--seeds", type=Whole(most=1000), default=2, metavar="N", help="number of networks (default 2)")
    what = "number of images in the loss (default 2000)"
    add("--images", type=Whole(2), default=2000, metavar="N", help=what)
    what = "updates to measure at (default: 0 10 30 100 300)"
    add("--states", type=Whole(0), nargs="+", default=[0, 10, 30, 100, 300], metavar="UPDATE", help=what)
    what = "folder for preconditioning/ and figures/ (default: results)"
    add("--out", type=output_folder, default="results", metavar="DIR", help=what)
    add("--render", type=existing_file, metavar="CSV", help="only regenerate table and figure")
    return _hessian


def _hessian(args: argparse.Namespace) -> int:
    cli.alone(args, "--render")
    path = (args.render or args.out / "preconditioning" / "hessian.csv").absolute()
    figures = path.parents[1] / "figures"
    for folder in (path.parent, figures):
        usable_folder(folder)
    import torch

    from gbn.bench.environment import environment, write_rows
    from gbn.plot_style import save
    from gbn.store.files import write_atomically
    from gbn.studies import hessian

    if args.render is None:
        rows = hessian.measure(range(args.seeds), args.images, sorted(args.states))
        known = environment(torch.device("cpu"), "system")
        write_rows(
            path,
            [row | {key: known[key] for key in hessian.MADE} for row in rows],
            [*hessian.COLUMNS, *hessian.MADE],
        )
    text, drawn = hessian_files(path)
    save([drawn], figures)
    write_atomically(path.with_suffix(".md"), text)
    print(path)
    return 0


def hessian_files(path: Path) -> "tuple[str, Picture]":
    """Return the table and the figure of a CSV."""
    from gbn.bench.environment import read_rows
    from gbn.studies import hessian

    return hessian.rendered(read_rows(path, needs=[*hessian.COLUMNS, *hessian.MADE]))


def statistics(result: cli.Parser) -> cli.Run:
    """Simulate pairs with a known speed-up; write the coverage of the intervals: statistics.md and .csv.

    Examples:
        gbn study statistics                     # about ten minutes on one idle core
        gbn study statistics --repetitions 200   # a quick look
    """
    add = result.add_argument
    what = "samples per cell, at least ten; thousands to be informative (default: 4000)"
    add("--repetitions", type=Whole(10, 10**7), default=4000, metavar="N", help=what)
    add("--seed", type=Whole(0), default=0, metavar="N", help="seed of the random numbers (default: 0)")
    add("--out", type=output_folder, default="results/validation", metavar="DIR", help="(%(default)s)")
    return _statistics


def _statistics(args: argparse.Namespace) -> int:
    from gbn.studies.validation import validation
    from gbn.studies.validation.report import csv_of, markdown, whole_path

    head, findings = _header(args.repetitions, args.seed), []
    for study in (
        validation.uncensored,
        validation.censored,
        validation.survival_curves,
        validation.families,
        validation.predicted_power,
    ):
        findings += list(study(args.repetitions, args.seed))
        print(f"{study.__name__}: done", flush=True)
    findings += list(whole_path(min(300, args.repetitions)))
    files = {"statistics.md": markdown(findings, head), "statistics.csv": csv_of(findings, head)}
    options.write(files, args.out)
    return 0


def _header(repetitions: int, seed: int) -> str:
    """Return the line that states the command, versions, commit and date."""
    from gbn.engine.provenance import git_state, package_versions

    versions, state = {**package_versions(), "scipy": version("scipy")}, git_state()
    named = ", ".join(f"{name} {versions[name]}" for name in ("python", "numpy", "scipy"))
    dirty = f" with changes {state['dirty']}" if state["dirty"] else ""
    return (
        f"gbn study statistics --repetitions {repetitions} --seed {seed}; {named}; commit "
        f"{(state['commit'] or 'unknown')[:10]}{dirty}; {datetime.now(UTC):%Y-%m-%d}."
    )


RECIPE = (
    "dataset=cifar10 dataset.augment=crop_flip model=cnn model.width=0.25 norm=bn optimizer=sgd optimizer.lr=0.1 "
    "optimizer.weight_decay=1e-4 schedule=one_cycle trainer.batch_size=128 trainer.evaluation.points=6 "
    "trainer.evaluation.exact=false trainer.evaluation.test_every=0 tracker.mode=disabled seed=0"
)


def features(result: cli.Parser) -> cli.Run:
    """Train the feature network for FID and KID for when the Inception weights are not available.

    A CIFAR-10 classifier trained by a fixed recipe; its features are the inputs of its last linear layer. It is a
    measuring instrument: committed, so that everybody uses the same one, and identified by the digest of its weights
    in the name of every measure. Trained again (rounding differs between machines) it is another instrument, with
    another name.

    Examples:
        gbn study features
        gbn study features --out /tmp/features --epochs 1
    """
    result.statuses |= {1: "the run did not finish"}
    add = result.add_argument
    add("--out", type=output_folder, default="results/features", metavar="DIR", help="(%(default)s)")
    add("--epochs", type=Number(most=10**6), default=10.0, metavar="N", help="epochs of the recipe (10)")
    what = "results folder of the run (%(default)s)"
    add("--results", type=output_folder, default="results/scratch", metavar="DIR", help=what)
    add("--replace", action="store_true", help="replace an existing instrument")
    return _features


def _features(args: argparse.Namespace) -> int:
    from gbn.config.compose import compose
    from gbn.data import load
    from gbn.engine.run import run as train
    from gbn.store.files import write_atomically
    from gbn.store.records import RunStore

    description = args.out / "own.json"
    if description.exists() and not args.replace:
        raise ValueError(
            f"{description} exists: numbers measured with another network have another name; to replace "
            "it add --replace, to try the recipe add --out DIR"
        )
    began = time.monotonic()
    overrides = [*RECIPE.split(), f"trainer.epochs={args.epochs:g}"]
    # Not as an override: a path may contain characters that Hydra's grammar does not accept.
    config = compose(overrides).model_copy(update={"results_dir": str(args.results)})
    outcome = train(config)
    print(f"{outcome.run_id}: {outcome.message}")
    if outcome.status != "finished":
        return 1
    record = RunStore(args.results).load(outcome.run_id)
    used = config.as_dict()
    images = load("cifar10", used["dataset"]["root"], used["dataset"]["download"])
    made = _network_of(RunStore(args.results).path(outcome.run_id) / "checkpoint.pt", args.out)
    final = (record.summary or {})["final"]
    about = {
        "name": "own",
        **made,
        "network": {"name": "cnn", "width": used["model"]["width"]},
        "channels": images.in_channels,
        "image_size": images.image_size,
        "classes": images.num_classes,
        "mean": list(images.mean),
        "std": list(images.std),
        # It has seen the training images, so generated ones are compared with the test images.
        "reference": "test",
        "trained_on": "45,000 training images of CIFAR-10",
        "test_accuracy": final["test_accuracy"],
        "recipe": overrides,
        "data_digest": images.digest,
        "device": record.environment.get("device_kind"),
    }
    write_atomically(description, json.dumps(about, indent=1) + "\n")
    print(
        f"{description}: digest {made['digest']}, {made['features']} features, {time.monotonic() - began:.0f} s"
    )
    return 0


def _network_of(checkpoint: Path, out: Path) -> dict[str, Any]:
    """Write a checkpoint's weights without the classifier; return the file's description."""
    import torch

    from gbn.engine.checkpoint import load_checkpoint
    from gbn.store.files import write_bytes_atomically

    state = load_checkpoint(checkpoint, torch.device("cpu"))["model"]
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    file = out / "own.pt"
    out.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(kept, content)
    write_bytes_atomically(file, content.getvalue())
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    return {
        "file": file.name,
        "sha256": sha256,
        "digest": sha256[:8],
        "features": int(state["head.weight"].shape[1]),
        "made_with": f"torch {torch.__version__}",
    }
