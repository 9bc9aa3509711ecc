"""Time from the command to the end of the first training update, CIFAR-10 with W&B offline, in fresh processes.

    python scripts/bench_startup.py

Writes results/benchmarks/startup-<device>-<date>.csv. The goal is under 3 s beyond importing torch.
"""

import argparse
import csv
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ["norm=gbn_cvar", "model=cnn", "model.width=0.25", "dataset=cifar10", "dataset.subset=128"]
COMMAND += ["trainer.epochs=1", "trainer.evaluation.images=100", "trainer.evaluation.exact=false"]
COMMAND += ["trainer.evaluation.points=1", "tracker.mode=offline", "trainer.progress=quiet"]


def once() -> dict:
    """One run in a fresh process; its summary."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), *COMMAND, f"results_dir={folder}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"the run failed: {done.stderr.strip()}")
        (summary,) = Path(folder).glob("runs/*/summary.json")
        return json.loads(summary.read_text(encoding="utf-8"))


def main() -> None:
    """Repeat, print the median and spread, write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks")
    arguments = parser.parse_args()
    once()  # files into the page cache
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
    kind = re.sub(r"[^a-z0-9]+", "-", environment["device_kind"].lower()).strip("-")
    path = arguments.out / f"startup-{kind}-{environment['date'][:10]}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    spread = f"{beyond[0]:.2f} to {beyond[-1]:.2f}"
    print(f"first update after importing torch: median {statistics.median(beyond):.2f} s ({spread})")
    print(path)


if __name__ == "__main__":
    main()
