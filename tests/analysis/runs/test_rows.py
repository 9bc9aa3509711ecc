"""Rows give what the files hold, from the store and from the archive, and follow every change of the files."""

import random
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbn.analysis.runs.load import load_any, load_grid_runs
from gbn.analysis.runs.rows import Reader, columns_of, row_of
from gbn.store import RunStore, StoreError
from gbn.store.archive import Archive
from gbn.store.files import line_of, points_of, provenance_text, write_atomically
from gbn.store.finished import COVERED, read_summary, summary_text
from gbn.store.record import Curve, Record
from gbn.studies.validation.simulate import Arm, Machine, write_files, write_runs

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.sampled_from(["0.5", "2026-11-24", [1], {"a": 1}]),
)
POINTS = st.lists(
    st.dictionaries(st.sampled_from(["one", "two", "three", "four"]), VALUES, max_size=4), max_size=6
)


def summary(results, run_id, **changes):
    """Change a summary as its writer would: by replacing the file, with its digests."""
    folder = results / "runs" / run_id
    said, _ = read_summary(folder)
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in COVERED}
    write_atomically(folder / "summary.json", summary_text(said | changes, contents))


@given(POINTS)
def test_columns_hold_the_numbers_of_the_points_and_nothing_else(points):
    columns = columns_of(points)
    for name in ("one", "two", "three", "four"):
        numbers = [
            float(value) if isinstance(value := point.get(name), bool | int | float) else np.nan
            for point in points
        ]
        assert (name in columns) == (not np.isnan(numbers).all())
        if name in columns:
            assert columns[name].dtype == np.float64
            np.testing.assert_array_equal(columns[name], numbers)


@given(POINTS)
def test_the_lines_of_a_file_give_the_columns_of_their_points(points):
    lines = "".join(map(line_of, points)).encode()
    row = row_of(Record("r", "finished", {}, curve=Curve(lines, partial(points_of, Path("m"), checked=True))))
    columns = columns_of(points)
    assert row.points == len(points)
    assert row.columns.keys() == columns.keys()
    for name, column in columns.items():
        np.testing.assert_array_equal(row.columns[name], column)


def test_points_are_put_in_order_of_update():
    points = [{"update": 5, "a": 1}, {"update": 2, "a": None}, {"update": 5, "a": 3}]
    columns = row_of(Record("r", "finished", {}, curve=points)).columns
    np.testing.assert_array_equal(columns["update"], [2, 5, 5])
    np.testing.assert_array_equal(columns["a"], [np.nan, 1, 3])


@pytest.mark.parametrize("seed", range(3))
def test_a_mixed_store_gives_what_its_records_hold(make_grid, tmp_path, seed):
    arms = {"bn": Arm(), "wild": Arm(diverges_at=700), "slow": Arm(speed=0.5, final=0.7)}
    grid = make_grid(arms=arms, controls={}, settings=("cnn", "resnet"), seeds=range(4), points=12)
    store, draw = RunStore(tmp_path), random.Random(seed)
    for record in grid.records():
        fate = draw.choice(["done", "done", "failed", "interrupted", "missing", "elsewhere"])
        if fate in ("done", "elsewhere"):
            key = (record.config["model"]["name"], record.config["norm"]["name"], record.config["seed"])
            machine = Machine(device_kind="Simulated GPU") if fate == "elsewhere" else None
            write_files([grid.record(*key, machine)], tmp_path)
        if fate == "failed":
            with pytest.raises(ZeroDivisionError), store.writer(record.run_id):
                raise ZeroDivisionError
        if fate == "interrupted":
            with store.writer(record.run_id) as writer:
                writer.append(record.curve[0])
    write_files([grid.record("cnn", "bn", 9)], tmp_path)
    grid = make_grid(arms=arms, controls={}, settings=("cnn", "resnet"), seeds=[*range(4), 9], points=12)
    runs = load_grid_runs(grid, tmp_path)
    for entry, row in zip(runs.plan.entries, runs.runs.itertuples(), strict=True):
        assert row.status in (store.status(entry.run_id), "left out")
        if row.status not in ("finished", "diverged"):
            continue
        record = store.load(entry.run_id)
        said = (record.machine, record.summary["updates"], "exclusive")
        assert (row.machine, row.updates, row.clock) == said
        last = record.summary["final"].get("test_accuracy") or float("nan")
        assert row.last == pytest.approx(last, nan_ok=True)
        key = (entry.setting, entry.arm, entry.seed)
        updates, accuracies = runs.columns(*key, ["update", "val_accuracy"])
        assert updates.tolist() == [point["update"] for point in record.curve]
        expected = [point.get("val_accuracy") for point in record.curve]
        np.testing.assert_array_equal(accuracies, np.array(expected, dtype=float))


