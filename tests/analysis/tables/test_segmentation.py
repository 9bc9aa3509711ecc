"""What else a test set says: segmentation's measures of structures in a table."""

import dataclasses

import pytest

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.runs.load import load_grid_runs
from gbn.analysis.tables.sections import sections
from gbn.analysis.tables.segmentation import structures
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_files


def compared(grid, folder, records):
    write_files(records, folder)
    return Comparison(load_grid_runs(grid, folder))


def section_of(comparison):
    return structures(comparison.runs, comparison.figures.final, "")


def with_structures(record, seed):
    """Its last point as a segmentation leaves it; one arm finds no contour of the epicardium at seed 2."""
    *before, last = record.curve
    added = {
        "test_dice_cavity": 0.8 + seed / 100,
        "test_apd_px_cavity": 3.0 + seed,
        "test_good_contours_px_cavity": 0.9,
    }
    added["test_apd_px_epicardium"] = None if seed == 2 and "gbn" in record.run_id else 2.0
    return dataclasses.replace(record, curve=[*before, last | added])


@pytest.fixture
def grid():
    arms = {"bn": Arm(), "gbn": Arm(speed=2), "bad": Arm(diverges_at=50)}
    return SimulatedGrid(arms, range(3), measure="val_dice", thresholds=(0.6,))


def test_means_over_seeds_of_each_structure(grid, tmp_path):
    records = [with_structures(grid.record("", arm, seed), seed) for arm in grid.arms for seed in range(3)]
    comparison = compared(grid, tmp_path, records)
    section = section_of(comparison)
    assert section.columns == (
        "arm",
        "Dice of the cavity",
        "APD of the cavity (px)",
        "APD of the epicardium (px)",
        "good contours of the cavity, limit in px (%)",
    )
    rows = {row[0]: row[1:] for row in section.rows}
    assert rows["bn"] == ("0.810 ± 0.010", "4.00 ± 1.00", "2.00 ± 0.00", "90.00 ± 0.00")
    assert rows["gbn"][2] == "2.00 ± 0.00 (2 runs)"
    assert rows["bad"] == ("-",) * 4  # a run that diverged has no last value
    assert section in list(sections(comparison, ""))


def test_nothing_where_no_run_has_any_or_the_measure_has_no_structures(grid, tmp_path):
    assert section_of(compared(grid, tmp_path / "dice", grid.records())) is None
    classifiers = SimulatedGrid({"bn": Arm(), "gbn": Arm()}, range(2))
    assert section_of(compared(classifiers, tmp_path / "accuracy", classifiers.records())) is None
