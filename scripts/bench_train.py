"""Training steps of a network with BatchNorm and with generalized batch normalization: images/s, paired.

    python scripts/bench_train.py                                # CPU: cnn, resnet20; GPU: resnet18
    python scripts/bench_train.py --nets cnn --width 0.25 --arms bn gbn_cvar gbn_cvar@reference
    python scripts/bench_train.py --precision bfloat16 --layout channels_last --compile
    python scripts/bench_train.py --render results/benchmarks/train-<device>-<date>.csv

Arms take turns, step by step, in one process. An arm whose first losses are not finite, or a gbn_std whose losses
are not BatchNorm's, is not timed, and the exit status is 1. Writes train-<device>-<date>.csv with a row an arm, and
a summary (.md) made from it; what is said in train-<device>-<date>.notes.md goes into the summary.
"""

import argparse
from pathlib import Path
from typing import Any

from bench import command, markdown, training
from bench.cases import LAYOUTS, SMALL
from bench.environment import file_name, read_rows, write_rows


def options() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = command.parser(__doc__)
    parser.add_argument("--nets", nargs="+", choices=SMALL)
    parser.add_argument("--width", type=float, default=1.0, help="multiplies the channels")
    parser.add_argument("--batch", type=int, nargs="+", default=[128])
    parser.add_argument(
        "--arms",
        nargs="+",
        default=list(training.DEFAULT_ARMS),
        help="bn first; gbn_<pair>, iebn, mixture, each also with @reference",
    )
    parser.add_argument("--precision", nargs="+", choices=training.PRECISIONS, help="float32, or autocast")
    parser.add_argument("--layout", choices=LAYOUTS)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="time compiled networks too")
    parser.add_argument("--steps", type=int, help="updates between two readings of the clock")
    return parser


def render(path: Path) -> None:
    """Make the summary of a CSV again."""
    path.with_suffix(".md").write_text(
        markdown.train_summary(read_rows(path), path), encoding="utf-8", newline="\n"
    )


def main(argv: list[str] | None = None) -> int:
    """Measure, write, render; the exit status."""
    arguments = options().parse_args(argv)
    if arguments.render:
        render(arguments.render)
        return 0
    arms = list(dict.fromkeys([training.BASE, *arguments.arms]))
    for arm in arms:
        training.parse_arm(arm)
    device, environment = command.set_up(arguments)
    gpu = device.type == "cuda"
    compiled = gpu if arguments.compile is None else arguments.compile
    settings = [
        training.Setting(net, arguments.width, batch, precision, layout, mode)
        for mode in ([False, True] if compiled else [False])
        for net in arguments.nets or (["resnet18"] if gpu else ["cnn", "resnet20"])
        for batch in arguments.batch
        for precision in arguments.precision or (["bfloat16", "float32"] if gpu else ["float32"])
        for layout in [arguments.layout or ("channels_last" if gpu else "contiguous")]
    ]
    budget = command.Budget(arguments.budget)
    path = arguments.out / file_name("train", environment)
    rows: list[dict[str, Any]] = []
    for setting in settings:
        if not budget.allows(setting):
            continue
        rows += training.rows_of(
            setting,
            arms,
            device,
            environment,
            steps=arguments.steps or (5 if gpu else 1),
            blocks=arguments.blocks,
            block_seconds=arguments.block_seconds,
        )
        write_rows(path, rows, training.COLUMNS)  # after each setting: what is measured outlives a kill
        for row in rows[-len(arms) :]:
            speed = f"{row.get('images_s', float('nan')):.0f} images/s, ratio {row.get('ratio', float('nan')):.3f}"
            print(
                f"{row['net']} {row['batch']} {row['precision']} {row['mode']} {row['arm']}: {speed}",
                flush=True,
            )
    if rows:
        render(path)
        print(path)
    return command.ended(rows, budget)


if __name__ == "__main__":
    command.run(main)
