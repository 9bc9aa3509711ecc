"""``gbn table``, ``report``, ``profile``, ``patients``: what runs say, as files to read."""

import argparse
import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gbn import cli
from gbn.cli import options
from gbn.cli.arguments import Number, name, output_folder


def table(result: cli.Parser) -> cli.Run:
    """Write the speed-up table of some runs as Markdown and CSV, and print a summary.

    Examples:
        gbn table experiments/quick
        gbn table experiments/gbn_cifar10 --scale small --source archive
        gbn table --runs 'cifar10-resnet-*' --targets 0.8 0.9
    """
    options.add_runs(result)
    options.add_results(result)
    options.add_measures(result)
    options.add_paper(result)
    return _table


def _table(args: argparse.Namespace) -> int:
    gc.disable()  # all objects live to the end: collecting garbage takes a tenth of the time and finds none
    try:
        options.check_runs(args)
        grid = options.grid(args)

        from gbn.analysis.results import write_results

        folder, runs = options.out_dir(args, "tables"), options.load(args, grid)
        how = options.measuring(args)
        print(write_results(None, runs, folder, options=how, figures=False, paper=args.paper), end="")
    finally:
        gc.enable()
    return 0


def report(result: cli.Parser) -> cli.Run:
    """Write one self-contained HTML file: verdicts, tables, interactive curves, configurations, provenance.

    Examples:
        gbn report experiments/quick
        gbn report experiments/gbn_cifar10 --scale small --source archive
        gbn report --runs 'cifar10-resnet-*' --targets 0.8 0.9 --out resnet.html
    """
    options.add_runs(result)
    options.add_results(result)
    options.add_measures(result, out="FILE")
    return _report


def _report(args: argparse.Namespace) -> int:
    options.check_runs(args)
    if args.out is None:
        options.out_dir(args, "reports")
    runs = options.load(args, options.grid(args))

    from gbn.analysis.comparison.comparison import Comparison
    from gbn.analysis.report import Sources, default_path, write

    comparison = Comparison(runs, options.measuring(args))
    path = write(Sources(comparison, args.experiment), args.out or default_path(comparison))
    print(f"{path} ({Path(path).stat().st_size / 1e6:.1f} MB): open it in a browser, it needs no network")
    return 0


def patients(result: cli.Parser) -> cli.Run:
    """Write the segmentation scores of finished runs, one row per run, patient and structure.

    The files are <experiment>-<scale>.md and .csv in segmentation/, of --results with --source archive, else of its
    scratch/.

    Examples:
        gbn patients experiments/bnunet_cardiac --scale small --source archive
    """
    options.add_experiment(result)
    options.add_results(result)
    result.add_argument("--out", type=output_folder, metavar="DIR", help="output folder")
    return _patients


def _patients(args: argparse.Namespace) -> int:
    folder = args.out or options.out_dir(args, "segmentation") / "segmentation"
    texts = patient_tables(args.experiment, args.scale, args.results, args.source)
    print(next(iter(texts.values())))
    options.write(texts, folder)
    return 0


def patient_tables(
    experiment: str | Path, scale: str | None, results: str | Path, source: str
) -> dict[str, str]:
    """Return file name -> text.

    Raises:
        LookupError: no run of the experiment there has patients' scores.
    """
    from gbn.analysis.tables.section import grid_lines
    from gbn.analysis.tables.segmentation import patient_frame, patient_sections
    from gbn.config.grid import load_grid
    from gbn.store.archive import Archive
    from gbn.store.records import DONE, RunStore

    grid = load_grid(experiment, scale)
    ids = set(grid.run_ids())
    store = RunStore(results)
    records = [record for record in Archive(results) if record.run_id in ids] if source != "store" else []
    if source != "archive":
        records = [*(store.load(run_id) for run_id in store.run_ids() if run_id in ids), *records]
    records = [record for record in records if record.status in DONE]
    frame = patient_frame(grid, records)
    lines = [f"# {grid.title}: patient by patient", ""]
    for setting, section in patient_sections(frame, grid.reference).items():
        lines += [f"## {setting}", ""] if setting else []
        lines += [f"**{section.heading}**", "", *grid_lines(section), "", *section.notes, ""]
    found = sorted({(one.environment["device_kind"], str(one.environment["commit"])[:10]) for one in records})
    origin = "; ".join(f"{device}, commit {commit}" for device, commit in found)
    lines += [f"From {len(records)} runs in the {source}, {origin}.", ""]
    stem = "-".join(filter(None, (grid.name, grid.scale)))
    return {f"{stem}.md": "\n".join(lines), f"{stem}.csv": frame.to_csv(index=False, float_format="%.6g")}


