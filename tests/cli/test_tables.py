"""`gbn table`, `gbn plot convergence`, `gbn archive`: from the command line to files on disk."""

import re
import shutil
import subprocess
import sys

import pytest

from gbn.store import RunStore
from gbn.store.archive import Archive
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs

PAIR = {"quadrangle": "cvar", "alpha": 0.75}
ARMS = {
    "bn": Arm(),
    "gbn_cvar": Arm(speed=1.5, own_spread=0.03, norm=PAIR),
    "bn_matched": Arm(
        speed=1.2, own_spread=0.03, norm={**PAIR, "method": "bn_matched", "matched_to": "gbn_cvar"}
    ),
}
GRID = SimulatedGrid(ARMS, seeds=range(3))


@pytest.fixture
def results(tmp_path):
    write_runs(GRID.records(), tmp_path)
    return tmp_path


@pytest.fixture
def experiment(monkeypatch):
    """experiments/simulated, as if it stood beside the others."""

    def load_grid(path, scale=None):
        assert (path, scale) == ("experiments/simulated", None)
        return GRID

    monkeypatch.setattr("gbn.config.grid.load_grid", load_grid)
    return "experiments/simulated"


def test_runs_are_listed_from_store_and_archive(gbn, results):
    status, out, _ = gbn("runs", "--results", results)
    *lines, last = out.splitlines()
    assert status == 0
    assert last == f"{len(lines)} of {len(lines)} records"
    assert {line.split()[1] for line in lines} <= {"finished", "diverged"}
    run_id = lines[0].split()[0]
    status, out, _ = gbn("runs", run_id, "--results", results, "--source", "store", "--status", "finished")
    assert (status, out.splitlines()[-1]) == (0, f"1 of {len(lines)} records")
    gbn("archive", "--runs", run_id, "--results", results)
    assert gbn("runs", run_id, "--results", results)[1].count(run_id) == 2


class TestTable:
    def test_an_experiment_from_the_store_goes_to_scratch(self, gbn, results, experiment):
        status, out, _ = gbn("table", experiment, "--results", results, "--paper")
        assert status == 0
        assert "| gbn_cvar" in out
        assert "greater than 1 means that the arm is faster" in out
        assert {p.name for p in (results / "scratch" / "tables").iterdir()} == {
            f"simulated.{suffix}" for suffix in ("md", "csv", "tex", "runs.txt")
        }

    def test_only_what_the_archive_gives_goes_among_the_results(self, gbn, results, experiment):
        Archive(results).add(RunStore(results), "x")
        status, _, _ = gbn("table", experiment, "--results", results, "--source", "archive")
        assert status == 0
        assert (results / "tables" / "simulated.md").exists()
        assert not (results / "scratch").exists()

    def test_any_set_of_runs(self, gbn, results, tmp_path):
        status, out, _ = gbn(
            *("table", "--runs", "simulated-net-*", "--results", results, "--name", "mine"),
            *("--targets", "0.5", "--measure", "test_accuracy", "--first-hit", "--out", tmp_path / "out"),
        )
        assert status == 0
        text = (tmp_path / "out" / "tables" / "mine.md").read_text()
        assert "bn_matched_gbn_cvar_0.75" in text
        assert "updates to 50 %" in text
        assert (
            "Targets: first crossing by test_accuracy, the first point there, without interpolation." in text
        )
        assert "no grid fixed them in advance" in out

    def test_another_reference(self, gbn, results):
        status, out, _ = gbn("table", "--runs", "*", "--results", results, "--reference", "gbn_cvar_0.75")
        assert status == 0
        assert "reference `gbn_cvar_0.75`" in out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "give an experiment"),
            (["experiments/quick", "--runs", "x"], "exactly one"),
            (["--runs", "x", "--scale", "small"], "--scale belongs to an experiment"),
            (["experiments/quick", "--reference", "bn"], "--reference belongs to --runs"),
            (["experiments/quick", "--targets", "90"], "'90' is no accuracy between 0 and 1"),
            (["--runs", "*", "--measure", "loss"], "unknown measure 'loss' (did you mean 'val_loss'?)"),
            (["--runs", "cifar100-*"], "no run fits 'cifar100-*'"),
            (["experiments/quack"], "unknown experiment"),
        ],
    )
    def test_mistakes_are_one_line_and_status_2(self, gbn, results, arguments, message):
        status, _, err = gbn("table", *arguments, "--results", results)
        assert status == 2
        assert message in err
        assert "Traceback" not in err

    def test_nothing_found(self, gbn, tmp_path, experiment):
        status, _, err = gbn("table", experiment, "--results", tmp_path)
        assert status == 2
        assert err.startswith("error: nothing found: not one finished run of simulated in the run store")
        assert not list(tmp_path.iterdir())


