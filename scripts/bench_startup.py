"""Time from the command to the end of the first training update (CIFAR-10, W&B offline), in fresh processes.

    python scripts/bench_startup.py

Writes results/benchmarks/startup-<device>-<date>.csv. The goal is under 3 s beyond importing torch.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gbn import cli
from gbn.arguments import Whole, output_folder
from gbn.bench.names import RESULTS, ROOT

COMMAND = ["norm=gbn_cvar", "model=cnn", "model.width=0.25", "dataset=cifar10", "dataset.subset=128"]
COMMAND += ["trainer.epochs=1", "trainer.evaluation.images=100", "trainer.evaluation.exact=false"]
COMMAND += ["trainer.evaluation.points=1", "tracker.mode=offline", "trainer.progress=quiet"]


def once() -> dict[str, Any]:
    """Train one run in a fresh process; return its summary.

    Raises:
        ChildProcessError: the run failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), *COMMAND, f"results_dir={folder}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise ChildProcessError(f"the run failed: {done.stderr.strip()}")
        (summary,) = Path(folder).glob("runs/*/summary.json")
        return json.loads(summary.read_text(encoding="utf-8"))


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__)
    add = result.add_argument
    add("--repeats", type=Whole(most=1000), default=7, metavar="N", help="fresh processes (default 7)")
    what = "output folder (default: results/benchmarks)"
    add("--out", type=output_folder, default=str(RESULTS), metavar="DIR", help=what)
    return result


def run(arguments: argparse.Namespace) -> int:
    """Repeat, print the median and spread, write the file."""
    from gbn.bench.environment import file_name, write_rows

    once()  # loads files into the page cache
    summaries = [once() for _ in range(arguments.repeats)]
    environment = summaries[-1]["environment"]
    rows = [
        {
            "to_first_update_s": round(one["startup"]["to_first_update"], 3),
            "import_torch_s": round(one["startup"]["import_torch"], 3),
            "beyond_torch_s": round(one["startup"]["to_first_update"] - one["startup"]["import_torch"], 3),
            **{
                key: environment[key]
                for key in ("device_kind", "threads", "torch", "python", "commit", "date")
            },
        }
        for one in summaries
    ]
    beyond = sorted(row["beyond_torch_s"] for row in rows)
    path = arguments.out / file_name("startup", environment)
    write_rows(path, rows, rows[0])
    spread = f"{beyond[0]:.2f} to {beyond[-1]:.2f}"
    print(f"first update after importing torch: median {statistics.median(beyond):.2f} s ({spread})")
    print(path)
    return 0


if __name__ == "__main__":
    cli.main(parser, run)
