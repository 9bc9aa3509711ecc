"""An arm looks the same in every row of a figure, in every figure of an experiment, and in the report."""

import pytest

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.looks import looks_of, looks_of_plan
from gbn.analysis.plots import convergence, layers, rates, sensitivity
from gbn.analysis.report.charts import payload
from gbn.analysis.runs.activations import layer_frame
from gbn.analysis.runs.load import load_grid_runs
from gbn.config.grid import load_grid
from gbn.studies.gradient_variance import table as gradient_variance
from gbn.studies.validation.simulate import Arm, write_runs
from tests.analysis.conftest import write_recordings
from tests.cli.calling import ROOT

#: Two families that share a control, and more arms than a row or the hues hold.
CONTROLS = {"a": ["shared", "own[a]"], "b": ["shared", "own[b]"]}
ARMS = ("bn", "a", "b", "shared", "own[a]", "own[b]", *(f"gbn_{place}" for place in range(8)))


@pytest.fixture
def comparison(make_grid, tmp_path):
    arms = {name: Arm(speed=1 + place / 20) for place, name in enumerate(ARMS)}
    grid = make_grid(arms=arms, controls=CONTROLS, seeds=range(3))
    write_runs(grid.records(), tmp_path)
    write_recordings(grid, tmp_path, ARMS[:6])
    return Comparison(load_grid_runs(grid, tmp_path))


def colors(figure):
    """(row, label) -> colors of the lines with this label."""
    found = {}
    for place, axes in enumerate(figure.axes):
        for line in axes.get_lines():
            if not line.get_label().startswith("_"):
                found.setdefault((place, line.get_label()), set()).add(line.get_color())
    return found


def test_an_arm_has_one_color_in_every_row_and_figure_and_in_the_report(comparison):
    looks = looks_of_plan(comparison.runs.plan)
    assert len({(look.light, look.dash, look.marker) for look in looks.values()}) == len(ARMS)
    drawn = [
        convergence.draw(comparison, "", "updates"),
        convergence.draw(comparison, "", "seconds"),
        sensitivity.draw(comparison, "", "updates"),
    ]
    recorded = layers.pictures(layer_frame(comparison.runs), comparison)[0]
    assert len(recorded) == 2  # a figure per family
    for figure in (picture.figure for picture in recorded):
        for (_, label), used in colors(figure).items():
            own = {looks["own[a]"].light, looks["own[b]"].light}
            assert used < own if label == "own" else used == {looks[label].light}, label
    shared = 0
    for figure in drawn:
        found = colors(figure)
        for (_, label), used in found.items():
            if label != "own":  # the short name of two arms, each in its own row
                assert used == {looks[label].light}, label
        shared += len([label for _, label in found if label == "shared"])
        for place, arm in enumerate(("a", "b")):
            rows = [used for (row, label), used in found.items() if label == "own"]
            assert {looks[f"own[{arm}]"].light} in rows, (place, arm)
    assert shared > 2  # it stands in rows of both its arms
    for arm in payload(comparison, looks)["arms"]:
        assert (arm["light"], arm["dash"]) == (looks[arm["name"]].light, looks[arm["name"]].dash)


def test_rates_have_the_looks_of_the_other_figures():
    runs = load_grid_runs(
        load_grid(ROOT / "experiments" / "learning_rate", "small"), ROOT / "results", "archive"
    )
    looks = looks_of_plan(runs.plan)
    (picture,) = rates.pictures(Comparison(runs))
    found = colors(picture.figure)
    assert {label for _, label in found} == set(looks)
    assert all(used == {looks[label].light} for (_, label), used in found.items())


def test_the_study_of_gradients_has_the_looks_of_its_experiment():
    """It knows no plan: all arms of the experiment, in its order, and none of them a control."""
    (path,) = (ROOT / "results" / "gradient_variance").glob("*.csv")
    measured = gradient_variance.read(path)
    runs = load_grid_runs(
        load_grid(ROOT / "experiments" / "quantile_gradient", "small"), ROOT / "results", "archive"
    )
    assert looks_of(measured.arms, measured.header["baseline"], {}) == {
        arm: look for arm, look in looks_of_plan(runs.plan).items() if arm in measured.arms
    }
