import json
import subprocess
import sys
from pathlib import Path

import pytest

from gbn.config.compose import compose

SMALL = (
    "model=mlp",
    "model.width=0.125",
    "model.depth=2",
    "trainer.epochs=1",
    "trainer.batch_size=64",
    "trainer.evaluation.points=5",
    "trainer.evaluation.images=60",
    "trainer.evaluation.calibration_images=64",
    "trainer.progress=quiet",
    "trainer.threads=1",
    "trainer.device=cpu",
    "tracker.mode=disabled",
)


@pytest.fixture
def small_overrides():
    """The same as command-line overrides, for other processes."""
    return list(SMALL)


@pytest.fixture
def small(tmp_path):
    """A maker of configurations of runs that take a tenth of a second (19 updates of an MLP on digits)."""

    def make(*overrides):
        return compose([*SMALL, f"results_dir={tmp_path}", *overrides])

    return make


@pytest.fixture
def offline_records():
    """Reads the folder of a run that W&B recorded offline, through W&B's own reader: a list of (type, content)."""

    def read(folder):
        wandb = Path(sys.executable).with_name("wandb")
        done = subprocess.run(
            [str(wandb), "leet", "inspect", "--json", str(folder)],
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        records = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        return [(record["type"], record.get(record["type"], {})) for record in records]

    return read
