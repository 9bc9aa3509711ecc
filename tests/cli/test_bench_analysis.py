"""`gbn bench analysis`: the store it makes, its file. No timing is judged."""

import csv
import subprocess
import sys

import pytest

from gbn.analysis.runs.ingest import stamps
from gbn.analysis.runs.load import load_any
from gbn.bench import analysis as bench
from gbn.store import RunStore
from gbn.studies.validation.simulate import write_files


def test_its_runs_are_as_many_and_as_long_as_it_says(tmp_path):
    write_files(bench.records(bench.grid_of(60), 60), tmp_path)
    runs = load_any(["*"], tmp_path, targets=[0.6])
    assert len(runs.runs) == 60
    finished = runs.runs[runs.runs.status == "finished"]
    assert len(finished) >= 50
    row = finished.iloc[0]
    assert len(runs.curve(row.setting, row.arm, row.seed)) == bench.EVALUATIONS
    store = RunStore(tmp_path)
    before = stamps(store, store.run_ids())
    bench.change_a_run(tmp_path)
    after = stamps(store, store.run_ids())
    assert sum(before[run_id] != after[run_id] for run_id in before) == 1
    assert len(load_any(["*"], tmp_path, targets=[0.6]).curves) == len(runs.curves)


def test_a_goal_is_met_or_not():
    row = {"runs": 10_000, "case": "second", "wall_s": 1.9, "peak_mb": 400.0}
    assert bench._judged(row).endswith(": met)")
    assert bench._judged(row | {"wall_s": 2.1}).endswith("NOT met)")
    assert bench._judged(row | {"peak_mb": 1001.0}).endswith("NOT met)")
    assert bench._judged(row | {"runs": 40}) == ""


@pytest.mark.slow
def test_it_writes_a_row_per_case(tmp_path):
    command = [sys.executable, "-m", "gbn", "bench", "analysis", "--runs", "16", "--repeats", "1"]
    done = subprocess.run(
        [*map(str, command), "--folder", str(tmp_path), "--out", str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").glob("analysis-*.csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["first", "second", "one run changed", "cache deleted"]
    assert all(float(row["wall_s"]) > 0 and float(row["peak_mb"]) > 20 for row in rows)
    assert all(row["pyarrow"] and row["date"] for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # the stores are gone
