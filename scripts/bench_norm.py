"""Forward and backward of one norm layer with its ReLU, against nn.BatchNorm2d and against memory bandwidth.

    python scripts/bench_norm.py                                 # default shapes: std, mad, cvar, iebn, mixture
    python scripts/bench_norm.py --pairs all --networks resnet20
    python scripts/bench_norm.py --pairs cvar 'cvar[exact]' --shapes 128x64x32x32 --kernels auto reference
    python scripts/bench_norm.py --cold-start                    # what compiling costs a fresh process, alone
    python scripts/bench_norm.py --render results/benchmarks/norm-<device>-<date>.csv

A case whose result or gradients are not those of the float64 reference is not timed, and the exit status is 1.
Writes norm-<device>-<date>.csv with a row a case and provider, a summary (.md) and a chart (.png) made from it,
and coldstart-<device>-<date>.csv. What is said in norm-<device>-<date>.notes.md goes into the summary.
"""

import argparse
from pathlib import Path
from typing import Any

from bench import cases, chart, coldstart, command, markdown, measure, providers, timing
from bench.environment import file_name, read_rows, write_rows


def options() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = command.parser(__doc__)
    parser.add_argument("--networks", nargs="*", choices=cases.NETWORKS, help="whose norm layers")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--shapes", nargs="*", type=cases.parse_shape, default=[], help="NxCxHxW, beside or instead"
    )
    parser.add_argument("--dtypes", nargs="+", choices=cases.DTYPES)
    parser.add_argument("--layouts", nargs="+", choices=cases.LAYOUTS)
    parser.add_argument(
        "--pairs",
        nargs="+",
        default=list(cases.DEFAULT_PAIRS),
        help="names, name[exact], iebn[name], mixture, mixture[5], mixture[per_channel], or all",
    )
    parser.add_argument("--kernels", nargs="+", choices=("auto", "reference"), default=["auto"])
    parser.add_argument(
        "--compiled", action=argparse.BooleanOptionalAction, help="time compiled BatchNorm too"
    )
    parser.add_argument("--cold-start", action="store_true", help="measure the cold start alone")
    parser.add_argument("--cold-repeats", type=int, default=3, help="fresh processes of each kind; 0: none")
    return parser


def render(path: Path) -> None:
    """Make the summary and the chart of a CSV again."""
    rows = read_rows(path)
    cold = path.with_name(path.name.replace("norm-", "coldstart-", 1))
    cold_rows = read_rows(cold) if cold != path and cold.is_file() else []
    path.with_suffix(".md").write_text(
        markdown.norm_summary(rows, path, cold_rows), encoding="utf-8", newline="\n"
    )
    chart.save(rows, path.with_suffix(".png"))


def cold_start(arguments: argparse.Namespace, environment: dict[str, Any]) -> Path:
    """Measure the cold start and write its file."""
    path = arguments.out / file_name("coldstart", environment)
    write_rows(path, coldstart.measure(environment, arguments.cold_repeats), coldstart.COLUMNS)
    return path


def main(argv: list[str] | None = None) -> int:
    """Measure, write, render; the exit status."""
    arguments = options().parse_args(argv)
    if arguments.render:
        render(arguments.render)
        return 0
    names = cases.pair_names(arguments.pairs)
    device, environment = command.set_up(arguments)
    if arguments.cold_start:
        print(cold_start(arguments, environment))
        return 0
    gpu = device.type == "cuda"
    networks = arguments.networks
    if networks is None:
        networks = [] if arguments.shapes else cases.DEFAULT_NETWORKS[device.type]
    todo = cases.cases_of(
        networks,
        arguments.batch,
        arguments.dtypes or (["bfloat16", "float32"] if gpu else ["float32"]),
        arguments.layouts or (["channels_last"] if gpu else ["contiguous"]),
        arguments.shapes,
    )
    compiled = gpu if arguments.compiled is None else arguments.compiled
    arms = providers.providers_of(names, arguments.kernels, compiled)
    budget = command.Budget(arguments.budget)
    machine = measure.Machine(device, timing.bandwidth(device), timing.cache_size(device), environment)
    path = arguments.out / file_name("norm", environment)
    rows: list[dict[str, Any]] = []
    for case in todo:
        if not budget.allows(case):
            continue
        found = measure.rows_of(case, arms, machine, arguments.blocks, arguments.block_seconds)
        rows += found
        write_rows(path, rows, measure.COLUMNS)  # after each case: what is measured outlives a kill
        shown = [f"{row['provider']} {row.get('ratio', float('nan')):.2f}" for row in found[1:]]
        print(f"{case}: {found[0].get('median_ms', float('nan')):.3f} ms, x {', '.join(shown)}", flush=True)
    if arguments.cold_repeats and budget.allows("cold start"):
        print(cold_start(arguments, environment))
    if rows:
        render(path)
        print(path)
    return command.ended(rows, budget)


if __name__ == "__main__":
    command.run(main)
