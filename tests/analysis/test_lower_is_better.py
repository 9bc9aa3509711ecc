"""A grid of generators, measured by KID, from the runs to tables, figures and the terminal."""

import json

import pytest

from gbn.analysis.comparison.comparison import Comparison, Options
from gbn.analysis.looks import looks_of
from gbn.analysis.plots import convergence as plots
from gbn.analysis.plots import matrix as matrix_plot
from gbn.analysis.profiles.tasks import tasks_of
from gbn.analysis.report.answer import answers
from gbn.analysis.report.charts import payload
from gbn.analysis.report.forest import panels
from gbn.analysis.results import compare_with_archive, summary_text
from gbn.analysis.runs.load import load_any, load_grid_runs
from gbn.analysis.runs.plan import plan_of_grid
from gbn.analysis.tables import formats as tables
from gbn.store import RunStore
from gbn.store.archive import Archive
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_files
from gbn.sweep.watch.snapshot import Watch
from gbn.sweep.watch.view import render

KID = "kid_own_1a2b3c4d"
BN = Arm(final=0.02, noise=0.0005, own_spread=0.03)
ARMS = {
    "bn": BN,
    "mixture": Arm(speed=1.6, final=0.015, noise=0.0005, own_spread=0.03, norm={"method": "mixture"}),
    "bn_matched[mixture]": BN,
    "bn_reparam[mixture]": BN,
    "bad": Arm(final=0.02, diverges_at=100),
}
CONTROLS = {"mixture": ("bn_matched[mixture]", "bn_reparam[mixture]")}


@pytest.fixture(scope="module")
def grid():
    return SimulatedGrid(
        ARMS, range(4), measure=KID, start=0.4, thresholds=(0.05, 0.1), controls=CONTROLS, name="gan"
    )


@pytest.fixture(scope="module")
def folder(grid, tmp_path_factory):
    made = tmp_path_factory.mktemp("generators")
    write_files(grid.records(), made)
    return made


@pytest.fixture(scope="module")
def comparison(grid, folder):
    return Comparison(load_grid_runs(grid, folder))


@pytest.fixture(scope="module")
def text(comparison):
    return tables.markdown(comparison)


def test_the_table_says_unit_direction_and_network(text):
    assert "KID x 1000 (own network 1a2b3c4d): mean ± standard deviation over seeds" in text
    assert "differences, arm - reference; below 0 the arm is better" in text
    assert (
        f"Targets: first at or below the target by {KID} (KID x 1000, own network 1a2b3c4d, lower is" in text
    )
    assert f"{KID} is computed from the features of our own network 1a2b3c4d: it cannot be compared" in text
    assert "Updates to a fixed KID (KID x 1000, own network 1a2b3c4d, lower is better): medians" in text
    assert "Updates to the minimum of bn at the same seed (Mixture Normalization's metric)" in text
    assert "mixes final KID with speed" in text
    assert "own (mixture)" in text
    assert "Only what a mixture shows beyond bn_reparam comes from its components." in text


def test_it_speaks_of_no_accuracy_and_no_test_set(text, comparison):
    for word in (
        "accurac",
        "test set",
        "best by validation",
        "in points",
        "(points)",
        " %|",
        "deviation measure",
    ):
        assert word not in text
    assert "accurac" not in tables.latex(comparison)


def test_targets_stand_from_the_easiest_to_the_hardest(text):
    line = next(line for line in text.splitlines() if line.startswith("| arm") and "updates to KID" in line)
    assert line.index("updates to KID 100") < line.index("updates to KID 50")


def test_a_better_arm_has_a_speedup_above_1_and_differences_below_0(comparison):
    speed = comparison.evidence.estimate("", "speedup_to_target", "mixture", "bn", "updates", 0.05)
    assert speed.low > 1
    for quantity in ("last_difference", "area_difference"):
        assert comparison.evidence.estimate("", quantity, "mixture", "bn").high < 0
    never = comparison.figures.estimate("", "time_to_target", "bad", "updates", 0.05)
    assert never.arm_misses == 4


def test_the_terminals_summary_is_in_the_measures_unit(comparison):
    lines = summary_text(comparison).splitlines()
    head = next(line for line in lines if line.startswith("| arm"))
    assert "| KID x 1000 " in head
    assert "| - bn " in head
    assert "speed-up to KID 50" in head
    assert next(line for line in lines if line.startswith("| mixture")).count("-") >= 1


def test_the_figure_has_the_measure_on_a_logarithmic_axis_and_no_panel_of_a_loss(comparison):
    figure = plots.draw(comparison, "", "updates")
    value, difference = figure.axes[:2]
    assert len(figure.axes) == 2 * len(plots.rows_of(comparison.runs, ""))
    assert value.get_ylabel() == "KID x 1000"
    assert value.get_yscale() == "log"
    assert value.yaxis.get_major_formatter()(0.05, 0) == "50"
    assert difference.get_ylabel() == "KID - bn"
    assert difference.yaxis.get_major_formatter()(-0.002, 0) == "-2"
    caption = " ".join(figure.texts[-1].get_text().split())
    assert "Lower is better: below 0 the arm is better. Features: own network 1a2b3c4d." in caption
    assert caption.endswith("Horizontal axes are logarithmic, as is KID.")


