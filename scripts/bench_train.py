"""Training steps of a network with BatchNorm and with generalized batch normalization: images/s, paired.

    python scripts/bench_train.py                                # CPU: cnn, resnet20; GPU: resnet18
    python scripts/bench_train.py --nets cnn --width 0.25 --arms bn gbn_cvar gbn_cvar@reference
    python scripts/bench_train.py --precision bfloat16 --layout channels_last --compile
    python scripts/bench_train.py --render results/benchmarks/train-<device>-<date>.csv

Arms take turns, step by step, in one process. An arm whose first losses are not finite, or a gbn_std whose losses
differ from BatchNorm's, is not timed, and the exit status is 1. Writes train-<device>-<date>.csv with one row per
arm, and a summary (.md) made from it, which includes the text of train-<device>-<date>.notes.md.
"""

import argparse
from pathlib import Path
from typing import Any

from gbn import cli
from gbn.arguments import Number, Whole
from gbn.bench import command, names


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = command.parser(__doc__)
    add = result.add_argument
    add("--nets", nargs="+", choices=list(names.SMALL))
    add("--width", type=Number(most=100), default=1.0, metavar="FACTOR", help="multiplies the channels")
    add("--batch", type=Whole(), nargs="+", default=[128], metavar="N", help="batch size (default 128)")
    what = "bn first; gbn_<pair>, iebn, mixture, each also with @reference"
    add("--arms", nargs="+", default=list(names.DEFAULT_ARMS), metavar="ARM", help=what)
    add("--precision", nargs="+", choices=names.PRECISIONS, help="float32, or autocast")
    add("--layout", choices=names.LAYOUTS)
    add("--compile", action=argparse.BooleanOptionalAction, help="time compiled networks too")
    what = "updates between clock readings (default 1; 5 on a GPU)"
    add("--steps", type=Whole(), metavar="N", help=what)
    return result


def render(path: Path) -> None:
    """Make the summary of a CSV again."""
    from gbn.bench.environment import write

    write(path.with_suffix(".md"), made(path).encode())


def made(path: Path) -> str:
    """The summary of a CSV."""
    from gbn.bench import markdown
    from gbn.bench.environment import read_rows

    rows = read_rows(path, needs=("arm", "images_s", "precision"))
    return markdown.train_summary(rows, path)


def run(arguments: argparse.Namespace) -> int:
    """Measure, write, render."""
    cli.alone(arguments, "--render")
    if arguments.render:
        render(arguments.render)
        return 0
    from gbn.bench import training
    from gbn.bench.environment import file_name

    arms = list(dict.fromkeys([names.BASE, *arguments.arms]))
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
    written = False
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
        written = command.write_timed(
            path, rows, training.COLUMNS, "images_s"
        )  # after each setting, so that a kill loses no finished setting
        for row in rows[-len(arms) :]:
            speed = f"{row.get('images_s', float('nan')):.0f} images/s, ratio {row.get('ratio', float('nan')):.3f}"
            print(
                f"{row['net']} {row['batch']} {row['precision']} {row['mode']} {row['arm']}: {speed}",
                flush=True,
            )
    if written:
        render(path)
        print(path)
    return command.ended(rows, budget)


if __name__ == "__main__":
    cli.main(parser, run)
