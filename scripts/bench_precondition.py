"""Training steps with and without batch normalization preconditioning: milliseconds, paired.

    python scripts/bench_precondition.py                          # mlp and cnn at batch 128, 6, 2 and 1
    python scripts/bench_precondition.py --nets mlp --batch 128 --width 0.25
    python scripts/bench_precondition.py --render results/benchmarks/precondition-<device>-<date>.csv

Arms take turns, step by step, in one process: `none` is the plain step of the network without normalization, `bnp`
is preconditioned, and `bnp_patch` has a mean and variance for each tap of a kernel. An arm whose losses are not
finite, or whose first loss differs from the plain step's, is not timed, and the exit status is 1. Goal at batch 128:
at most 1.1 times the plain step. Writes precondition-<device>-<date>.csv, one row per arm, and a summary (.md).
"""

import argparse
from typing import Any

from gbn import cli
from gbn.arguments import Number, Whole
from gbn.bench import command, names


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = command.parser(__doc__)
    add = result.add_argument
    add("--nets", nargs="+", choices=list(names.PRECONDITIONED_IMAGES), default=["mlp", "cnn"])
    add("--width", type=Number(most=100), default=1.0, metavar="FACTOR", help="multiplies the channels")
    what = "batch sizes (default: 128, 6, 2 and 1)"
    add("--batch", type=Whole(), nargs="+", default=[128, 6, 2, 1], metavar="N", help=what)
    arms = list(names.PRECONDITIONED_ARMS)
    add("--arms", nargs="+", choices=arms, default=arms)
    return result


def run(args: argparse.Namespace) -> int:
    """Measure, write, render."""
    cli.alone(args, "--render")
    from gbn.bench.environment import file_name
    from gbn.bench.precondition import COLUMNS, Setting, render, rows_of

    if args.render:
        render(args.render)
        return 0
    arms = list(dict.fromkeys(["none", *args.arms]))
    device, known = command.set_up(args)
    budget = command.Budget(args.budget)
    rows: list[dict[str, Any]] = []
    written = False
    path = args.out / file_name("precondition", known)
    for setting in [Setting(net, args.width, batch) for net in args.nets for batch in args.batch]:
        if not budget.allows(setting):
            continue
        rows += rows_of(setting, arms, device, known, args)
        written = command.write_timed(
            path, rows, COLUMNS, "step_ms"
        )  # now, so that a kill loses nothing measured
        for row in rows[-len(arms) :]:
            shown = f"{row.get('step_ms', float('nan')):.3g} ms, ratio {row.get('ratio', float('nan')):.3f}"
            print(f"{row['net']} {row['batch']} {row['arm']}: {shown}", flush=True)
    if written:
        render(path)
        print(path)
    return command.ended(rows, budget)


if __name__ == "__main__":
    cli.main(parser, run)