class TestPlotConvergence:
    def test_figures_of_an_experiment(self, gbn, results, experiment):
        status, out, _ = gbn("plot convergence", experiment, "--results", results, "--paper")
        assert status == 0
        for unit in ("updates", "seconds"):
            for kind in ("png", "pdf"):
                path = results / "scratch" / "figures" / f"simulated-{unit}.{kind}"
                assert path.stat().st_size > 5000
                assert str(path) in out

    def test_any_set_of_runs(self, gbn, results, tmp_path):
        status, _, _ = gbn(
            "plot convergence", "--runs", "*bn-s0*", "--results", results, "--out", tmp_path / "o", "--linear"
        )
        assert status == 0
        written = sorted(path.name for path in (tmp_path / "o" / "figures").iterdir())
        assert written == ["runs-seconds.png", "runs-updates.png"]

    def test_nothing_found(self, gbn, tmp_path):
        status, _, err = gbn("plot convergence", "--runs", "*", "--results", tmp_path)
        assert (status, "no run fits" in err) == (2, True)


class TestArchive:
    def test_it_says_what_it_added(self, gbn, results, experiment):
        with RunStore(results).writer("unfinished-run") as writer:
            writer.append({"update": 1})
        (results / "runs" / GRID.cells[0].run_ids[2] / "summary.json").unlink()
        status, out, _ = gbn("archive", experiment, "--results", results)
        assert status == 0
        assert out.startswith("added 8 records in ")
        assert f"not packed, interrupted: {GRID.cells[0].run_ids[2]}" in out
        assert len(Archive(results)) == 8
        status, out, _ = gbn("archive", experiment, "--results", results)
        assert out.startswith("added 0 records\nknown already: 8; of 9 runs 0 are missing")

    def test_a_dry_run_writes_nothing(self, gbn, results):
        status, out, _ = gbn("archive", "--runs", "*", "--results", results, "--dry-run")
        assert status == 0
        assert out.startswith("would add 9 records\n")
        assert not (results / "archive").exists()

    def test_a_contradiction_is_refused_and_the_status_says_so(self, gbn, results, tmp_path):
        gbn("archive", "--runs", "*", "--results", results, "--label", "first")
        changed = GRID.records()
        changed[0].curve[3]["val_accuracy"] += 1e-9
        write_runs(changed, tmp_path / "again")
        shutil.copytree(results / "archive", tmp_path / "again" / "archive")
        status, out, _ = gbn("archive", "--runs", "*", "--results", tmp_path / "again")
        assert status == 1
        assert f"REFUSED {changed[0].run_id}: val_accuracy at update" in out
        assert "known already: 8" in out

    def test_a_damaged_run_is_refused_and_the_others_are_packed(self, gbn, results):
        ids = list(GRID.cells[0].run_ids.values())
        (results / "runs" / ids[0] / "metrics.jsonl").write_text("")
        (results / "runs" / ids[1] / "summary.json").write_text("")
        with open(results / "runs" / ids[2] / "config.yaml", "a") as file:
            file.write("seed: 9\n")
        (results / "runs" / GRID.cells[1].run_ids[0]).rename(results / "runs" / "copy")
        status, out, _ = gbn("archive", "--runs", "*", "--results", results)
        assert status == 1
        assert out.startswith("added 5 records in ")
        for run_id, file in zip(ids, ("metrics.jsonl", "summary.json", "config.yaml"), strict=True):
            assert re.search(rf"REFUSED {run_id}: .*/{file} (is damaged|was changed)", out)
        assert "REFUSED copy: " in out
        assert len(Archive(results)) == 5

    def test_check_needs_an_archive(self, gbn, results, tmp_path):
        (tmp_path / "bare" / "archive").mkdir(parents=True)
        for folder in (tmp_path / "nosuch", tmp_path / "bare", results):
            status, out, err = gbn("archive", "--check", "--results", folder)
            assert (status, out, err.count("\n")) == (2, "", 1)
            there = f"{folder}/archive holds no shard, so there is nothing to check"
            assert (there if folder.exists() else f"the folder '{folder}' does not exist") in err
        assert not (tmp_path / "nosuch").exists()

    def test_check_names_a_shard_that_was_changed(self, gbn, results):
        gbn("archive", "--runs", "*", "--results", results)
        (shard,) = Archive(results).shards()
        content = shard.read_bytes()
        shard.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
        status, out, err = gbn("archive", "--check", "--results", results)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert f"{shard.name} is not a readable shard" in err

    def test_retracting_needs_a_reason(self, gbn, results):
        gbn("archive", "--runs", "*", "--results", results)
        run_id = GRID.cells[0].run_ids[0]
        status, _, err = gbn("archive", "--retract", run_id, "--results", results)
        assert (status, "needs --reason" in err) == (2, True)
        status, out, _ = gbn("archive", "--retract", run_id, "--reason", "wrong split", "--results", results)
        assert status == 0
        assert out.startswith(f"retracted {run_id} of runs-")
        assert len(Archive(results)) == 8

    def test_check_finds_a_tampered_table(self, gbn, results, experiment):
        gbn("archive", experiment, "--results", results)
        gbn("table", experiment, "--results", results, "--source", "archive")
        status, out, _ = gbn("archive", "--check", "--results", results)
        assert status == 0
        assert out.startswith("9 records in 1 shards, no contradiction\n")
        assert "every table is what the archive gives" in out
        path = results / "tables" / "simulated.csv"
        path.write_text(path.read_text().replace("0.8,", "0.9,", 1))
        status, out, _ = gbn("archive", "--check", "--results", results)
        assert status == 1
        assert "- simulated.csv: differs from the archive" in out

    def test_nothing_to_pack(self, gbn, tmp_path, experiment):
        status, _, err = gbn("archive", experiment, "--results", tmp_path)
        assert (status, err.startswith("error: nothing found")) == (2, True)


