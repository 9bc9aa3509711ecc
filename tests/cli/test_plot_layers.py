"""`gbn plot layers`: from the command line to figures, or to a line that says what is missing."""

import dataclasses
import shutil

import pytest

from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs

GRID = SimulatedGrid({"bn": Arm(), "gbn_cvar": Arm()}, seeds=range(2))


@pytest.fixture
def results(tmp_path):
    write_runs(GRID.records(), tmp_path)
    return tmp_path


def record_layers(results):
    lines = [{"update": n, "layers": {"stem.norm": {"active": [0.1, 0.5, 0.9]}}} for n in (5, 2000)]
    shutil.rmtree(results / "runs")
    write_runs([dataclasses.replace(one, read_layers=lambda: lines) for one in GRID.records()], results)


def test_figures_of_recorded_runs(gbn, results):
    record_layers(results)
    status, out, _ = gbn(
        "plot layers", "--runs", "simulated-*", "--results", results, "--quantities", "active", "--paper"
    )
    assert status == 0
    assert "runs-layers.png" in out
    assert (results / "scratch" / "figures" / "runs-layers.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--quantities", "activity"],
            "no quantity 'activity' is recorded; choose from statistic, deviation",
        ),
        (
            ["--quantities", "active", "--layers", "body"],
            "no normalizer 'body' was recorded; choose from stem.norm",
        ),
    ],
)
def test_a_wrong_choice_is_one_line(gbn, results, arguments, words):
    record_layers(results)
    status, _, errors = gbn("plot layers", "--runs", "simulated-*", "--results", results, *arguments)
    assert status == 2
    assert words in errors


def test_runs_without_recordings_are_told_how_to_get_them(gbn, results):
    status, _, errors = gbn("plot layers", "--runs", "simulated-*", "--results", results)
    assert status == 2
    assert errors.count("\n") == 1
    assert "train with trainer.record.layers=true" in errors
