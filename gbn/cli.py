"""The command line that all scripts share: one parser, one way of saying what is wrong, one way of ending.

A script has two functions, ``parser() -> Parser`` and ``run(args) -> int``, and ends with ``cli.main(parser, run)``.
Nothing heavy is imported here, and a script imports what it works with inside `run`: a wrong line is answered at
once, and Ctrl-C ends a script in its first second as in its last.
"""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from gbn.arguments import Number, existing_folder, name, output_file, output_folder, usable_folder
from gbn.suggest import did_you_mean

if TYPE_CHECKING:
    from gbn.analysis.compare import Options
    from gbn.analysis.load import Runs
    from gbn.analysis.plan import GridLike
    from gbn.config.grid import Grid

#: Exit statuses: what was asked cannot be done, Ctrl-C, and a reader of the output that went away (128 + SIGPIPE).
WRONG, STOPPED, UNREAD = 2, 130, 141
SOURCES = ("store", "archive", "both")


def _quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while a script's own imports are made, before :func:`main` can catch it, shows no traceback either."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _quiet


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line.

    Args:
        description: the script's docstring.
        examples: command lines for ``--help``.
        statuses: what the script's own exit statuses (1, 3) mean.
    """

    def __init__(
        self, description: str | None, examples: Sequence[str] = (), statuses: Mapping[int, str] | None = None
    ) -> None:
        known = {
            0: "done",
            **(statuses or {}),
            WRONG: "cannot be done as asked: one line on standard error says why",
        }
        known[STOPPED] = "stopped by Ctrl-C"
        lines = ["examples:", *(f"  {line}" for line in examples), ""] if examples else []
        lines += ["exit status:", *(f"  {status:<4} {meaning}" for status, meaning in sorted(known.items()))]
        super().__init__(
            description=description,
            epilog="\n".join(lines),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """The arguments, with ``given``: the options that stand on the line.

        Raises:
            ValueError: a wrong line.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        if empty := [word for word in words if word.endswith("=--")]:  # argparse takes it for no value at all
            self.error(f"argument {empty[0][:-3]}: expected a value")
        args = self.parse_intermixed_args(words)
        named = (self._option_string_actions.get(word.partition("=")[0]) for word in words)
        args.given = frozenset(action.option_strings[-1] for action in named if action is not None)
        return args

    def error(self, message: str) -> NoReturn:
        """Refuse the line.

        Raises:
            ValueError: always.
        """
        if message.startswith("unrecognized arguments: --"):
            word = message.split()[2].partition("=")[0]
            message += did_you_mean(word, self._option_string_actions)
        raise ValueError(f"{message} (see --help)")


def main(parser: Callable[[], Parser], run: Callable[[argparse.Namespace], int]) -> NoReturn:
    """Run a script and exit with its status.

    What the user can mend is one line on standard error and status 2, Ctrl-C is status 130, a reader of the output
    that went away (``| head``) ends the script quietly. Other exceptions are faults of ours and keep their traceback.
    """
    print_anything()
    try:
        status = _status(parser, run)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, not at the interpreter's end, where an error is a traceback
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in its buffer
        status = UNREAD
    except Exception as error:
        stopped = _stopped(error)
        if not stopped and not _mendable(error):
            raise
        print("stopped" if stopped else f"error: {one_line(error)}", file=sys.stderr)
        status = STOPPED if stopped else WRONG
    sys.exit(status)


def _status(parser: Callable[[], Parser], run: Callable[[argparse.Namespace], int]) -> int:
    try:
        return run(parser().parse())
    except SystemExit as ended:  # --help
        return int(ended.code or 0)


def _stopped(error: BaseException | None) -> bool:
    """Whether an exception was Ctrl-C before a library made something else of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _mendable(error: Exception) -> bool:
    """Whether an exception says what the user can change; a missing key or index is a fault of the program."""
    if isinstance(error, KeyError | IndexError):
        return False
    store = sys.modules.get("gbn.store.files")  # loaded where one of its errors was raised
    kinds = (ValueError, LookupError, OSError, *([store.StoreError] if store else []))
    return isinstance(error, kinds)


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; its class where it says nothing."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(filter(None, map(str.strip, text.splitlines()))) or type(error).__name__


def print_anything() -> None:
    """From here on a character that standard output's encoding lacks, such as the ± of a table, is printed as ?."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def alone(args: argparse.Namespace, option: str, *beside: str) -> None:
    """Refuse the options that say nothing beside `option`: all but those `beside`.

    Raises:
        ValueError: both are given.
    """
    others = sorted(args.given - {option, *beside})
    if option in args.given and others:
        raise ValueError(f"{option} goes without {', '.join(others)}: leave out one or the other")


def belongs(args: argparse.Namespace, option: str, *owners: str) -> None:
    """Refuse an option without the one it belongs to.

    Raises:
        ValueError: `option` is given, and none of its owners.
    """
    if option in args.given and not args.given & {*owners}:
        raise ValueError(f"{option} belongs to {' or '.join(owners)}: give both or neither")


def one_of(what: str, given: str, allowed: Iterable[str]) -> str:
    """A name that has to be among others.

    Returns:
        `given`.

    Raises:
        ConfigError: it is not.
    """
    from gbn.config.errors import unknown

    names = list(dict.fromkeys(allowed))
    if given not in names:
        raise unknown(what, given, names)
    return given


def setting_of(of: "Grid", given: str | None) -> str:
    """One of a grid's settings.

    Returns:
        `given`, or the only one.

    Raises:
        ConfigError: an unknown setting, or several and none given.
    """
    if given is not None:
        return one_of("setting", given, of.settings)
    if len(of.settings) > 1:
        raise ValueError(f"{of.name} has several settings: choose one with --setting {'|'.join(of.settings)}")
    return of.settings[0]


