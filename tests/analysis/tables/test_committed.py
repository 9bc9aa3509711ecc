"""Every committed table equals what the archive gives; and a table that does not is found."""

from pathlib import Path

import pytest

from gbn.analysis import differences, load_grid_runs, write_results
from gbn.analysis.runs.load import load_any
from gbn.config.grid import load_grid
from gbn.store.archive import Archive

ROOT = Path(__file__).resolve().parents[3]


def test_every_committed_table_equals_what_the_archive_gives(monkeypatch):
    monkeypatch.chdir(ROOT)  # the headers name experiments/<name>
    assert differences(ROOT / "results", load_grid) == []


@pytest.fixture
def published(grid, tmp_path):
    Archive(tmp_path).add(grid.records(), "experiments/simulated")
    write_results(grid, load_grid_runs(grid, tmp_path, "archive"), tmp_path, figures=False)
    return tmp_path


def check(results, grid):
    return differences(results, lambda experiment, scale: {"experiments/simulated": grid}[experiment])


def test_untouched_tables_pass(published, grid):
    assert len(list((published / "tables").iterdir())) == 4
    assert check(published, grid) == []


def test_no_tables_pass(grid, tmp_path):
    assert check(tmp_path, grid) == []


@pytest.mark.parametrize("suffix", [".md", ".csv", ".tex", ".runs.txt"])
def test_one_changed_digit_is_found(published, grid, suffix):
    path = published / "tables" / f"simulated{suffix}"
    text = path.read_text()
    place = max(text.rfind(digit) for digit in "0123456789")
    tampered = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
    path.write_text(tampered)
    (found,) = check(published, grid)
    assert found.startswith(f"simulated{suffix}: differs from the archive:")
    assert tampered.splitlines()[text[:place].count("\n")] in found


def test_an_archive_that_grew_makes_old_tables_differ(published, make_grid):
    grown = make_grid(seeds=range(9))
    Archive(published).add([r for r in grown.records() if r.config["seed"] == 8], "experiments/simulated")
    assert len(check(published, grown)) == 4


def test_a_lost_record_is_found(published, grid):
    Archive(published).retract(grid.cells[0].run_ids[0], "it was wrong")
    assert any("differs from the archive" in found for found in check(published, grid))


def test_a_lost_archive_is_found(published, grid):
    for shard in (published / "archive").iterdir():
        shard.unlink()
    assert all("cannot be made again: nothing found" in found for found in check(published, grid))


def test_a_table_of_the_store_is_not_to_be_committed(published, grid):
    path = published / "tables" / "simulated.md"
    path.write_text(path.read_text().replace('"source": "archive"', '"source": "store"', 1))
    assert any("commit only tables of --source archive" in found for found in check(published, grid))


def test_a_missing_format_is_found(published, grid):
    (published / "tables" / "simulated.tex").unlink()
    assert "simulated.md: its companion simulated.tex is missing" in check(published, grid)


@pytest.mark.parametrize("name", ["typed.md", "notes.txt"])
def test_a_table_typed_by_hand_is_found(published, grid, name):
    (published / "tables" / name).write_text("| arm | speed-up |\n|---|---|\n| gbn | 9.99 |\n")
    (found,) = check(published, grid)
    assert found.startswith(f"{name}: no table of ours")


def test_an_unknown_experiment_is_found(published):
    def unknown(experiment, scale):
        raise ValueError(f"unknown experiment {experiment}")

    assert all("unknown experiment" in found for found in differences(published, unknown))


def test_tables_of_any_set_of_runs_are_made_again_too(published, grid):
    pattern = grid.cells[0].run_ids[0].rsplit("-", 2)[0] + "*"
    write_results(None, load_any([pattern], published, "archive", name="mine"), published, figures=False)
    assert (published / "tables" / "mine.md").exists()
    assert check(published, grid) == []
