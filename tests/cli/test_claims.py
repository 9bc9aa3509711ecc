"""`gbn claims`, and the committed ledger."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from gbn.analysis.claims import load_claims, load_papers, markdown, verdicts
from gbn.cli.claims import stamped

ROOT = Path(__file__).resolve().parents[2]
CLAIM = {
    "id": "theirs-faster",
    "origin": "published",
    "paper": "theirs",
    "wording": "It is faster.",
    "source": {"url": "https://example.org", "read": "abstract"},
    "published": "not available",
    "conditions": "Ours.",
    "waits_for": "norm=theirs",
    "verdict": {
        "rule": "direction",
        "quantity": "area_difference",
        "arm": "theirs",
        "against": ["bn"],
        "pairs": 5,
        "relevant": 0.01,
    },
}
PAPERS = {"theirs": {"title": "A paper", "authors": "A", "venue": "V", "url": "https://example.org"}}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "experiments"
    (made / "later").mkdir(parents=True)
    (made / "papers.yaml").write_text(yaml.safe_dump(PAPERS))
    (made / "later" / "claims.yaml").write_text(yaml.safe_dump({"claims": [CLAIM]}, sort_keys=False))
    return made


def test_it_prints_the_ledger(gbn, folder, tmp_path):
    status, out, _ = gbn("claims", "--folder", folder, "--results", tmp_path)
    assert status == 0
    assert "A paper (V)" in out
    assert "- theirs-faster: not run: waits for norm=theirs" in out
    assert out.endswith("1 not run.\n")
    assert not (tmp_path / "CLAIMS.md").exists()


def test_it_writes_the_ledger(gbn, folder, tmp_path):
    assert gbn("claims", "--folder", folder, "--results", tmp_path, "--write")[0] == 0
    assert "**not run**: waits for norm=theirs." in (tmp_path / "CLAIMS.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--write", "--source", "store"], "--write makes the whole ledger from the archive"),
        (["--write", "--experiment", "later"], "--write makes the whole ledger"),
        (["--experiment", "latr"], "did you mean 'later'?"),
        (["--source", "disk"], "invalid choice"),
    ],
)
def test_mistakes_are_one_line_and_status_2(gbn, folder, tmp_path, arguments, message):
    status, _, err = gbn("claims", "--folder", folder, "--results", tmp_path, *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


def test_without_a_history_dates_cannot_be_checked(gbn, folder, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    status, _, err = gbn("claims", "--folder", folder, "--check-dates")
    assert status == 2
    assert err.startswith("error: ")


class TestStamp:
    TEXT = (
        "claims:\n  - id: a  # first\n    wording: x\n    verdict: {rule: none}\n"
        "  - id: b\n    fixed: 2026-11-25\n    verdict: {rule: none}\n"
    )
    MOMENT = datetime(2026, 11, 25, 17, 5, 9, tzinfo=UTC)

    def test_a_date_is_added_above_the_rule(self):
        text = stamped(self.TEXT, "a", self.MOMENT)
        assert text == self.TEXT.replace("    verdict", "    fixed: 2026-11-25T17:05:09Z\n    verdict", 1)

    def test_a_date_is_replaced_and_nothing_else(self):
        assert stamped(self.TEXT, "b", self.MOMENT) == self.TEXT.replace("11-25\n", "11-25T17:05:09Z\n")

    def test_every_claim_of_the_repository_can_be_stamped(self):
        for claim in load_claims(ROOT / "experiments"):
            text = (ROOT / "experiments" / claim.experiment / "claims.yaml").read_text()
            rows = yaml.safe_load(stamped(text, claim.id, self.MOMENT))["claims"]
            before = yaml.safe_load(text)["claims"]
            for row, old in zip(rows, before, strict=True):
                fixed = row.pop("fixed", None), old.pop("fixed", None)
                assert row == old
                assert fixed[0] == (self.MOMENT if row["id"] == claim.id else fixed[1])

    def test_a_claim_written_otherwise_is_left_to_people(self):
        with pytest.raises(ValueError, match="by hand"):
            stamped("claims: [{id: a}]\n", "a", self.MOMENT)


@pytest.mark.slow
def test_the_committed_ledger_is_what_the_archive_gives():
    made = markdown(
        verdicts(ROOT / "results", "archive", None, ROOT / "experiments"), load_papers(ROOT / "experiments")
    )
    assert made == (ROOT / "results" / "CLAIMS.md").read_text(), (
        "results/CLAIMS.md is stale: run gbn claims --write"
    )
