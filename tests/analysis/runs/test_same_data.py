"""Runs on different data in one table: an error that names them, or a note where the key allows it."""

from dataclasses import dataclass, replace

import pytest

from gbn.analysis.results import compare_with_archive, write_results
from gbn.analysis.runs.load import load_grid_runs
from gbn.store.archive import Archive
from gbn.store.files import StoreError
from gbn.studies.validation.simulate import write_runs

OLD, NEW = "a" * 64, "b" * 64


def on(record, *digests, allowed=False):
    """A record that was trained on these data, a segment each."""
    segments = [
        {"start_update": 10 * index, "data_digest": digest} for index, digest in enumerate(digests) if digest
    ]
    config = {**record.config, "dataset": {**record.config["dataset"], "allow_changed": allowed}}
    return replace(record, provenance=segments, config=config, summary={**record.summary, "config": config})


def place(grid, results, changed, digests, source="store", allowed=False):
    """All runs on the old data but those of one arm and seed."""
    records = [
        on(record, *digests, allowed=allowed)
        if (record.config["norm"]["name"], record.config["seed"]) == changed
        else on(record, OLD)
        for record in grid.records()
    ]
    write_runs(records, results) if source == "store" else Archive(results).add(records, "simulated")
    return next(
        record.run_id
        for record in records
        if (record.config["norm"]["name"], record.config["seed"]) == changed
    )


@pytest.mark.parametrize("source", ["store", "archive"])
@pytest.mark.parametrize("digests", [(NEW,), (OLD, NEW)])
def test_a_table_over_different_data_is_an_error(grid, tmp_path, source, digests):
    run_id = place(grid, tmp_path, ("gbn_fast", 3), digests, source)
    with pytest.raises(StoreError, match=r"simulated: .*different data .*allow_changed=true") as error:
        load_grid_runs(grid, tmp_path, source)
    assert f"{'b' * 12}: {run_id})" in str(error.value)
    assert f"{'a' * 12}: " in str(error.value)
    assert " more;" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["store", "archive"])
def test_runs_with_the_key_are_shown_in_the_table(grid, tmp_path, source):
    place(grid, tmp_path, ("gbn_fast", 3), (OLD, NEW), source, allowed=True)
    runs = load_grid_runs(grid, tmp_path, source)
    said = (
        "Changed data, allowed by dataset.allow_changed=true: 31 of 32 runs were trained on data with the digest "
        "aaaaaaaaaaaa, not so gbn_fast seed 3 (aaaaaaaaaaaa then bbbbbbbbbbbb). What differs may come of that."
    )
    assert runs.notes == [said]
    write_results(grid, runs, tmp_path / "out", figures=False, paper=True)
    for suffix in (".md", ".csv", ".tex"):
        assert said in (tmp_path / "out" / "tables" / f"simulated{suffix}").read_text(encoding="utf-8")


@dataclass
class Allowing:
    """A grid whose overrides have the key."""

    grid: object

    def __getattr__(self, name):
        return getattr(self.grid, name)

    @property
    def cells(self):
        return [
            replace(
                cell, config={**cell.config, "dataset": {**cell.config["dataset"], "allow_changed": True}}
            )
            for cell in self.grid.cells
        ]


def test_an_experiment_with_the_key_shows_them_too(grid, tmp_path):
    place(grid, tmp_path, ("gbn_fast", 3), (NEW,))
    (note,) = load_grid_runs(Allowing(grid), tmp_path).notes
    assert "gbn_fast seed 3 (bbbbbbbbbbbb)" in note


@pytest.mark.parametrize("digest", [f"2:{NEW}", None])
def test_what_tells_nothing_is_not_compared(grid, tmp_path, digest):
    place(grid, tmp_path, ("gbn_fast", 3), (digest,))
    assert load_grid_runs(grid, tmp_path).notes == []


def test_beside_the_archive_other_data_is_not_called_rounding(grid, tmp_path):
    write_runs([on(record, NEW) for record in grid.records()], tmp_path)
    Archive(tmp_path).add([on(record, OLD) for record in grid.records()], "simulated")
    assert "32 of them were trained on other data than the archived ones." in compare_with_archive(
        grid, tmp_path
    )
