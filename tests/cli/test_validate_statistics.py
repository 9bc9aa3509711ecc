"""`gbn study statistics`: what it calls a failure, and that the committed study is whole."""

import csv
import math

import pytest

from gbn.studies.validation import report
from gbn.studies.validation.validation import Finding


def finding(quantity, value, n=5, repetitions=4000, noise="normal", study="uncensored", promised=math.nan):
    return Finding(study, noise, 1.0, n, quantity, value, repetitions, promised)


@pytest.mark.parametrize(
    ("quantity", "value", "why"),
    [
        ("coverage, paired t", 0.95, None),
        ("coverage, paired t", 0.925, None),  # within the Monte Carlo error of 93 %
        ("coverage, paired t", 0.90, "Errs"),
        ("coverage, primary", 0.995, "Wider"),
        ("coverage, bootstrap BCa", 0.83, None),  # sensitivity: shown, not promised
        ("false positives, paired t", 0.05, None),
        ("false positives, paired t", 0.08, "Errs"),
        ("any false positive, alone", 0.28, None),  # what Holm is for
        ("any false positive, after Holm", 0.08, "Errs"),
        ("power, paired t", 0.2, None),
    ],
)
def test_what_counts_as_a_failure(quantity, value, why):
    found = report.failure(finding(quantity, value))
    assert found is None if why is None else found.startswith(why)


def test_failures_are_said_first():
    findings = [finding("coverage, paired t", 0.88, n=n, noise="skewed") for n in (5, 10)]
    text = report.markdown([*findings, finding("coverage, paired t", 0.95)], "made by hand")
    assert (
        "- coverage, paired t; skewed: 88.0 % (5 pairs, speed-up 1), 88.0 % (10 pairs, speed-up 1)." in text
    )
    assert text.index("Errs more often than it says") < text.index("| normal")
    assert "88.0 % (!)" in text
    assert "95.0 % (!)" not in text
    whole = report.markdown([finding("coverage, paired t", 0.95)], "made by hand")
    assert whole.count("- Nothing.") == 2


def test_power_stands_beside_what_was_promised():
    text = report.markdown([finding("power at seeds_needed", 0.81, study="power", promised=0.8)], "x")
    assert "81.0 % (promised 80.0 %)" in text


@pytest.mark.slow
def test_it_runs_from_simulation_to_files(gbn, tmp_path):
    status, _, errors = gbn("study statistics", "--repetitions", 10, "--out", tmp_path)
    assert (status, errors) == (0, "")
    text = (tmp_path / "statistics.md").read_text()
    assert all(heading in text for heading in report.HEADINGS.values())
    lines = [
        line for line in (tmp_path / "statistics.csv").read_text().splitlines() if not line.startswith("#")
    ]
    rows = list(csv.DictReader(lines))
    assert {row["study"] for row in rows} == set(report.HEADINGS)
    assert all(0 <= float(row["value"]) <= 1 for row in rows if "estimated" not in row["quantity"])


def test_the_committed_study_is_the_one_that_its_header_says(root):
    folder = root / "results" / "validation"
    text = (folder / "statistics.csv").read_text().splitlines()
    assert "--repetitions 4000 --seed 0" in text[0]
    assert "with changes" not in text[0]  # from a commit, so that it can be made again
    findings = [
        Finding(
            row["study"], row["noise"], float(row["speedup"]), int(row["pairs"]), row["quantity"],
            float(row["value"]), int(row["repetitions"]), float(row["promised"]),
        )
        for row in csv.DictReader(text[1:])
    ]  # fmt: skip
    # The numbers of the .csv make the .md (they have six digits, it shows three).
    assert report.markdown(findings, text[0].removeprefix("# ")) == (folder / "statistics.md").read_text()
    primary = [
        f
        for f in findings
        if f.quantity == "coverage, paired t" and f.noise.startswith(("normal", "two exponentials"))
    ]
    assert len(primary) == 12
    assert all(report.failure(one) is None for one in primary)
