"""`gbn bench analysis`: the store it makes, its file. No timing is judged."""

import csv
import subprocess
import sys

import pytest

from gbn.analysis.runs.load import load_any
from gbn.bench import analysis as bench
from gbn.studies.validation.simulate import write_files


def test_its_runs_are_as_many_and_as_long_as_it_says(tmp_path):
    write_files(bench.records(bench.grid_of(60), 60), tmp_path)
    runs = load_any(["*"], tmp_path, targets=[0.6])
    assert len(runs.runs) == 60
    finished = runs.runs[runs.runs.status == "finished"]
    assert len(finished) >= 50
    row = finished.iloc[0]
    (updates,) = runs.columns(row.setting, row.arm, row.seed, ["update"])
    assert len(updates) == bench.EVALUATIONS


def test_a_goal_is_met_or_not():
    row = {"runs": 10_000, "wall_s": 14.9, "peak_mb": 400.0}
    assert bench._judged(row).endswith(": met)")
    assert bench._judged(row | {"wall_s": 15.1}).endswith("NOT met)")
    assert bench._judged(row | {"peak_mb": 1001.0}).endswith("NOT met)")
    assert bench._judged(row | {"runs": 40}) == ""


@pytest.mark.slow
def test_it_writes_a_row_per_store(tmp_path):
    command = [sys.executable, "-m", "gbn", "bench", "analysis", "--runs", "16", "--repeats", "1"]
    done = subprocess.run(
        [*map(str, command), "--folder", str(tmp_path), "--out", str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").glob("analysis-*.csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["runs"] for row in rows] == ["16"]
    assert all(float(row["wall_s"]) > 0 and float(row["peak_mb"]) > 20 for row in rows)
    assert all(row["pyarrow"] and row["date"] for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # the stores are gone
