"""A finished run that is not what it ended as is refused by name, by whoever reads it."""

import json
import os
import shutil

import pandas as pd
import pytest

from gbn.analysis.runs.load import load_any, load_grid_runs
from gbn.store import RunStore, StoreError
from gbn.store.files import parse_provenance, read_curve
from gbn.store.finished import read_summary
from gbn.studies.validation.simulate import Arm, write_files


@pytest.fixture
def grid(make_grid):
    return make_grid(arms={"bn": Arm()}, controls={}, seeds=range(3), points=8)


@pytest.fixture
def results(grid, tmp_path):
    write_files(grid.records(), tmp_path)
    return tmp_path


def as_earlier_versions(results):
    """Take every digest out of every file."""
    for folder in (results / "runs").iterdir():
        said, _ = read_summary(folder)
        segments = parse_provenance(folder / "provenance.json", (folder / "provenance.json").read_bytes())
        points = read_curve(folder / "metrics.jsonl")
        (folder / "summary.json").write_text(json.dumps(said))
        (folder / "provenance.json").write_text(json.dumps(segments))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))


def another_curve(folder, other):
    (folder / "metrics.jsonl").write_bytes((other / "metrics.jsonl").read_bytes())


def another_summary(folder, other):
    (folder / "summary.json").write_bytes((other / "summary.json").read_bytes())


def edited(name, old, new):
    def edit(folder, other):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return edit


def edited_end(**changes):
    def edit(folder, other):
        said = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps(said | {"final": said["final"] | changes}))

    return edit


DAMAGES = {
    "an empty curve": (lambda folder, other: (folder / "metrics.jsonl").write_text(""), "metrics"),
    "a missing curve": (lambda folder, other: (folder / "metrics.jsonl").unlink(), "metrics"),
    "a cut curve": (edited("metrics.jsonl", '"update": 2000', '"upd'), "metrics"),
    "another run's curve": (another_curve, "metrics"),
    "another run's summary": (another_summary, "summary"),
    "a garbled line": (lambda folder, _: (folder / "metrics.jsonl").write_text("broken\n"), "metrics"),
    "an accuracy of 7": (edited_end(val_accuracy=7.0), "summary"),
    "text for a number": (edited_end(val_accuracy="0.9"), "summary"),
    "text for a count": (edited("summary.json", '"parameters": 1000', '"parameters": "many"'), "summary"),
    "another seed": (edited("summary.json", '"seed": 0', '"seed": 1'), "summary"),
    "bytes that are no text": (lambda folder, _: (folder / "summary.json").write_bytes(b"\xff{}"), "summary"),
}


@pytest.mark.parametrize("earlier", [False, True], ids=["sealed", "earlier"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_refused_by_name_every_time(grid, results, damage, earlier):
    if earlier:
        as_earlier_versions(results)
    load_grid_runs(grid, results)
    run_id, other = grid.cells[0].run_ids[0], grid.cells[0].run_ids[1]
    change, file = DAMAGES[damage]
    folder = results / "runs" / run_id
    edited_file = folder / f"{file}.json{'l' * (file == 'metrics')}"
    change(folder, results / "runs" / other)
    for look in (lambda: load_grid_runs(grid, results), lambda: RunStore(results).load(run_id)):
        for _ in range(2):
            with pytest.raises(StoreError) as error:
                look()
            assert run_id in str(error.value)
            assert edited_file.name in str(error.value)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('"val_accuracy": 7.0', r"val_accuracy at update 5 is 7\.0, expected a number from 0 to 1"),
        ('"val_accuracy": -0.1', "val_accuracy at update 5 is -0.1"),
        ('"val_accuracy": "0.5"', "val_accuracy at update 5 is '0.5'"),
        ('"val_accuracy": true', "val_accuracy at update 5 is True"),
        ('"val_loss": NaN', "val_loss at update 5 is nan"),
        ('"val_loss": 1e999', "val_loss at update 5 is inf"),
        ('"val_loss": "low"', "val_loss at update 5 is 'low'"),
        ('"seconds": "1.5"', "seconds at update 5 is '1.5'"),
        ('"update": 2.5', "update at update 2.5 is 2.5, expected a whole number"),
        ('"update": "2"', "update at update 2 is '2'"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(grid, results, value, message):
    as_earlier_versions(results)
    run_id = grid.cells[0].run_ids[0]
    path = results / "runs" / run_id / "metrics.jsonl"
    path.write_text(path.read_text().replace("}", f", {value}}}", 1))
    with pytest.raises(StoreError, match=rf"{run_id} contradicts itself: metrics\.jsonl: {message}"):
        load_grid_runs(grid, results)


def test_an_earlier_version_s_runs_are_read(grid, results):
    sealed = load_grid_runs(grid, results)
    curves = sealed.curves
    as_earlier_versions(results)
    earlier = load_grid_runs(grid, results)
    pd.testing.assert_frame_equal(earlier.runs, sealed.runs)
    pd.testing.assert_frame_equal(earlier.curves, curves)


@pytest.mark.parametrize("how", ["copied", "renamed"])
def test_a_copied_or_renamed_folder_is_refused(grid, results, how):
    load_any(["*"], results)
    source = results / "runs" / grid.cells[0].run_ids[0]
    {"copied": shutil.copytree, "renamed": os.rename}[how](
        source, source.with_name("simulated-net-bn-s9-0123456789")
    )
    for look in (load_any, lambda _, results: list(RunStore(results))):
        with pytest.raises(
            StoreError, match=r"s9-0123456789/summary\.json: it is the summary of .*copied or renamed"
        ):
            look(["*"], results)
