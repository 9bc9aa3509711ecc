"""``gbn watch``: a live view of a running sweep."""

import argparse
import shlex
import shutil
import sys

from gbn import cli
from gbn.cli import options
from gbn.cli.arguments import Number
from gbn.config.seeds import seed_list


def watch(result: cli.Parser) -> cli.Run:
    """Watch a running sweep: runs done, running and failed, each arm's quality, the time left.

    Ends with the sweep.

    Examples:
        gbn watch experiments/quick
        gbn watch experiments/gbn_cifar10 --scale small --every 30 --stay
        gbn watch --runs 'digits-cnn-*' --once
    """
    result.statuses |= {1: "the sweep ended with failed runs"}
    options.add_runs(result)
    add = result.add_argument
    add("overrides", nargs="*", help="the overrides that the sweep was given, if any")
    add("--seeds", type=seed_list, help="only these seeds of the grid: 3 or 4-7 or 0,2,4-7")
    options.add_results(result, source=None)
    what = "the key of the curve to show (default: the experiment's, val_accuracy)"
    add("--measure", metavar="KEY", help=what)
    what = "seconds between snapshots (default: 5)"
    add("--every", type=Number(0.1, 86400), default=5.0, metavar="SECONDS", help=what)
    ends = result.add_mutually_exclusive_group().add_argument
    ends(
        "--once",
        action="store_true",
        help="print one snapshot and end (always, if the output is not a terminal)",
    )
    ends("--stay", action="store_true", help="keep watching after the sweep is over")
    return _watch


def _watch(args: argparse.Namespace) -> int:
    options.check_runs(args)
    for option, given in (("--seeds", args.seeds), ("overrides", args.overrides)):
        if args.runs and given:
            raise ValueError(f"{option} belong to an experiment, not to --runs")

    from dataclasses import replace

    from rich.console import Console

    from gbn.analysis.runs.plan import plan_of_grid
    from gbn.store.records import RunStore
    from gbn.sweep.watch.snapshot import Watch
    from gbn.sweep.watch.view import follow, render

    plan, command = None, ""
    if args.experiment:
        from gbn.config.grid import load_grid

        grid = load_grid(args.experiment, args.scale, options.check_overrides(args.overrides))
        seeds, plan = options.seeds_of(grid, args.seeds), plan_of_grid(grid)
        plan = replace(plan, entries=tuple(entry for entry in plan.entries if entry.seed in seeds))
        command = shlex.join(
            [
                *("gbn", "reproduce", args.experiment),
                *(("--scale", args.scale) if args.scale else ()),
                *(("--seeds", ",".join(map(str, sorted(args.seeds)))) if args.seeds else ()),
                *(("--results", args.results) if args.results != "results" else ()),
                *args.overrides,
            ]
        )
    if args.runs and not args.stay:
        # raises if nothing matches; with --stay, runs may still appear
        RunStore(args.results).match(args.runs)
    watched = Watch(args.results, plan, args.runs or (), args.measure, command)
    terminal = sys.stdout.isatty()
    # rich assumes 80 columns for a pipe and would break long lines of a log.
    console = Console(width=None if terminal else shutil.get_terminal_size((120, 40)).columns)
    if args.once or not terminal:
        snapshot = watched.look()
        console.print(render(snapshot))
    else:
        try:
            snapshot = follow(watched.look, console, args.every, stay=args.stay)
        except KeyboardInterrupt:  # how a user ends the live view
            return 0
    return int(snapshot.over and snapshot.counts.get("failed", 0) > 0)
