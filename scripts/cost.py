"""The cost of an update: training steps of an experiment's arms, timed in turns on this machine.

    python scripts/cost.py experiments/gbn_cifar10 --scale small
    python scripts/cost.py experiments/quick --arms bn gbn_cvar_75 --blocks 12 --threads 1
    python scripts/cost.py experiments/quick --render results/benchmarks/cost-quick-<device>-<date>.csv

Every arm is built by the trainer, with its data, optimizer and schedule, and makes complete updates. Arms take turns,
update by update; each block rebuilds them, so that no arm keeps a lucky place in memory, and is repeated if other
processes used the machine. Writes cost-<experiment>[-scale]-<device>-<date>.csv, one row per block and arm, from
which the experiment's table computes "time = updates x cost" (gbn/analysis/comparison/cost.py) for runs of the same
device kind, kernels and libraries.
"""

import argparse
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from gbn import cli
from gbn.analysis import options
from gbn.arguments import Whole, existing_folder
from gbn.bench import command

if TYPE_CHECKING:
    from gbn.analysis.comparison.cost import Costs
    from gbn.config.grid import Grid


def parser() -> cli.Parser:
    """Return the command-line parser."""
    statuses = {1: "a row does not count (busy, diverged, failed)", 3: "the budget ended first"}
    result = cli.Parser(__doc__, statuses=statuses)
    options.add_experiment(result)
    add = result.add_argument
    add("--settings", nargs="+", help="only these settings")
    add("--arms", nargs="+", metavar="ARM", help="only these arms; the reference is always timed")
    command.add_blocks(result, 8, 4.0, least=2)  # the interval is over blocks
    what = "updates between clock readings (default 1; 5 on a GPU)"
    add("--updates", type=Whole(), metavar="N", help=what)
    add(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPU if there is one"
    )
    what = "on the CPU (default: as for a run that has the machine to itself)"
    add("--threads", type=Whole(most=1024), metavar="N", help=what)
    command.add_files(result, "only print the ratios of this file")
    what = "also print time = updates x cost for the runs found there"
    add("--times", choices=options.SOURCES, help=what)
    what = "with --times: allow runs from another machine, as a forecast"
    add("--elsewhere", action="store_true", help=what)
    what = "with --times: results folder of the runs (default: results)"
    add("--results", type=existing_folder, metavar="DIR", help=what)
    return result


def run(arguments: argparse.Namespace) -> int:
    """Time, write, print; return exit status 1 if a row does not count, 3 if the budget ended first."""
    cli.alone(arguments, "--render", "--scale", "--times", "--elsewhere", "--results")
    for option in ("--elsewhere", "--results"):
        cli.belongs(arguments, option, "--times")
    if arguments.times:
        arguments.results = existing_folder(arguments.results or "results")
    from gbn.analysis.comparison import cost
    from gbn.bench import steps
    from gbn.bench.environment import environment, file_name
    from gbn.config.grid import load_grid
    from gbn.engine.run import choose_device, set_threads

    extra = ["tracker.mode=disabled", "trainer.progress=quiet"]
    grid = load_grid(arguments.experiment, arguments.scale, extra)
    if arguments.render:
        report(cost.read(arguments.render), grid, arguments)
        return 0
    cells = steps.chosen(grid, arguments.settings, arguments.arms)
    device = choose_device(arguments.device)
    set_threads(arguments.threads or grid.cells[0].config["trainer"]["threads"], jobs=1)
    gpu = device.type == "cuda"
    here = environment(device, "cuda caching" if gpu else "system")
    name = steps.plan_name(grid)
    path = arguments.out / file_name(f"cost-{name}", here)
    budget = command.Budget(arguments.budget)
    rows: list[dict[str, Any]] = []
    written = False
    for setting, arms in cells.items():
        timing = steps.SettingTiming(grid, setting, arms, device, arguments.updates or (5 if gpu else 1))
        for number in range(arguments.blocks):
            if not budget.allows(f"{setting or name} block {number + 1}"):
                continue
            block = timing.block(number, arguments.block_seconds)
            rows += [{"experiment": name, **row, **here} for row in block]
            # After each block, so that a kill loses no finished block.
            written = command.write_timed(path, rows, steps.COLUMNS, "seconds_per_update")
            spoilt = Counter(row["status"] for row in block if row["status"] != cost.OK)
            said = "".join(f"; {count} arms {status}" for status, count in spoilt.items())
            print(f"{setting or name}: block {number + 1} of {arguments.blocks}{said}", flush=True)
    if written:
        report(cost.read(path), grid, arguments)
        print(path)
    if budget.left_out:
        print(f"out of time, left out: {'; '.join(budget.left_out)}", file=sys.stderr)
    if any(row["status"] != cost.OK for row in rows):
        return 1
    return 3 if budget.left_out else int(not rows)


def report(costs: "Costs", grid: "Grid", arguments: argparse.Namespace) -> None:
    """Print the ratios of a file and, on request, the resulting times for the runs of the grid.

    Raises:
        ValueError: --times with runs from another machine, without --elsewhere.
        NothingFound: --times without a finished run.
    """
    from gbn.analysis.comparison.comparison import Comparison, Options
    from gbn.analysis.runs.load import load_grid_runs
    from gbn.analysis.tables.causes import times
    from gbn.analysis.tables.section import grid_lines

    print(ratios(costs, grid.reference))
    if arguments.times is None:
        return
    comparison = Comparison(load_grid_runs(grid, arguments.results, arguments.times), Options())
    for setting in grid.settings:
        for section in times(comparison, setting, costs, arguments.elsewhere):
            print(
                "", *filter(None, [setting, section.heading]), *grid_lines(section), *section.notes, sep="\n"
            )


def ratios(costs: "Costs", reference: str) -> str:
    """Return the cost of an update per arm, as reference / arm, in lines of text."""
    from gbn.analysis.comparison import cost
    from gbn.analysis.tables import numbers

    lines = [f"Cost of an update, {reference} / arm (greater than 1: the arm is cheaper), {costs.machine}:"]
    for setting, arm in costs.seconds:
        milliseconds = 1e3 * cost.seconds_per_update(costs, setting, arm)
        found = cost.ratio(costs, setting, arm, reference)
        ratio = "1 (reference)" if arm == reference else numbers.ratio(found)
        lines.append(f"  {f'{setting} {arm}'.strip():<40} {milliseconds:9.3f} ms   {ratio}")
    lines += [f"  not counted: {count} rows, {status}" for status, count in costs.dropped.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.main(parser, run)
