"""Time from the command to the end of the first training update (CIFAR-10, W&B offline), in fresh processes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gbn.bench.names import ROOT

COMMAND = ["norm=gbn_cvar", "model=cnn", "model.width=0.25", "dataset=cifar10", "dataset.subset=128"]
COMMAND += ["trainer.epochs=1", "trainer.evaluation.images=100", "trainer.evaluation.exact=false"]
COMMAND += ["trainer.evaluation.points=1", "tracker.mode=offline", "trainer.progress=quiet"]


def once() -> dict[str, Any]:
    """Train one run in a fresh process; return its summary.

    Raises:
        ChildProcessError: the run failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gbn", "train", *COMMAND, f"results_dir={folder}"]
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables)
        if done.returncode:
            raise ChildProcessError(f"the run failed: {done.stderr.strip()}")
        (summary,) = Path(folder).glob("runs/*/summary.json")
        found: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
        return found


def measure(repeats: int) -> list[dict[str, Any]]:
    """Return one row per fresh process, after one that loads files into the page cache.

    Raises:
        ChildProcessError: a run failed.
    """
    once()
    rows = []
    for summary in [once() for _ in range(repeats)]:
        seconds, environment = summary["startup"], summary["environment"]
        torch, total = seconds["import_torch"], seconds["to_first_update"]
        times = {"to_first_update_s": total, "import_torch_s": torch, "beyond_torch_s": total - torch}
        kept = ("device_kind", "threads", "torch", "python", "commit", "date")
        rows.append(
            {name: round(value, 3) for name, value in times.items()} | {key: environment[key] for key in kept}
        )
    return rows