def test_archive_and_store_give_the_same_rows(grid, results):
    Archive(results).add(RunStore(results), "x")
    reader, ids = Reader(results), {run_id for cell in grid.cells for run_id in cell.run_ids.values()}
    stored = reader.stored(ids)
    archived = reader.archived(ids)
    assert {row.record.run_id for row in archived} == ids == stored.keys()
    for row in archived:
        other = stored[row.record.run_id]
        pd.testing.assert_frame_equal(pd.DataFrame(row.columns), pd.DataFrame(other.columns), check_like=True)
        assert row.fields() == other.fields() | {"source": "archive"}
        assert (row.identity, row.data, row.points) == (other.identity, other.data, other.points)


def test_a_replaced_summary_and_another_provenance_are_noticed(grid, results):
    load_grid_runs(grid, results)
    first, second = grid.cells[0].run_ids[0], grid.cells[0].run_ids[1]
    summary(results, first, parameters=7)
    path = results / "runs" / second / "provenance.json"
    path.write_text(provenance_text([{"versions": {"numpy": "1.2.3"}}]))
    summary(results, second)
    rows = load_grid_runs(grid, results).runs.set_index("run_id")
    assert rows.parameters[first] == 7
    assert rows.status[second] == "left out" or rows.machine[second].endswith("numpy 1.2.3")


def test_new_and_removed_runs_are_noticed(grid, results, make_grid):
    assert len(load_any(["*"], results).runs) == 32
    shutil.rmtree(results / "runs" / grid.cells[0].run_ids[0])
    assert len(load_any(["*"], results).runs) == 31
    assert "bn: missing: seeds 0." in load_grid_runs(grid, results).notes
    write_runs(make_grid(seeds=[8]).records(), results)
    assert len(load_any(["*"], results).runs) == 35


def test_a_run_that_is_trained_anew_is_read_anew(grid, results):
    load_grid_runs(grid, results)
    folder = results / "runs" / grid.cells[0].run_ids[0]
    shutil.rmtree(folder)
    record = grid.record("", "bn", 0)
    with RunStore(results).writer(record.run_id) as writer:
        writer.append(record.curve[0])
        assert "bn: running: seeds 0." in load_grid_runs(grid, results).notes
    assert "bn: interrupted: seeds 0." in load_grid_runs(grid, results).notes
    with RunStore(results).writer(record.run_id) as writer:
        end = {"updates": record.curve[0]["update"], "final": record.curve[0]}
        writer.write_summary(record.summary | end)
    (updates,) = load_grid_runs(grid, results).columns("", "bn", 0, ["update"])
    assert len(updates) == 1


def test_a_run_that_is_removed_while_it_is_read_is_left_out(grid, results, monkeypatch):
    first, second = grid.cells[0].run_ids[0], grid.cells[0].run_ids[1]
    load = RunStore.load

    def removing(store, run_id):
        if run_id == first:
            shutil.rmtree(store.path(run_id))
        return load(store, run_id)

    monkeypatch.setattr(RunStore, "load", removing)
    assert list(Reader(results).stored([first, second])) == [second]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"status": "odd"}', '{"status": "finished", "updates": "many"}']
)
def test_a_damaged_summary_is_an_error_that_names_it(grid, results, text):
    (results / "runs" / grid.cells[0].run_ids[0] / "summary.json").write_text(text)
    with pytest.raises(StoreError, match=r"summary\.json"):
        load_grid_runs(grid, results)


def test_a_changed_archive_is_noticed(grid, tmp_path, make_grid):
    archive = Archive(tmp_path)
    archive.add(grid.records(), "x")
    assert len(load_any(["*"], tmp_path, "archive").runs) == 32
    archive.retract(grid.cells[0].run_ids[0], "it was wrong")
    assert "bn: missing: seeds 0." in load_grid_runs(grid, tmp_path, "archive").notes
    Archive(tmp_path).add(make_grid(seeds=[8]).records(), "y")
    assert len(load_any(["*"], tmp_path, "archive").runs) == 35


def test_store_and_archive_are_read_side_by_side(results, make_grid):
    Archive(results).add(make_grid(seeds=[8]).records(), "y")
    assert len(load_any(["*"], results, "both").runs) == 36
