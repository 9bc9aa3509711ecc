"""Metrics files parsed together give what they give line by line."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gbn.analysis.runs.points import columns_of, read_curves
from gbn.store.files import StoreError, read_curve

KEYS = ("one", "two", "three", "diverged", "extra")  # of which nothing is known: any value will do
NUMBERS = st.one_of(
    st.none(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), st.booleans()
)
OTHERS = st.one_of(
    st.text(max_size=5), st.just("2026-11-24"), st.lists(st.integers(), max_size=2), st.just({"a": 1})
)
TAILS = ("", '{"update": 12', '{"update": 7, "val_accuracy": 0.5}', "\0\0")


def points(values):
    return st.lists(st.dictionaries(st.sampled_from(KEYS), values, max_size=5), max_size=6)


def write(folder, curves):
    paths = []
    for number, (lines, tail) in enumerate(curves):
        paths.append(folder / f"{number}.jsonl")
        paths[-1].write_text("".join(json.dumps(point) + "\n" for point in lines) + tail)
    return paths


def plain(value):
    """What is kept of a value: a number as a float, nothing else."""
    return float(value) if isinstance(value, bool | int | float) else None


def check(paths):
    columns, counts = read_curves(paths)
    expected = [read_curve(path) for path in paths]
    assert counts == [len(curve) for curve in expected]
    flat = [point for curve in expected for point in curve]
    assert columns.keys() >= {
        key for point in flat for key, value in point.items() if plain(value) is not None
    }
    for key, array in columns.items():
        assert [plain(value) for value in array.to_pylist()] == [plain(point.get(key)) for point in flat]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(points(NUMBERS), st.sampled_from(TAILS)), max_size=5))
def test_numbers_are_read_as_line_by_line(tmp_path_factory, curves):
    check(write(tmp_path_factory.mktemp("runs"), curves))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(points(st.one_of(NUMBERS, OTHERS)), st.sampled_from(TAILS)), max_size=5))
def test_values_that_are_no_numbers_harm_nothing(tmp_path_factory, curves):
    check(write(tmp_path_factory.mktemp("runs"), curves))


@pytest.mark.parametrize("batch", [1, 200])
def test_many_batches_are_one_table(tmp_path, monkeypatch, batch):
    monkeypatch.setattr("gbn.analysis.runs.points._BATCH_BYTES", batch)
    curves = [
        ([{"update": 1, "a": 1}], ""),
        ([{"update": 2, "a": 2.5, "b": True}], ""),
        ([], ""),
        ([{"update": 3, "b": 0.5}], ""),
    ]
    check(write(tmp_path, curves))


def test_whole_numbers_stay_whole_and_mixtures_become_fractions():
    columns = columns_of([[{"a": 1, "b": 1, "c": True}], [{"a": 2, "b": 0.5, "c": False}, {"d": 2**70}]])
    assert {name: str(array.type) for name, array in columns.items()} == {
        "a": "int64",
        "b": "double",
        "c": "bool",
        "d": "double",
    }


def test_an_absent_file_is_an_empty_curve(tmp_path):
    assert read_curves([tmp_path / "gone.jsonl"]) == ({}, [0])


@pytest.mark.parametrize(
    "damage", ["{}{}\n", "\n7\n", "[1]\n", "7", '{"update": 1}{', '{"update": \n{"update": 2}\n', "  \n"]
)
def test_a_damaged_line_is_named_wherever_it_is(tmp_path, damage):
    paths = write(tmp_path, [([{"update": 1}], ""), ([{"update": 1}], damage), ([{"update": 3}], "")])
    with pytest.raises(StoreError, match=r"1\.jsonl line \d is damaged"):
        read_curves(paths)


def test_numbers_that_json_lacks_are_no_numbers_of_a_neighbor(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"update": 1, "extra": NaN}\n\n{"update": 2, "extra": 0.5}\n')
    columns, counts = read_curves([path])
    assert counts == [2]
    assert math.isnan(columns["extra"].to_pylist()[0])
    assert columns["extra"].to_pylist()[1] == 0.5


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('"val_accuracy": 7.0', r"val_accuracy at update 2 is 7\.0, expected a number from 0 to 1"),
        ('"val_accuracy": -0.1', "val_accuracy at update 2 is -0.1"),
        ('"val_accuracy": "0.5"', "val_accuracy at update 2 is '0.5'"),
        ('"val_accuracy": true', "val_accuracy at update 2 is True"),
        ('"val_loss": NaN', "val_loss at update 2 is nan"),
        ('"val_loss": 1e999', "val_loss at update 2 is inf"),
        ('"val_loss": "low"', "val_loss at update 2 is 'low'"),
        ('"seconds": "1.5"', "seconds at update 2 is '1.5'"),
        ('"update": 2.5', "update at update 2.5 is 2.5, expected a whole number"),
        ('"update": "2"', "update at update 2 is '2'"),
    ],
)
@pytest.mark.parametrize("others", [[], [{"update": 1, "val_accuracy": 0.5, "val_loss": 2}]])
def test_a_value_that_cannot_be_is_refused_by_name(tmp_path, value, message, others):
    paths = write(tmp_path, [(others, ""), (others, f'{{"update": 2, {value}}}\n'), (others, "")])
    with pytest.raises(StoreError, match=r"1\.jsonl: " + message):
        read_curves(paths)