#: What takes long to import and is no part of any table.
HEAVY = {"torch", "torchvision", "numba", "triton", "sympy", "scipy.stats", "sklearn", "wandb", "joblib"}
DRAWING = {"matplotlib", "PIL", "plotly"}
ANALYSIS = {"numpy", "pandas", "pyarrow", "hydra", "pydantic"}
REPORTING = """
import runpy, sys
sys.argv[0] = "gbn"
try:
    runpy.run_module("gbn", run_name="__main__")
finally:
    print("LOADED", *sys.modules)
"""


def loaded(root, name, *arguments):
    """A verb in a process of its own: (exit status, output, errors, all modules that it had loaded)."""
    command = [sys.executable, "-c", REPORTING, *name.split(), *map(str, arguments)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    out, _, modules = done.stdout.rpartition("LOADED ")
    return done.returncode, out, done.stderr, set(modules.split())


@pytest.mark.parametrize("name", ["table", "plot convergence", "archive"])
def test_help_loads_nothing(root, name):
    status, out, _, modules = loaded(root, name, "--help")
    assert status == 0
    assert f"gbn {name} experiments/quick" in out
    assert not modules & (HEAVY | DRAWING | ANALYSIS)


@pytest.mark.parametrize("name", ["table", "plot convergence"])
def test_an_experiment_without_runs_loads_nothing_to_train_or_draw_with(root, tmp_path, name):
    status, _, errors, modules = loaded(root, name, "experiments/quick", "--results", tmp_path)
    assert "nothing found: not one finished run of quick" in errors
    assert status == 2
    assert not modules & (HEAVY | DRAWING)


def test_a_table_loads_nothing_to_train_or_draw_with(root, results):
    status, out, errors, modules = loaded(root, "table", "--runs", "*", "--results", results)
    assert status == 0, errors
    assert "gbn_cvar" in out
    assert "pandas" in modules
    assert not modules & (HEAVY | DRAWING)
