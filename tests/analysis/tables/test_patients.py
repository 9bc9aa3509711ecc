"""Segmentation patient by patient, from summaries."""

from dataclasses import replace

import pytest

from gbn.analysis.tables.segmentation import patient_frame, patient_sections
from gbn.studies.validation.simulate import Arm, SimulatedGrid

DICE = {"bn": {"a": 0.9, "b": 0.5}, "gbn": {"a": 0.8, "b": 0.6}}


def scored(record, arm, seed):
    """Scores of two patients and of all; the epicardium is 0.1 above the cavity, seed 1 of BN 0.2 above seed 0."""
    rows = []
    for structure, more in (("cavity", 0.0), ("epicardium", 0.1)):
        own = {name: value + more + 0.2 * (seed == 1 and arm == "bn") for name, value in DICE[arm].items()}
        own["all"] = sum(own.values()) / 2
        rows += [
            {"structure": structure, "patient": name, "slices": 4 + (name == "all") * 4, "dice": dice, "apd": 2.0,
             "good": 1.0, "missed": 0, "spurious": 0}
            for name, dice in own.items()
        ]  # fmt: skip
    return replace(record, summary={**record.summary, "patients": rows})


@pytest.fixture
def grid():
    return SimulatedGrid({"bn": Arm(), "gbn": Arm()}, range(2), measure="val_dice", thresholds=(0.6,))


def records(grid):
    return [scored(grid.record("", arm, seed), arm, seed) for arm in DICE for seed in range(2)]


def test_a_row_a_run_patient_and_structure(grid):
    frame = patient_frame(grid, records(grid))
    assert len(frame) == 2 * 2 * 2 * 3
    row = frame[
        (frame.arm == "gbn") & (frame.seed == 1) & (frame.patient == "b") & (frame.structure == "cavity")
    ]
    assert row.dice.tolist() == [0.6]
    twice = patient_frame(grid, [*records(grid), *grid.records()])  # the first record of a run counts
    assert twice.equals(frame)


def test_the_worst_patient_comes_first_and_the_mean_last(grid):
    (section,) = patient_sections(patient_frame(grid, records(grid)), "bn").values()
    assert section.columns == ("patient", "bn", "gbn")
    assert section.rows == (
        ("b", "0.650", "0.650 (1/2)"),
        ("a", "1.050", "0.850 (0/2)"),
        ("mean of all", "0.850", "0.750 (0/2)"),
    )
    assert section.notes[0].startswith("2 patients, 8 slices.")


def test_an_arm_without_its_reference_is_compared_with_none(grid):
    mine = [one for one in records(grid) if "gbn" in one.run_id.split("-")[2]]
    (section,) = patient_sections(patient_frame(grid, mine), "bn").values()
    assert section.rows[0] == ("b", "0.650")


def test_runs_without_scores_of_patients(grid):
    with pytest.raises(LookupError, match="train runs with task=segmentation"):
        patient_frame(grid, grid.records())
