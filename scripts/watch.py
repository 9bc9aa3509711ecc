"""A sweep while it runs: runs done, running and failed, where each arm stands, the time left. Ends with the sweep."""

import argparse
import shlex
import shutil
import sys

from gbn.analysis import cli
from gbn.config.seeds import seed_list

EXAMPLES = (
    "python scripts/watch.py experiments/quick",
    "python scripts/watch.py experiments/gbn_cifar10 --scale small --every 30 --stay",
    "python scripts/watch.py --runs 'digits-cnn-*' --once",
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__,
        epilog="examples:\n" + "\n".join(f"  {line}" for line in EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("experiment", nargs="?", help="experiments/<name>: the runs of its grid")
    add("overrides", nargs="*", help="the overrides that reproduce.py was given for every run, if any")
    add(
        "--runs", nargs="+", metavar="GLOB", help="any set of runs instead: ids, patterns on ids, run folders"
    )
    add("--scale", help="one of the experiment's scales (default: its own)")
    add("--seeds", type=seed_list, help="only these of the grid's seeds: 3 or 4-7 or 0,2,4-7")
    add("--results", default="results", metavar="DIR", help="where runs/ is (default: results)")
    add(
        "--measure",
        metavar="KEY",
        help="the key of the curve to show (default: the experiment's, val_accuracy)",
    )
    add(
        "--every",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="from one look to the next (default: 5)",
    )
    add("--once", action="store_true", help="print one snapshot and end, as where the output is no terminal")
    add("--stay", action="store_true", help="go on watching when nothing is left to come")
    return result


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.1 to 86400")
    return value


def run() -> int:
    """0 when stopped or when every run is done, 1 when the sweep ended with failed runs."""
    result = parser()
    args = result.parse_intermixed_args()
    cli.check(result, args)
    try:
        return watch(args)
    except KeyboardInterrupt:
        return 0


def watch(args: argparse.Namespace) -> int:
    """One snapshot, or a live view."""
    from dataclasses import replace

    from rich.console import Console

    from gbn.analysis.plan import plan_of_grid
    from gbn.analysis.watching.view import follow, render
    from gbn.analysis.watching.watch import Watch

    plan, command = None, ""
    if args.experiment:
        from gbn.config.grid import load_grid

        plan = plan_of_grid(load_grid(args.experiment, args.scale, args.overrides))
        if args.seeds:
            plan = replace(plan, entries=tuple(entry for entry in plan.entries if entry.seed in args.seeds))
        command = shlex.join(
            [
                *("python", "scripts/reproduce.py", args.experiment),
                *(("--scale", args.scale) if args.scale else ()),
                *(("--seeds", ",".join(map(str, sorted(args.seeds)))) if args.seeds else ()),
                *(("--results", args.results) if args.results != "results" else ()),
                *args.overrides,
            ]
        )
    watched = Watch(args.results, plan, args.runs or (), args.measure, command)
    terminal = sys.stdout.isatty()
    # rich takes a pipe for 80 columns and would break long lines of a log.
    console = Console(width=None if terminal else shutil.get_terminal_size((120, 40)).columns)
    if args.once or not terminal:
        snapshot = watched.look()
        console.print(render(snapshot))
    else:
        snapshot = follow(watched.look, console, args.every, stay=args.stay)
    return int(snapshot.over and snapshot.counts.get("failed", 0) > 0)


if __name__ == "__main__":
    cli.main(run)
