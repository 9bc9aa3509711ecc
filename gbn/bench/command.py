"""Code shared by the benchmark commands: options, set-up, a budget, one-line errors."""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gbn import cli
from gbn.arguments import Number, Whole, duration, existing_file, output_folder

from .names import RESULTS

if TYPE_CHECKING:
    import torch

STATUSES = {
    1: "an arm or case was not timed, as standard error says",
    3: "the budget ended first; standard error names what was left out",
}


def parser(description: str | None) -> cli.Parser:
    """Return a parser with the common options."""
    made = cli.Parser(description, statuses=STATUSES)
    add = made.add_argument
    add("--device", choices=("cpu", "cuda"), help="default: the GPU if there is one")
    threads = min(2, os.cpu_count() or 1)
    add("--threads", type=Whole(most=1024), default=threads, metavar="N", help="on the CPU (default 2)")
    add_blocks(made, 3, 0.6)
    add(
        "--allocator",
        choices=("keep", "system"),
        default="keep",
        help="keep freed memory, or return it to the system",
    )
    add_files(made, "only regenerate the summary of this file")
    return made


def add_blocks(made: cli.Parser, blocks: int, seconds: float, least: int = 1) -> None:
    """Add the options for the duration of the timing."""
    add = made.add_argument
    what = f"blocks of rounds (default {blocks})"
    add("--blocks", type=Whole(least, 10**6), default=blocks, metavar="N", help=what)
    what = f"seconds per block (default {seconds:g})"
    add("--block-seconds", type=Number(zero=True), default=seconds, metavar="SECONDS", help=what)
    add("--budget", type=duration, metavar="TIME", help="begin nothing after this time: 90s, 20m or 2h")


def add_files(made: cli.Parser, render: str) -> None:
    """Add the options for the output folder and the file to render again."""
    what = "output folder (default: results/benchmarks)"
    made.add_argument("--out", type=output_folder, default=str(RESULTS), metavar="DIR", help=what)
    made.add_argument("--render", type=existing_file, metavar="CSV", help=render)


def set_up(arguments: argparse.Namespace) -> "tuple[torch.device, dict[str, Any]]":
    """Set threads and allocator; return the device and the environment."""
    import torch

    from .environment import environment, pick_device
    from .timing import keep_memory

    device = pick_device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(arguments.threads)
    allocator = "cuda caching" if device.type == "cuda" else "system"
    if device.type == "cpu" and arguments.allocator == "keep":
        allocator = keep_memory()
    return device, environment(device, allocator)


def write_timed(path: Path, rows: Sequence[Mapping[str, Any]], columns: Iterable[str], measured: str) -> bool:
    """Write the rows, unless none of them has a number in the column `measured`.

    Returns:
        Whether there is a file.
    """
    from .environment import write_rows

    timed = any(row.get(measured) is not None for row in rows)
    if timed:
        write_rows(path, rows, columns)
    return timed


class Budget:
    """Decides whether a further case may begin, and remembers those left out."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self.left_out: list[str] = []

    def allows(self, case: object) -> bool:
        """Return whether there is time for a case."""
        if self._end is None or time.monotonic() < self._end:
            return True
        self.left_out.append(str(case))
        return False


def ended(rows: Sequence[dict[str, Any]], budget: Budget) -> int:
    """Return the exit status: 1 if a row was not timed, 3 if a case was left out; print each on standard error."""
    bad = [row for row in rows if row["status"] != "ok"]
    for row in bad:
        what = row.get("provider") or row.get("arm")
        where = row.get("shape") or row.get("net")
        why = row["status"]
        if row.get("gate_error") is not None and why == "gate failed":
            why += f", {row['gate_where']}: error {row['gate_error']:.3g} times its bound"
        print(f"{what} at {where}: {why}", file=sys.stderr)
    if budget.left_out:
        print(f"out of time, left out: {'; '.join(budget.left_out)}", file=sys.stderr)
    return 1 if bad else 3 if budget.left_out else int(not rows)
