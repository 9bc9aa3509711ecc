"""Options that verbs share (runs, a measure, an output folder), and the functions that apply them.

Nothing heavy is imported before the options have been checked.
"""

import argparse
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gbn import cli
from gbn.cli.arguments import Number, existing_folder, name, output_file, output_folder, usable_folder

if TYPE_CHECKING:
    from gbn.analysis.comparison.comparison import Options
    from gbn.analysis.runs.load import Runs
    from gbn.analysis.runs.plan import GridLike
    from gbn.config.grid import Grid

SOURCES = ("store", "archive", "both")


def setting_of(of: "Grid", given: str | None) -> str:
    """Return the setting to use.

    Returns:
        `given`, or the only setting of the grid.

    Raises:
        ConfigError: the setting is unknown, or there are several and none is given.
    """
    if given is not None and not any(of.settings):
        raise ValueError(f"unknown setting {given!r}: {of.name} has no settings, leave out --setting")
    if given is not None:
        return cli.one_of("setting", given, of.settings)
    if len(of.settings) > 1:
        raise ValueError(f"{of.name} has several settings: choose one with --setting {'|'.join(of.settings)}")
    return of.settings[0]


def add_experiment(result: cli.Parser, nargs: str | None = None) -> None:
    """Add the options for the experiment and its scale."""
    what = "experiments/<name>, or <name> alone: the runs of its grid"
    result.add_argument("experiment", nargs=nargs, type=experiment, help=what)
    result.add_argument("--scale", type=name, help="one of the experiment's scales (default: its own)")


def experiment(text: str) -> str:
    """Return the path of an experiment: the working folder's, else the package's; `text` where there is neither."""
    from gbn.config.places import find_experiment

    return find_experiment(text)


def add_runs(result: cli.Parser) -> None:
    """Add the options for an experiment or any set of runs; see :func:`check_runs`."""
    add_experiment(result, "?")
    what = "any set of runs instead: ids, patterns on ids, run folders"
    result.add_argument("--runs", nargs="+", metavar="GLOB", help=what)


def add_results(result: cli.Parser, source: str | None = "store") -> None:
    """Add the options for the results folder and (unless `source`, its default, is None) which part of it to read."""
    add = result.add_argument
    where = "where runs/ and archive/ are (default: results)"
    add("--results", type=existing_folder, default="results", metavar="DIR", help=where)
    if source is not None:
        add("--source", choices=SOURCES, default=source, help=f"default: {source}")


def add_measures(result: cli.Parser, out: str = "DIR") -> None:
    """Add the options for what is compared and where it is written: a folder, or (`out` "FILE") a file."""
    add = result.add_argument
    what = "gets tables/ and figures/" if out == "DIR" else "where to write it"
    where = "the results folder with --source archive, its scratch/ otherwise"
    where = f"{what} (default: {'in reports/ of ' if out != 'DIR' else ''}{where})"
    add("--out", type=output_folder if out == "DIR" else output_file, metavar=out, help=where)
    add("--name", type=name, default="runs", help="name of the files made from --runs (default: runs)")
    add("--reference", metavar="ARM", help="with --runs: the arm to compare with (default: bn)")
    what = "values of the measure: accuracies between 0 and 1, a KID of 0.02"
    add("--targets", nargs="+", type=Number(), default=[], metavar="VALUE", help=what)
    add("--measure", help="curve key for targets (default: the experiment's own, else val_accuracy)")
    add("--first-hit", action="store_true", help="take the first point at a target, without interpolation")


def add_paper(result: cli.Parser) -> None:
    """Add the option for the files of a paper, which are written beside the usual ones."""
    what = "for a paper: LaTeX of each table, PDF of each figure too"
    result.add_argument("--paper", action="store_true", help=what)


def check_runs(args: argparse.Namespace) -> None:
    """Check that exactly one of experiment and --runs is given, with only the options that apply to it.

    Raises:
        ValueError: neither or both are given, or an option applies only to the other.
    """
    if bool(args.experiment) == bool(args.runs):
        raise ValueError("give an experiment (experiments/<name>) or --runs GLOB..., exactly one of the two")
    if args.runs and "--scale" in args.given:
        raise ValueError("--scale belongs to an experiment, not to --runs")
    if args.experiment and "--reference" in args.given:
        raise ValueError("--reference belongs to --runs: an experiment's sweep.yaml names its own")
    if args.experiment and "--name" in args.given:
        raise ValueError("--name belongs to --runs: an experiment's files have its name")