def test_a_split_measure_keeps_its_loss_where_runs_have_one(tmp_path):
    grid = SimulatedGrid({"bn": Arm(), "gbn": Arm(speed=2)}, range(2), measure="val_dice", thresholds=(0.6,))
    records = grid.records()
    for record in records:
        for point in record.curve:
            point["val_loss"] = 1 - point["val_dice"]
    write_files(records, tmp_path)
    comparison = Comparison(load_grid_runs(grid, tmp_path))
    labels = [axes.get_ylabel() for axes in plots.draw(comparison, "", "updates").axes]
    assert labels == ["validation Dice", "validation loss", "Dice - bn"]
    assert plots.draw(comparison, "", "updates").axes[0].get_yscale() == "linear"
    text = tables.markdown(comparison)
    assert "Test Dice: mean ± standard deviation over seeds; differences, arm - reference; above 0" in text
    assert "updates to Dice 0.6" in text


def test_a_matrix_is_blue_where_the_measure_is_better(tmp_path):
    names = ("a+c", "a+d", "b+c", "b+d")
    arms = {"bn": Arm(final=0.02)} | {name: Arm(speed=2, final=0.02) for name in names}
    grid = SimulatedGrid(arms, range(2), measure=KID, start=0.4)
    write_files(grid.records(), tmp_path)
    figure = matrix_plot.draw(Comparison(load_grid_runs(grid, tmp_path)), "")
    assert figure.axes[0].images[0].get_cmap().name == "RdBu_r"
    assert figure.axes[0].get_title() == "area under the curve: arm - bn"
    assert "Blue is better: lower is better." in figure.texts[-1].get_text()


def test_any_set_of_generators_is_compared_by_what_it_has(folder):
    runs = load_any(["*"], folder)
    assert runs.plan.measure == KID
    assert runs.plan.targets[""] == tuple(sorted(runs.plan.targets[""], reverse=True))
    assert "(the lowest that every run of the reference reached)" in runs.notes[-1]
    assert runs.plan.controls == {}  # the simulated controls are matched to nothing
    by_hand = load_any(["*"], folder, targets=[0.1, 0.2])
    assert by_hand.plan.targets[""] == (0.2, 0.1)
    with pytest.raises(ValueError, match="'-1' is no target"):
        load_any(["*"], folder, targets=[-1])


def test_targets_by_hand_are_values_of_the_measure_asked_for(grid, folder):
    runs = load_grid_runs(grid, folder, targets=[0.3])
    assert Comparison(runs).times.targets("") == (0.3,)
    with pytest.raises(ValueError, match="unknown measure"):
        Comparison(load_grid_runs(grid, folder), Options("kid"))


def test_a_committed_table_can_be_made_again(grid, folder, tmp_path):
    from gbn.analysis.tables.committed import differences

    Archive(tmp_path).add(RunStore(folder), "x")
    tables.write(Comparison(load_grid_runs(grid, tmp_path, "archive")), tmp_path / "tables")
    assert (
        json.loads((tmp_path / "tables" / "gan.md").read_text().split("gbn-table ")[1].split(" -->")[0])[
            "measure"
        ]
        == KID
    )
    assert differences(tmp_path, lambda experiment, scale: grid) == []


def test_this_machine_stands_beside_the_archive_in_the_measures_unit(grid, folder):
    Archive(folder).add(RunStore(folder), "x")
    text = compare_with_archive(grid, folder)
    assert "KID x 1000 (own network 1a2b3c4d)" in text
    assert "speed-up to KID 50" in text
    assert "+0.00" in text


def test_the_report_knows_how_each_measure_is_written(comparison):
    looks = looks_of(comparison.runs.arms(""), "bn", CONTROLS)
    data = payload(comparison, looks)
    assert data["measure"] == KID
    (measure,) = data["measures"]
    assert (measure["key"], measure["scale"], measure["lower"], measure["loss"]) == (KID, 1000.0, True, False)
    assert measure["name"] == "KID x 1000 (own network 1a2b3c4d), running statistics"
    (setting,) = data["settings"]
    assert setting["targets"] == [0.1, 0.05]
    assert list(setting["survivals"]["updates"]) == ["KID 100", "KID 50"]
    assert set(setting["differences"]["updates"]) == {KID}
    (said,) = answers(comparison)
    assert said.text.startswith("To KID 50, speed-up over bn in updates")
    assert [panel.title for panel in panels(comparison, "")] == ["KID 100", "KID 50"]


def test_tasks_of_a_profile_are_named_by_the_measure(comparison):
    assert tasks_of([comparison.times]).names == ["gan to KID 100", "gan to KID 50"]


def test_the_watch_view_shows_it_and_a_diverged_run_is_the_worst(grid, folder):
    from io import StringIO

    from rich.console import Console

    snapshot = Watch(folder, plan_of_grid(grid)).look()
    console = Console(file=StringIO(), width=160)
    console.print(render(snapshot))
    shown = console.file.getvalue()
    assert f"Medians of {KID} x 1000 (lower is better)" in shown
    assert "diverged (4)" in shown
    final = next(arm.final for arm in snapshot.arms if arm.arm == "mixture")
    assert f"{1000 * final.value:.2f} (4)" in shown
    with pytest.raises(ValueError, match="did you mean 'val_loss'"):
        Watch(folder, plan_of_grid(grid), measure="loss")
