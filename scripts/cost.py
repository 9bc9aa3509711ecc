"""What an update costs: the training steps of an experiment's arms, timed in turns on this machine.

    python scripts/cost.py experiments/gbn_cifar10 --scale small
    python scripts/cost.py experiments/quick --arms bn gbn_cvar_75 --blocks 12 --threads 1
    python scripts/cost.py experiments/quick --render results/benchmarks/cost-quick-<device>-<date>.csv

Every arm is built by the trainer, with its data, optimizer and schedule, and takes whole updates. Arms take turns,
update by update; each block builds them anew, so that no arm keeps a lucky place in memory, and is done again where
other processes used the machine. Writes cost-<experiment>[-scale]-<device>-<date>.csv, a row a block and arm, from
which the experiment's table makes "time = updates x cost" (gbn/analysis/effects/cost.py) for runs of the same
device kind, kernels and libraries.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from bench import command, steps
from bench.environment import RESULTS, environment, file_name, write_rows

from gbn.analysis import cli, printed
from gbn.analysis.compare import Comparison, Options
from gbn.analysis.effects import cost
from gbn.analysis.effects.sections import times
from gbn.analysis.load import load_grid_runs
from gbn.analysis.tables import grid_lines
from gbn.config.grid import Grid, load_grid
from gbn.engine.run import choose_device, set_threads


def options() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("experiment", help="folder with a sweep.yaml, for example experiments/quick")
    add("--scale", help="a preset of the experiment (default: its own)")
    add("--settings", nargs="+", help="only these settings")
    add("--arms", nargs="+", help="only these arms; the reference is always timed")
    add("--blocks", type=int, default=8, help="blocks of rounds; the interval is over blocks (default 8)")
    add("--block-seconds", type=float, default=4.0, help="length of a block (default 4)")
    add("--updates", type=int, help="updates between two readings of the clock (default 1; 5 on a GPU)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="the GPU where there is one")
    add("--threads", type=int, help="on the CPU (default: what a run that has the machine to itself takes)")
    add("--budget", type=float, metavar="SECONDS", help="begin no block after this time")
    add("--out", type=Path, default=RESULTS, help="folder of the file (results/benchmarks)")
    add("--render", type=Path, metavar="CSV", help="print the ratios of this file, no more")
    add(
        "--times",
        choices=("store", "archive", "both"),
        help="with the runs found there: print time = updates x cost",
    )
    add(
        "--elsewhere",
        action="store_true",
        help="with --times: also where the runs ran on another machine, a forecast",
    )
    add(
        "--results",
        default="results",
        metavar="DIR",
        help="with --times: where the runs are (default: results)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Time, write, print; exit status 1 where a row does not count or the budget ended first."""
    arguments = options().parse_args(argv)
    if arguments.blocks < 2:
        raise ValueError(f"--blocks {arguments.blocks}: an interval over blocks needs at least 2")
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
    for setting, arms in cells.items():
        timing = steps.SettingTiming(grid, setting, arms, device, arguments.updates or (5 if gpu else 1))
        for number in range(arguments.blocks):
            if not budget.allows(f"{setting or name} block {number + 1}"):
                continue
            block = timing.block(number, arguments.block_seconds)
            rows += [{"experiment": name, **row, **here} for row in block]
            write_rows(path, rows, steps.COLUMNS)  # after each block: what is measured outlives a kill
            spoilt = Counter(row["status"] for row in block if row["status"] != cost.OK)
            said = "".join(f"; {count} arms {status}" for status, count in spoilt.items())
            print(f"{setting or name}: block {number + 1} of {arguments.blocks}{said}", flush=True)
    if rows:
        report(cost.read(path), grid, arguments)
        print(path)
    if budget.left_out:
        print(f"out of time, left out: {'; '.join(budget.left_out)}", file=sys.stderr)
    return int(bool(budget.left_out) or not rows or any(row["status"] != cost.OK for row in rows))


def report(costs: cost.Costs, grid: Grid, arguments: argparse.Namespace) -> None:
    """Print the ratios of a file and, where asked for, the times that they make with the runs of the grid.

    Raises:
        ValueError: --times with runs of another machine, and no --elsewhere.
        NothingFound: --times without a finished run.
    """
    print(ratios(costs, grid.reference))
    if arguments.times is None:
        return
    comparison = Comparison(load_grid_runs(grid, arguments.results, arguments.times), Options())
    for setting in grid.settings:
        for section in times(comparison, setting, costs, arguments.elsewhere):
            print(
                "", *filter(None, [setting, section.heading]), *grid_lines(section), *section.notes, sep="\n"
            )


def ratios(costs: cost.Costs, reference: str) -> str:
    """The cost of an update by arm, as reference / arm, in lines of text."""
    lines = [f"Cost of an update, {reference} / arm (greater than 1: the arm is cheaper), {costs.machine}:"]
    for setting, arm in costs.seconds:
        milliseconds = 1e3 * cost.seconds_per_update(costs, setting, arm)
        found = cost.ratio(costs, setting, arm, reference)
        ratio = "1 (reference)" if arm == reference else printed.ratio(found)
        lines.append(f"  {f'{setting} {arm}'.strip():<40} {milliseconds:9.3f} ms   {ratio}")
    lines += [f"  not counted: {count} rows, {status}" for status, count in costs.dropped.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.main(main)
