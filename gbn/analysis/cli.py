"""The command line that the scripts share: which runs, from where, measured how.

Nothing heavy is imported before the arguments are known to be right.
"""

import argparse
import io
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gbn.analysis.compare import Options
    from gbn.analysis.load import Runs
    from gbn.analysis.plan import GridLike


def parser(description: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    """A parser with the options that choose runs."""
    result = argparse.ArgumentParser(
        description=description,
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("experiment", nargs="?", help="experiments/<name>: the runs of its grid")
    add(
        "--runs", nargs="+", metavar="GLOB", help="any set of runs instead: ids, patterns on ids, run folders"
    )
    add("--scale", help="one of the experiment's scales (default: its own)")
    add("--results", default="results", metavar="DIR", help="where runs/ and archive/ are (default: results)")
    add("--source", choices=("store", "archive", "both"), default="store", help="default: store")
    return result


def add_measures(result: argparse.ArgumentParser, out: str = "DIR") -> None:
    """The options that say what is compared and where it goes: into a folder, or (`out` "FILE") a file."""
    add = result.add_argument
    what = "gets tables/ and figures/" if out == "DIR" else "where to write it"
    where = "the results folder with --source archive, its scratch/ otherwise"
    add("--out", metavar=out, help=f"{what} (default: {'in reports/ of ' if out != 'DIR' else ''}{where})")
    add("--name", default="runs", help="name of the files made from --runs (default: runs)")
    add("--reference", metavar="ARM", help="with --runs: the arm to compare with (default: bn)")
    what = "values of the measure: accuracies between 0 and 1, a KID of 0.02"
    add("--targets", nargs="+", type=_positive, default=[], metavar="VALUE", help=what)
    add("--measure", help="curve key for targets (default: the experiment's own, else val_accuracy)")
    add("--first-hit", action="store_true", help="take the first point at a target, without interpolation")


def _positive(text: str) -> float:
    """A number above 0; whether the measure can have it is known when the measure is."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no target: give a number, for example 0.9 for 90 %")
    return value


def check(result: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exactly one of experiment and --runs, and only what belongs to it."""
    if bool(args.experiment) == bool(args.runs):
        result.error("give an experiment (experiments/<name>) or --runs GLOB..., one of them")
    if args.runs and args.scale:
        result.error("--scale belongs to an experiment, not to --runs")
    if args.experiment and getattr(args, "reference", None):
        result.error("--reference belongs to --runs: an experiment's sweep.yaml names its own")


def grid(args: argparse.Namespace) -> "GridLike | None":
    """The experiment's grid; None for --runs."""
    if not args.experiment:
        return None
    from gbn.config.grid import load_grid

    return load_grid(args.experiment, args.scale)


def load(args: argparse.Namespace, of: "GridLike | None") -> "Runs":
    """The chosen runs."""
    from gbn.analysis.load import load_any, load_grid_runs

    if of is None:
        return load_any(
            args.runs, args.results, args.source, args.reference, args.targets, args.name,
            measure=args.measure,
        )  # fmt: skip
    return load_grid_runs(of, args.results, args.source, args.targets, measure=args.measure)


def options(args: argparse.Namespace) -> "Options":
    """How targets are measured."""
    from gbn.analysis.compare import Options

    return Options(args.measure, "first" if args.first_hit else "interpolated")


def out_dir(args: argparse.Namespace) -> Path:
    """Where tables/ and figures/ go."""
    from gbn.analysis.results import output_folder

    return Path(args.out) if args.out else output_folder(args.results, args.source)


def print_anything() -> None:
    """From here on a character that standard output's encoding lacks, such as the ± of a table, is printed as ?."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def main(run: Callable[[], int]) -> None:
    """Run a script; what the user can mend is one line and exit status 2, not a traceback."""
    from gbn.store.files import StoreError

    print_anything()
    try:
        sys.exit(run())
    except (ValueError, LookupError, StoreError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
