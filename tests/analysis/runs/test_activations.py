"""Recordings as a frame: every number where it belongs, from the store and from the archive."""

import math

import numpy as np
import pytest

from gbn.analysis.runs.activations import COLUMNS, layer_frame, layers_to_show, require, seed_table
from gbn.analysis.runs.load import NothingFound, load_grid_runs
from gbn.store import RunStore
from gbn.store.archive import Archive


def test_every_number_is_in_its_place(grid, recorded):
    frame = layer_frame(load_grid_runs(grid, recorded))
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 2 * 8 * 3 * 3 * 4  # arms, seeds, updates, layers, quantities
    assert set(frame.arm) == {"bn", "gbn_fast"}
    row = frame[
        (frame.arm == "gbn_fast")
        & (frame.seed == 3)
        & (frame["update"] == 100)
        & (frame.layer == "body.norm")
        & (frame.quantity == "active")
    ]
    assert row[["depth", "low", "median", "high"]].to_numpy()[0] == pytest.approx([1, 0.24, 0.34, 0.44])
    dead = frame[frame.quantity == "dead"]
    assert (dead["median"] == 0.25).all()
    assert dead[["low", "high"]].isna().all(axis=None)
    assert frame[frame.quantity == "deviation"]["median"].isna().all()


def test_the_archive_gives_the_same(grid, recorded):
    runs = load_grid_runs(grid, recorded)
    Archive(recorded).add(RunStore(recorded), "x")
    archived = load_grid_runs(grid, recorded, "archive")
    assert layer_frame(archived).equals(layer_frame(runs))


def test_without_recordings_it_says_how_to_get_some(grid, results):
    runs = load_grid_runs(grid, results)
    frame = layer_frame(runs)
    assert frame.empty
    assert list(frame.columns) == COLUMNS
    with pytest.raises(NothingFound, match=r"none of the 32 finished runs .*trainer\.record\.layers=true"):
        require(frame, runs)


def test_first_middle_and_last_layer_with_a_relu(grid, recorded):
    frame = layer_frame(load_grid_runs(grid, recorded))
    assert layers_to_show(frame, "") == ["stem.norm", "body.norm", "last.norm"]
    without = frame[(frame.layer != "last.norm") | (frame.quantity != "active")]
    assert layers_to_show(without, "") == ["stem.norm", "body.norm"]
    assert layers_to_show(frame[frame.quantity != "active"], "") == ["stem.norm", "body.norm", "last.norm"]
    assert layers_to_show(frame, "", ["last.norm"]) == ["last.norm"]
    with pytest.raises(
        ValueError, match=r"no normalizer 'stem' was recorded; choose from stem\.norm, body\.norm"
    ):
        layers_to_show(frame, "", ["stem"])


def test_a_table_of_seeds_takes_logarithms_where_the_figure_does(grid, recorded):
    frame = layer_frame(load_grid_runs(grid, recorded))
    active = seed_table(frame, "", "bn", "stem.norm", "active")
    assert list(active.index) == [5, 100, 2000]
    assert list(active.columns) == list(range(8))
    assert active.loc[100, 2] == pytest.approx(0.33)
    norms = seed_table(frame, "", "bn", "last.norm", "weight_norm")
    assert norms.loc[100, 2] == pytest.approx(math.log(33))
    assert seed_table(frame, "", "bn", "stem.norm", "deviation").isna().all(axis=None)
    negative = frame.assign(median=-frame["median"])
    assert np.isnan(seed_table(negative, "", "bn", "last.norm", "weight_norm")).all(axis=None)
