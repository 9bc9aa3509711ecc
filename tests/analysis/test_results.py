"""An experiment's results in one call, and this machine beside the archive."""

import pytest

from gbn.analysis import NothingFound, compare_with_archive, load_grid_runs, write_results
from gbn.store import RunStore
from gbn.store.archive import Archive
from gbn.studies.validation.simulate import Machine, write_runs


def test_tables_and_figures_are_written_and_the_summary_returned(grid, results, tmp_path):
    text = write_results(grid, load_grid_runs(grid, results), tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert names == {
        *(f"tables/simulated.{suffix}" for suffix in ("md", "csv", "tex", "runs.txt")),
        *(f"figures/simulated-{unit}.{kind}" for unit in ("updates", "seconds") for kind in ("png", "pdf")),
    }
    assert "| gbn_fast" in text
    assert "greater than 1 means that the arm is faster" in text
    for name in names:
        assert name in text
    assert max(map(len, (line for line in text.splitlines() if line.startswith("|")))) < 120


def test_runs_of_another_grid_are_refused(grid, make_grid, results, tmp_path):
    with pytest.raises(ValueError, match="not of simulated at this scale"):
        write_results(make_grid(seeds=range(3)), load_grid_runs(grid, results), tmp_path)


def test_a_results_directory_will_do(grid, results):
    text = write_results(grid, results, figures=False)
    assert str(results / "scratch" / "tables" / "simulated.md") in text
    Archive(results).add(RunStore(results), "x")
    write_results(grid, results, source="archive", figures=False)
    assert (results / "tables" / "simulated.md").exists()
    with pytest.raises(NothingFound):
        write_results(grid, results / "elsewhere")
    with pytest.raises(ValueError, match="give a grid too"):
        write_results(None, results)
    with pytest.raises(ValueError, match="give out_dir"):
        write_results(grid, load_grid_runs(grid, results))


def test_the_archive_stands_beside_this_machine(grid, tmp_path):
    Archive(tmp_path).add(grid.records(), "x")
    write_runs([r for r in grid.records() if r.config["seed"] < 6], tmp_path)
    text = compare_with_archive(grid, tmp_path)
    assert "24 runs are on both sides, 24 of them equal in every number" in text
    row = next(line for line in text.splitlines() if line.startswith("| gbn_fast"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == ["6", "8"]
    assert cells[5] == "+0.00"
    assert cells[6].startswith("1.")
    assert cells[7].startswith("1.")


def test_other_numbers_are_seen_to_differ(grid, tmp_path):
    Archive(tmp_path).add(grid.records(Machine(device_kind="Simulated GPU")), "x")
    records = grid.records()
    for record in records:
        record.curve[3]["val_accuracy"] += 1e-6
        record.summary["final"]["test_accuracy"] += 0.01
    write_runs(records, tmp_path)
    text = compare_with_archive(grid, tmp_path)
    assert "32 runs are on both sides, 0 of them equal" in text
    assert "+1.00" in text
    assert "Here: Simulated CPU, torch 2.13.0, kernels reference. Archived: Simulated GPU" in text


def test_an_empty_archive_is_said(grid, results, tmp_path):
    assert compare_with_archive(grid, results).startswith(
        "No comparison with the archive: nothing found: not one finished run of simulated in the archive"
    )
    Archive(tmp_path / "other").add(RunStore(results), "x")
    assert "in the run store" in compare_with_archive(grid, tmp_path / "other")
