"""Forward and backward of one norm layer with its ReLU, against nn.BatchNorm2d and against memory bandwidth.

    python scripts/bench_norm.py                                 # default shapes: std, mad, cvar, iebn, mixture
    python scripts/bench_norm.py --pairs all --networks resnet20
    python scripts/bench_norm.py --pairs cvar 'cvar[exact]' --shapes 128x64x32x32 --kernels auto reference
    python scripts/bench_norm.py --cold-start                    # only the cost of compiling in a fresh process
    python scripts/bench_norm.py --render results/benchmarks/norm-<device>-<date>.csv

A case whose result or gradients differ from the float64 reference is not timed, and the exit status is 1.
Writes norm-<device>-<date>.csv with one row per case and provider, a summary (.md) and a chart (.png) made from it,
and coldstart-<device>-<date>.csv. The text of norm-<device>-<date>.notes.md is included in the summary.
"""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gbn import cli
from gbn.arguments import Whole
from gbn.bench import command, names

if TYPE_CHECKING:
    from gbn.plot_style import Picture


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = command.parser(__doc__)
    add = result.add_argument
    add("--networks", nargs="+", choices=names.NETWORKS, help="networks whose norm layers are timed")
    add("--batch", type=Whole(), default=128, metavar="N", help="batch size (default 128)")
    add("--shapes", nargs="+", type=shape, default=[], metavar="NxCxHxW", help="further shapes")
    add("--dtypes", nargs="+", choices=names.DTYPES)
    add("--layouts", nargs="+", choices=names.LAYOUTS)
    what = "names, name[exact], iebn[name], mixture, mixture[5], mixture[per_channel], or all"
    add("--pairs", nargs="+", default=list(names.DEFAULT_PAIRS), metavar="PAIR", help=what)
    add("--kernels", nargs="+", choices=("auto", "reference"), default=["auto"])
    add("--compiled", action=argparse.BooleanOptionalAction, help="time compiled BatchNorm too")
    add("--cold-start", action="store_true", help="measure only the cold start")
    what = "fresh processes of each kind; 0 for none (default 3)"
    add("--cold-repeats", type=Whole(0, 1000), default=3, metavar="N", help=what)
    return result


def shape(text: str) -> tuple[int, int, int, int]:
    """Parse ``NxCxHxW``, for example 128x64x32x32, as four integers."""
    parts = text.lower().split("x")
    if len(parts) != 4 or not all(re.fullmatch("0*[1-9][0-9]{0,8}", part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape: give NxCxHxW, for example 128x64x32x32")
    n, c, h, w = map(int, parts)
    return n, c, h, w


def render(path: Path) -> None:
    """Make the summary and the chart of a CSV again."""
    from gbn.bench.environment import write
    from gbn.plot_style import png

    text, picture = made(path)
    write(path.with_suffix(".md"), text.encode())
    write(path.with_suffix(".png"), png(picture))


def made(path: Path) -> "tuple[str, Picture]":
    """The summary and the chart of a CSV."""
    from gbn.bench import chart, markdown
    from gbn.bench.environment import read_rows

    rows = read_rows(path, needs=("provider", "median_ms"))
    cold = path.with_name(path.name.replace("norm-", "coldstart-", 1))
    cold_rows = read_rows(cold) if cold != path and cold.is_file() else []
    return markdown.norm_summary(rows, path, cold_rows), chart.picture(rows, path.stem)


def cold_start(arguments: argparse.Namespace, environment: dict[str, Any]) -> Path:
    """Measure the cold start and write its file."""
    from gbn.bench import coldstart
    from gbn.bench.environment import file_name, write_rows

    path = arguments.out / file_name("coldstart", environment)
    write_rows(path, coldstart.measure(environment, arguments.cold_repeats), coldstart.COLUMNS)
    return path


def run(arguments: argparse.Namespace) -> int:
    """Measure, write, render."""
    cli.alone(arguments, "--render")
    if arguments.render:
        render(arguments.render)
        return 0
    from gbn.bench import cases, measure, providers, timing
    from gbn.bench.environment import file_name

    pairs = cases.pair_names(arguments.pairs)
    device, environment = command.set_up(arguments)
    if arguments.cold_start:
        print(cold_start(arguments, environment))
        return 0
    gpu = device.type == "cuda"
    networks = arguments.networks
    if networks is None:
        networks = () if arguments.shapes else cases.DEFAULT_NETWORKS[device.type]
    todo = cases.cases_of(
        networks,
        arguments.batch,
        arguments.dtypes or (["bfloat16", "float32"] if gpu else ["float32"]),
        arguments.layouts or (["channels_last"] if gpu else ["contiguous"]),
        arguments.shapes,
    )
    compiled = gpu if arguments.compiled is None else arguments.compiled
    arms = providers.providers_of(pairs, arguments.kernels, compiled)
    budget = command.Budget(arguments.budget)
    machine = measure.Machine(device, timing.bandwidth(device), timing.cache_size(device), environment)
    path = arguments.out / file_name("norm", environment)
    rows: list[dict[str, Any]] = []
    written = False
    for case in todo:
        if not budget.allows(case):
            continue
        found = measure.rows_of(case, arms, machine, arguments.blocks, arguments.block_seconds)
        rows += found
        written = command.write_timed(
            path, rows, measure.COLUMNS, "median_ms"
        )  # after each case, so that a kill loses no finished case
        shown = [f"{row['provider']} {row.get('ratio', float('nan')):.2f}" for row in found[1:]]
        print(f"{case}: {found[0].get('median_ms', float('nan')):.3f} ms, x {', '.join(shown)}", flush=True)
    if arguments.cold_repeats and budget.allows("cold start"):
        print(cold_start(arguments, environment))
    if written:
        render(path)
        print(path)
    return command.ended(rows, budget)


if __name__ == "__main__":
    cli.main(parser, run)