def profile(result: cli.Parser) -> cli.Run:
    """Write one performance profile (AlgoPerf's) over all tasks of some experiments: figure, Markdown, CSV.

    A task is a setting with one of its fixed targets. Arms missing from some setting are left out and listed.

    Examples:
        gbn profile experiments/gbn_mnist experiments/gbn_cifar10@small --source archive
        gbn profile experiments/quick --arms gbn_cvar_60 gbn_cvar_75
    """
    add = result.add_argument
    what = "experiments/<name>, or experiments/<name>@<scale>"
    add("experiments", nargs="+", metavar="EXPERIMENT", help=what)
    options.add_results(result)
    options.add_paper(result)
    add("--arms", nargs="+", help="beside the reference (default: all that every setting has)")
    add("--controls", action="store_true", help="with the arms that only control for others")
    add("--unit", choices=("updates", "seconds"), default="updates", help="default: updates")
    what = "end of the profile (default: 4, as in AlgoPerf)"
    add("--r-max", type=Number(1.0, 1e6), default=4.0, metavar="RATIO", help=what)
    add("--measure", help="curve key for targets (default: each experiment's own)")
    add("--first-hit", action="store_true", help="take the first point at a target, without interpolation")
    add("--name", type=name, default="profile", help="name of the files (default: profile)")
    add("--out", type=output_folder, metavar="DIR", help="folder for profiles/ (default: as for the tables)")
    return _profile


def _profile(args: argparse.Namespace) -> int:
    from gbn.plot_style import Picture, save

    folder = options.out_dir(args, "profiles") / "profiles"
    keys = ("source", "arms", "controls", "unit", "r_max", "measure", "first_hit")
    # A path may end in a slash or be absolute; the header must not depend on where the files are.
    selection = {"experiments": [f"experiments/{Path(one).name}" for one in args.experiments]}
    selection |= {key: getattr(args, key) for key in keys}
    texts, figure = profile_files(selection, args.results, args.experiments)
    print(texts[".md"].partition("\n")[2])
    drawn = save([Picture(args.name, figure)], folder, args.paper)
    options.write({f"{args.name}{suffix}": text for suffix, text in texts.items()}, folder, drawn)
    return 0


def profile_files(
    selection: Mapping[str, Any], results: str | Path, paths: list[str] | None = None
) -> tuple[dict[str, str], Any]:
    """Return the files' texts by suffix, and the figure, for the choices of a header or the command line."""
    from gbn.analysis.comparison.comparison import Comparison, Options
    from gbn.analysis.profiles import plot, score, table
    from gbn.analysis.profiles.tasks import tasks_of
    from gbn.analysis.runs.load import load_grid_runs
    from gbn.config.grid import load_grid

    how = Options(selection["measure"], "first" if selection["first_hit"] else "interpolated")
    experiments = []
    for one in paths or selection["experiments"]:
        path, _, scale = one.partition("@")
        grid = load_grid(options.experiment(path), scale or None)
        runs = load_grid_runs(grid, results, selection["source"])
        experiments.append(Comparison(options.measured(runs, how.measure), how).times)
    tasks = tasks_of(experiments, selection["unit"], selection["arms"], selection["controls"])
    found = score.profiles(tasks, selection["r_max"])
    texts = table.render(tasks, found, selection, selection["r_max"])
    return texts, plot.draw(tasks, found, selection["r_max"])