def grid(args: argparse.Namespace) -> "Grid | None":
    """Return the experiment's grid; None for --runs.

    Raises:
        ConfigError: there is no such experiment or scale, or its sweep.yaml is invalid.
    """
    if not args.experiment:
        return None
    from gbn.config.grid import load_grid

    return load_grid(args.experiment, args.scale)


def load(args: argparse.Namespace, of: "GridLike | None") -> "Runs":
    """Return the selected runs.

    Raises:
        NothingFound, StoreError, ValueError: as :func:`gbn.analysis.runs.load.load_any`.
        LookupError: no run has the measure.
    """
    from gbn.analysis.runs.load import load_any, load_grid_runs

    if of is None:
        runs = load_any(
            args.runs, args.results, args.source, args.reference, args.targets, args.name,
            measure=args.measure,
        )  # fmt: skip
    else:
        runs = load_grid_runs(of, args.results, args.source, args.targets, measure=args.measure)
    return measured(runs, args.measure)


def measured(runs: "Runs", measure: str | None) -> "Runs":
    """Check that some run has the measure; None, the experiment's own, is not checked.

    Returns:
        `runs`.

    Raises:
        LookupError: none of the runs has it.
        ValueError: there is no such measure.
    """
    from gbn import measures

    key = None if measure is None else measures.measure(measure).key
    # A curve without exact statistics replaces one with them; a note says so.
    if key is not None and not {key, key.removesuffix("_exact")} & {*runs.points.keys}:
        raise LookupError(f"--measure {measure}: no curve of these runs has it")
    return runs


def measuring(args: argparse.Namespace) -> "Options":
    """Return how times to targets are measured."""
    from gbn.analysis.comparison.comparison import Options

    return Options(args.measure, "first" if args.first_hit else "interpolated")


def out_dir(args: argparse.Namespace, *parts: str) -> Path:
    """Return --out, or the default folder of --source, after checking that its `parts` can be written.

    Raises:
        ValueError: a file is in the way, or the folder cannot be written.
    """
    from gbn.analysis.results import output_folder as folder_of

    folder = Path(args.out) if args.out else folder_of(args.results, args.source)
    for part in parts:
        usable_folder(folder / part)
    return folder


def seeds_of(of: "Grid", chosen: Collection[int] | None) -> list[int]:
    """Return the grid's seeds, or the selected ones.

    Raises:
        ValueError: the grid does not have a selected seed.
    """
    if not chosen:
        return list(of.seeds)
    if others := sorted({*chosen} - {*of.seeds}):
        listed = ", ".join(map(str, others[:5])) + (", ..." if len(others) > 5 else "")
        raise ValueError(f"--seeds {listed}: the grid has seeds {_ranges(of.seeds)}")
    return [seed for seed in of.seeds if seed in chosen]


def _ranges(seeds: Sequence[int]) -> str:
    """Format seeds as ``0-7`` or ``0, 2, 5``."""
    if list(seeds) == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 2:
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))


def check_overrides(overrides: Iterable[str]) -> list[str]:
    """Check overrides that apply to every run of a grid.

    Returns:
        `overrides`.

    Raises:
        ValueError: an override sets what the command or the grid decides: where results go, the seeds, the
            experiment's name.
    """
    instead = {
        "results_dir": "give --results DIR",
        "seed": "give --seeds, the grid has its own",
        "experiment": "it is the grid's folder",
    }
    for text in overrides:
        key = re.match(r"[+~]*([\w./]*)", text)
        if key is not None and key[1] in instead:
            raise ValueError(f"the override {text!r} is not for every run of a grid: {instead[key[1]]}")
    return list(overrides)


def write(texts: Mapping[str, str], folder: Path, also: Iterable[Path] = ()) -> None:
    """Write texts by file name into a folder; print their paths and those written before (`also`)."""
    from gbn.store.files import write_atomically

    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_atomically(folder / file, text)
    print("Written:", *(folder / file for file in texts), *also, sep="\n  ")
