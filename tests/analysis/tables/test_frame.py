"""The long frame behind a table's .csv: every figure once, with what is known of it."""

import math

import pytest

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.runs.load import load_grid_runs
from gbn.analysis.tables.frame import frame


@pytest.fixture
def comparison(grid, results):
    return Comparison(load_grid_runs(grid, results))


def test_it_holds_every_figure_once_with_its_evidence(comparison):
    table = frame(comparison)
    figures = table[~table.quantity.str.startswith("effect")]  # those are chains of figures
    assert len(figures) == len(comparison.figures.of_arms) + len(comparison.evidence.contrasts)
    speedups = table[table.quantity == "speedup_to_target"]
    row = speedups[(speedups.arm == "gbn_fast") & (speedups.against == "bn")].iloc[0]
    assert row.n == 8
    assert row.smallest_ratio_told_from_1 == pytest.approx(row.interval_high / row.value_high)
    assert row.verdict == "faster"
    assert row.p <= row.p_holm < 0.05
    assert row.holm_low <= row.interval_low <= row.percentile_low <= row.value_low
    assert row.p_sign_flip == pytest.approx(2 / 2**8)
    assert math.isnan(row.seeds_to_decide)


def test_what_tests_nothing_has_no_evidence(comparison):
    table = frame(comparison)
    for rows in (table[table.arm == "A/A"], table[table.quantity == "last"]):
        assert len(rows)
        assert rows[["p", "p_holm", "holm_level", "p_sign_flip", "bca_low"]].isna().all().all()
        assert rows.verdict.isna().all()