def add_experiment(result: Parser, nargs: str | None = None) -> None:
    """The experiment and its scale."""
    result.add_argument("experiment", nargs=nargs, help="experiments/<name>: the runs of its grid")
    result.add_argument("--scale", type=name, help="one of the experiment's scales (default: its own)")


def add_runs(result: Parser) -> None:
    """An experiment, or any set of runs; see :func:`check_runs`."""
    add_experiment(result, "?")
    what = "any set of runs instead: ids, patterns on ids, run folders"
    result.add_argument("--runs", nargs="+", metavar="GLOB", help=what)


def add_results(result: Parser, source: str | None = "store") -> None:
    """The results folder that is read, and (unless `source`, its default, is None) which part of it."""
    add = result.add_argument
    where = "where runs/ and archive/ are (default: results)"
    add("--results", type=existing_folder, default="results", metavar="DIR", help=where)
    if source is not None:
        add("--source", choices=SOURCES, default=source, help=f"default: {source}")


def add_measures(result: Parser, out: str = "DIR") -> None:
    """The options that say what is compared and where it goes: into a folder, or (`out` "FILE") a file."""
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


def check_runs(args: argparse.Namespace) -> None:
    """Exactly one of experiment and --runs, and only what belongs to it.

    Raises:
        ValueError: neither or both, or an option of the other.
    """
    if bool(args.experiment) == bool(args.runs):
        raise ValueError("give an experiment (experiments/<name>) or --runs GLOB..., one of them")
    if args.runs and "--scale" in args.given:
        raise ValueError("--scale belongs to an experiment, not to --runs")
    if args.experiment and "--reference" in args.given:
        raise ValueError("--reference belongs to --runs: an experiment's sweep.yaml names its own")
    if args.experiment and "--name" in args.given:
        raise ValueError("--name belongs to --runs: an experiment's files have its name")


def grid(args: argparse.Namespace) -> "Grid | None":
    """The experiment's grid; None for --runs.

    Raises:
        ConfigError: no such experiment or scale, or a sweep.yaml that is refused.
    """
    if not args.experiment:
        return None
    from gbn.config.grid import load_grid

    return load_grid(args.experiment, args.scale)


def load(args: argparse.Namespace, of: "GridLike | None") -> "Runs":
    """The chosen runs.

    Raises:
        NothingFound, StoreError, ValueError: as :func:`gbn.analysis.load.load_any`.
        LookupError: no run has the measure.
    """
    from gbn.analysis.load import load_any, load_grid_runs

    if of is None:
        runs = load_any(
            args.runs, args.results, args.source, args.reference, args.targets, args.name,
            measure=args.measure,
        )  # fmt: skip
    else:
        runs = load_grid_runs(of, args.results, args.source, args.targets, measure=args.measure)
    return measured(runs, args.measure)


def measured(runs: "Runs", measure: str | None) -> "Runs":
    """Runs that have a measure; each has its experiment's own, None.

    Returns:
        `runs`.

    Raises:
        LookupError: none of them has it.
        ValueError: there is no such measure.
    """
    from gbn.store import measures

    key = None if measure is None else measures.measure(measure).key
    # A curve without exact statistics stands in for one with them, as a note says.
    if key is not None and not {key, key.removesuffix("_exact")} & {*runs.points.keys}:
        raise LookupError(f"--measure {measure}: not one of these runs has it in its curve")
    return runs


def options(args: argparse.Namespace) -> "Options":
    """How targets are measured."""
    from gbn.analysis.compare import Options

    return Options(args.measure, "first" if args.first_hit else "interpolated")


def out_dir(args: argparse.Namespace, *parts: str) -> Path:
    """--out, or where the results of --source belong, once it is known that its `parts` can be written.

    Raises:
        ValueError: a file is in the way, or the folder cannot be written.
    """
    from gbn.analysis.results import output_folder as folder_of

    folder = Path(args.out) if args.out else folder_of(args.results, args.source)
    for part in parts:
        usable_folder(folder / part)
    return folder


def seeds_of(of: "Grid", chosen: Collection[int] | None) -> list[int]:
    """The grid's seeds, or those chosen of them.

    Raises:
        ValueError: a seed that the grid does not have.
    """
    if not chosen:
        return list(of.seeds)
    if others := sorted({*chosen} - {*of.seeds}):
        listed = ", ".join(map(str, others[:5])) + (", ..." if len(others) > 5 else "")
        raise ValueError(f"--seeds {listed}: the grid has seeds {_ranges(of.seeds)}")
    return [seed for seed in of.seeds if seed in chosen]


def _ranges(seeds: Sequence[int]) -> str:
    """``0-7`` or ``0, 2, 5``."""
    if list(seeds) == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 2:
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))


def check_overrides(overrides: Iterable[str]) -> list[str]:
    """Overrides for every run of a grid.

    Returns:
        `overrides`.

    Raises:
        ValueError: one that the script or the grid decides: where results go, the seeds, the experiment's name.
    """
    instead: dict[str, Any] = {
        "results_dir": "give --results DIR",
        "seed": "give --seeds, the grid has its own",
        "experiment": "it is the grid's folder",
    }
    for text in overrides:
        key = re.match(r"[+~]*([\w./]*)", text)
        if key is not None and key[1] in instead:
            raise ValueError(f"the override {text!r} is not for every run of a grid: {instead[key[1]]}")
    return list(overrides)
