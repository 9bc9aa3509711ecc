"""What the two benchmark commands have in common: options, set-up, a budget, one-line errors."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .environment import RESULTS, environment, pick_device
from .timing import keep_memory


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the common options."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--device", choices=("cpu", "cuda"), help="the GPU where there is one")
    made.add_argument(
        "--threads", type=int, default=min(2, os.cpu_count() or 1), help="on the CPU (default 2)"
    )
    made.add_argument("--blocks", type=int, default=3, help="blocks of rounds a case (default 3)")
    made.add_argument("--block-seconds", type=float, default=0.6, help="length of a block (default 0.6)")
    made.add_argument("--budget", type=float, metavar="SECONDS", help="begin no case after this time")
    made.add_argument(
        "--allocator", choices=("keep", "system"), default="keep", help="what glibc does at a free"
    )
    made.add_argument("--out", type=Path, default=RESULTS, help="folder of the files (results/benchmarks)")
    made.add_argument(
        "--render", type=Path, metavar="CSV", help="make the summary of this file again, no more"
    )
    return made


def set_up(arguments: argparse.Namespace) -> tuple[torch.device, dict[str, Any]]:
    """Device and environment, after threads and allocator are set."""
    device = pick_device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(arguments.threads)
    allocator = "cuda caching" if device.type == "cuda" else "system"
    if device.type == "cpu" and arguments.allocator == "keep":
        allocator = keep_memory()
    return device, environment(device, allocator)


class Budget:
    """Says when no further case may begin, and remembers which did not."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self.left_out: list[str] = []

    def allows(self, case: object) -> bool:
        """Whether there is time for a case."""
        if self._end is None or time.monotonic() < self._end:
            return True
        self.left_out.append(str(case))
        return False


def ended(rows: Sequence[dict[str, Any]], budget: Budget) -> int:
    """The exit status: 1 where a row was not timed or a case was left out, each said on stderr."""
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
    return int(bool(bad or budget.left_out or not rows))


def run(main: Callable[[], int]) -> None:
    """Exit with main's status; a wrong argument is one line and status 2."""
    try:
        sys.exit(main())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
