"""The matrix of a factorial grid: each cell holds its own arm's difference; no matrix where there is none."""

import pytest

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.plots import matrix as matrix_plot
from gbn.analysis.runs.load import load_grid_runs
from gbn.plot_style import save
from gbn.studies.validation.simulate import Arm, write_runs

SPEEDS = {"mean+std": 1.0, "mean+mad": 1.2, "median+std": 0.6, "median+mad": 2.0}


def compared(grid, folder):
    write_runs(grid.records(), folder)
    return Comparison(load_grid_runs(grid, folder))


@pytest.fixture
def factorial(make_grid, tmp_path):
    arms = {"bn": Arm(), **{name: Arm(speed=speed) for name, speed in SPEEDS.items()}}
    return compared(make_grid(arms=arms, controls={}), tmp_path / "runs")


def test_each_cell_holds_its_arms_difference(factorial):
    figure = matrix_plot.draw(factorial, "")
    for axes, quantity in zip(figure.axes, ("area_difference", "last_difference"), strict=True):
        columns = [label.get_text() for label in axes.get_xticklabels()]
        rows = [label.get_text() for label in axes.get_yticklabels()]
        assert (rows, columns) == (["mean", "median"], ["std", "mad"])
        shown = axes.images[0].get_array()
        assert len(axes.texts) == len(SPEEDS)
        for text in axes.texts:
            column, row = text.get_position()
            arm = f"{rows[row]}+{columns[column]}"
            one = factorial.evidence.estimate("", quantity, arm, "bn")
            assert shown[row, column] == pytest.approx(100 * one.value_low)
            assert float(text.get_text().split("\n")[0]) == pytest.approx(100 * one.value_low, abs=0.051)
            assert (text.get_fontweight() == "bold") == (one.low > 0 or one.high < 0)
    areas = figure.axes[0].images[0].get_array()
    assert areas[1, 1] > areas[0, 1] > areas[0, 0] > areas[1, 0]


def test_files_and_what_was_not_drawn(factorial, make_grid, tmp_path):
    pictures, notes = matrix_plot.pictures(factorial)
    assert [picture.name for picture in pictures] == ["simulated-matrix"]
    assert all(path.stat().st_size > 1000 for path in save(pictures, tmp_path / "figures"))
    assert notes == []
    plain = compared(make_grid(), tmp_path / "plain")
    assert matrix_plot.pictures(plain) == ([], ["No matrix: no arms named row+column."])


def test_controls_are_no_cells(make_grid, tmp_path):
    arms = {
        "bn": Arm(),
        "a+b": Arm(),
        "a+c": Arm(),
        "d+b": Arm(),
        "bn_matched[a+b]": Arm(),
        "bn_reparam[a+b]": Arm(),
    }
    controls = {"a+b": ["bn_matched[a+b]", "bn_reparam[a+b]"]}
    comparison = compared(make_grid(arms=arms, controls=controls), tmp_path)
    assert set(matrix_plot.cells(comparison, "").values()) == {"a+b", "a+c", "d+b"}
    assert matrix_plot.draw(comparison, "") is not None  # a cell may be empty
