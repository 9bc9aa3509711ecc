"""`gbn report`: from the command line to one file."""

import pytest

from gbn.store import RunStore
from gbn.store.archive import Archive
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs

GRID = SimulatedGrid({"bn": Arm(), "gbn": Arm(speed=1.5)}, seeds=range(2))


@pytest.fixture
def results(tmp_path):
    write_runs(GRID.records(), tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A folder experiments/simulated with a protocol."""
    folder = tmp_path / "experiments" / "simulated"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# simulated\n\n**Question.** Which is faster?\n\nProtocol text.\n")
    monkeypatch.setattr("gbn.config.grid.load_grid", lambda path, scale=None: GRID)
    return folder


def test_an_experiment_from_the_store_goes_to_scratch(gbn, results, experiment):
    status, out, _ = gbn("report", experiment, "--results", results)
    assert status == 0
    path = results / "scratch" / "reports" / "simulated.html"
    assert str(path) in out
    text = path.read_text(encoding="utf-8")
    assert '<p class="question">Which is faster?</p>' in text
    assert "Protocol text." in text


def test_an_archived_one_goes_beside_the_tables(gbn, results, experiment):
    Archive(results).add(RunStore(results), "x")
    status, _, _ = gbn("report", experiment, "--results", results, "--source", "archive")
    assert status == 0
    assert (results / "reports" / "simulated.html").exists()


def test_any_runs_into_any_file(gbn, results, tmp_path):
    out = tmp_path / "some" / "report.html"
    status, _, _ = gbn(
        "report", "--runs", "simulated-*", "--results", results, "--targets", 0.5, "--out", out
    )
    assert status == 0
    assert "--targets 0.5" in out.read_text(encoding="utf-8")


def test_refused_claims_are_said_and_the_rest_is_there(gbn, results, experiment):
    (experiment.parent / "papers.yaml").write_text("{}")
    (experiment / "claims.yaml").write_text("claims: [{id: x}]")
    status, _, _ = gbn("report", experiment, "--results", results)
    assert status == 0
    text = (results / "scratch" / "reports" / "simulated.html").read_text(encoding="utf-8")
    assert "The claims of this experiment could not be read" in text


def test_nothing_found_is_one_line(gbn, results):
    status, _, err = gbn("report", "--runs", "cifar-*", "--results", results)
    assert status == 2
    assert err.startswith("error: no run fits")
    assert err.count("\n") == 1
