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
from pathlib import Path
from typing import Any

from gbn import cli
from gbn.arguments import Number, Whole
from gbn.bench import command, names

GOAL, AT_BATCH = 1.1, 128


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


def render(path: Path) -> None:
    """Make the summary of a CSV again."""
    from gbn.bench.environment import write

    write(path.with_suffix(".md"), made(path).encode())


def made(path: Path) -> str:
    """The summary of a CSV."""
    from gbn.bench import markdown
    from gbn.bench.environment import read_rows

    rows = read_rows(path, needs=("arm", "step_ms", "width"), lacks=("precision",))
    lines = ["# A training step with and without preconditioning", ""]
    lines += [*markdown.made_from(path, "bench_precondition"), ""]
    lines += ["Median with 20/80 percentiles; the ratio is of a round's steps, to the plain step.", ""]
    lines += ["| network | width | batch | arm | step (ms) | ratio | goal |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        head = f"| {row['net']} | {row['width']} | {row['batch']} | {row['arm']} |"
        if row["status"] != "ok" or not row["ratio"]:
            lines.append(f"{head} {row['status']} | | |")
            continue
        judged = row["arm"] == "bnp" and int(row["batch"]) == AT_BATCH
        met = "met" if float(row["ratio"]) <= GOAL else f"**missed: {GOAL}**"
        lines.append(
            f"{head} {float(row['step_ms']):.3g} ({float(row['p20']):.3g} to {float(row['p80']):.3g}) | "
            f"{float(row['ratio']):.3f} ({float(row['ratio_p20']):.3f} to {float(row['ratio_p80']):.3f}) | "
            f"{met if judged else ''} |"
        )
    return "\n".join([*lines, "", *markdown.environment_lines(rows[0]), ""])


def run(args: argparse.Namespace) -> int:
    """Measure, write, render."""
    cli.alone(args, "--render")
    if args.render:
        render(args.render)
        return 0
    from gbn.bench.environment import file_name
    from gbn.bench.precondition import COLUMNS, Setting, rows_of

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
