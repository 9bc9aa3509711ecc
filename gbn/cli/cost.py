"""``gbn cost``: the cost of an update of each arm of an experiment."""

import argparse
from collections import Counter
from typing import TYPE_CHECKING

from gbn import cli
from gbn.cli import bench, options
from gbn.cli.arguments import Whole, existing_folder

if TYPE_CHECKING:
    from gbn.analysis.comparison.cost import Costs
    from gbn.config.grid import Grid


def cost(result: cli.Parser) -> cli.Run:
    """Time the training steps of an experiment's arms in turns on this machine.

    Every arm is built by the trainer, with its data, optimizer and schedule, and makes complete updates. Arms take
    turns, update by update; each block rebuilds them, so that no arm keeps a lucky place in memory, and is repeated
    if other processes used the machine. Writes cost-<experiment>[-scale]-<device>-<date>.csv, one row per block and
    arm, from which the experiment's table computes "time = updates x cost" (gbn/analysis/comparison/cost.py) for
    runs of the same device kind, kernels and libraries.

    Examples:
        gbn cost experiments/gbn_cifar10 --scale small
        gbn cost experiments/quick --arms bn gbn_cvar_75 --blocks 12 --threads 1
        gbn cost experiments/quick --render results/benchmarks/cost-quick-<device>-<date>.csv
    """
    result.statuses |= {1: "a row does not count (busy, diverged, failed)", 3: "the budget ended first"}
    options.add_experiment(result)
    add = result.add_argument
    add("--settings", nargs="+", help="only these settings")
    add("--arms", nargs="+", metavar="ARM", help="only these arms; the reference is always timed")
    bench.add_blocks(result, 8, 4.0, least=2)  # the interval is over blocks
    add("--updates", type=Whole(), metavar="N", help="updates between clock readings (default 1; 5 on a GPU)")
    what = "auto takes the GPU if there is one"
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help=what)
    what = "on the CPU (default: as for a run that has the machine to itself)"
    add("--threads", type=Whole(most=1024), metavar="N", help=what)
    bench.add_files(result, "only print the ratios of this file")
    add("--times", choices=options.SOURCES, help="also print time = updates x cost for the runs found there")
    what = "with --times: allow runs from another machine, as a forecast"
    add("--elsewhere", action="store_true", help=what)
    what = "with --times: results folder of the runs (default: results)"
    add("--results", type=existing_folder, metavar="DIR", help=what)
    return _cost


def _cost(arguments: argparse.Namespace) -> int:
    cli.alone(arguments, "--render", "--scale", "--times", "--elsewhere", "--results")
    for option in ("--elsewhere", "--results"):
        cli.belongs(arguments, option, "--times")
    if arguments.times:
        arguments.results = existing_folder(arguments.results or "results")
    from gbn.analysis.comparison import cost
    from gbn.bench import steps
    from gbn.bench.environment import environment
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
    timings = bench.Timings(f"cost-{name}", here, arguments, steps.COLUMNS, "seconds_per_update")
    for setting, arms in cells.items():
        timing = steps.SettingTiming(grid, setting, arms, device, arguments.updates or (5 if gpu else 1))
        for number in range(arguments.blocks):
            if not timings.allows(f"{setting or name} block {number + 1}"):
                continue
            block = timing.block(number, arguments.block_seconds)
            timings.add({"experiment": name, **row, **here} for row in block)
            spoilt = Counter(row["status"] for row in block if row["status"] != cost.OK)
            said = "".join(f"; {count} arms {status}" for status, count in spoilt.items())
            print(f"{setting or name}: block {number + 1} of {arguments.blocks}{said}", flush=True)
    if timings.timed:
        report(cost.read(timings.path), grid, arguments)
        print(timings.path)
    return timings.status(any(row["status"] != cost.OK for row in timings.rows))


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
