"""The ledger says what the verdicts say."""

import re
from datetime import UTC, datetime

import pytest

from gbn.analysis.claims import judge, load_papers, markdown, of_experiment, terminal
from gbn.analysis.claims.ledger import OVERVIEW, overview
from gbn.studies.validation.simulate import Arm


@pytest.fixture
def ledger(world, claim):
    """One claim of each kind: (verdicts, papers)."""
    share = {"rule": "number", "quantity": "saving_to_maximum", "arm": "gbn_2", "controls": []}
    world.claims(
        claim(fixed=datetime(2026, 11, 25, 10, tzinfo=UTC)),
        claim(id="late", rule={"target": 0.8}, fixed=datetime(2026, 11, 25, 14, tzinfo=UTC)),
        claim(id="own", origin="ours", rule={"quantity": "area_difference", "target": None, "relevant": 0.01}),
        claim(
            share, ("target", "relevant"), id="saved", published={"low": 0.31, "high": 0.47, "unit": "share saved"}
        ),
        claim() | {"id": "vague", "verdict": {"rule": "none", "reason": "No margin is given."}},
        claim(
            {"arm": "gbn_2", "against": ["bn", "control"], "controls": []},
            id="waits", paper="other", waits_for="a GPU",
        ),
    )  # fmt: skip
    world.runs("small", bn=Arm(noise=0.0), gbn=Arm(speed=1.5, own_spread=0.05), control=Arm(own_spread=0.02),
        gbn_2=Arm(speed=1.6, noise=0.0, own_spread=0.03), date="2026-11-25T12:00:00+00:00")  # fmt: skip
    return world.judge(), load_papers(world.experiments)


def test_markdown_holds_every_claim_with_its_verdict(ledger):
    text = markdown(*ledger)
    for one in ledger[0]:
        assert f"#### {one.claim.id}\n" in text
        assert f"[{one.claim.id}](#{one.claim.id})" in text
        assert f"* **{one.word}**: " in text
    assert text.startswith("<!-- made by `python scripts/claims.py --source archive --write` -->\n# Claims")
    assert "6 claims: 5 supported (small), 1 underspecified." in text
    assert text.index("## A paper") < text.index("## Another")
    assert "  * `python scripts/reproduce.py experiments/sim --scale small`" in text


def test_the_overview_counts_each_claim_once(ledger):
    made = overview(*ledger)
    assert made.columns == ("paper", "claims", "supported (small)", "underspecified")
    assert [row[:2] for row in made.rows] == [
        ("A paper", "the paper's"),
        ("A paper", "ours"),
        ("Another", "the paper's"),
    ]
    numbers = [int(cell or 0) for row in made.rows for cell in row[2:]]
    assert sum(numbers) == len(ledger[0])
    text = markdown(*ledger)
    begin, end = (text.index(mark) for mark in OVERVIEW)
    assert text[begin:end].count("\n| A") == 3


def test_markdown_says_whether_the_rule_came_first(ledger):
    text = markdown(*ledger)
    assert "rule older than its runs? yes: fixed 2026-11-25 10:00 UTC, before the first run" in text
    assert "rule older than its runs? no: the rule was written after all 16 runs had begun" in text
    assert "rule older than its runs? unknown: the claim does not say when its rule was written" in text


def test_markdown_says_the_rule_in_words(ledger):
    text = markdown(*ledger)
    assert (
        "* Rule: Speed-up to 60 % in updates, gbn against bn: the interval lies above 1 (below 1.1 no effect "
        "counts); at least 8 pairs."
    ) in text
    assert "gbn_2 against bn and control: each interval lies above 1" in text
    assert "(below 1 points no effect counts)" in text
    assert "the interval overlaps what was published and excludes 0; at least 8 pairs." in text
    assert "* Rule: None: No margin is given." in text


def test_numbers_carry_their_unit_and_interval(ledger):
    text = terminal(*ledger)
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("| ")}
    verdicts = {one.claim.id: one for one in ledger[0]}
    ratio = verdicts["faster"].estimates["bn"]
    assert f"{ratio.value_low:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" in rows["faster"]
    share = verdicts["saved"].estimates["bn"]
    assert (
        f"{100 * share.value_low:+.0f} % saved [{100 * share.low:+.0f}, {100 * share.high:+.0f}]"
        in rows["saved"]
    )
    assert "31 to 47 % saved" in rows["saved"]
    assert "points" in rows["own"]
    assert "(ours)" in rows["own"]
    assert " against bn; " in rows["waits"]
    assert "vague" not in rows  # it has no number: the remarks name it


def test_the_terminal_fits_its_width(ledger):
    for width in (80, 120):
        lines = terminal(*ledger, width).splitlines()
        plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
        assert max(map(len, plain)) <= width
        assert any("[1." in line for line in plain), "an interval was taken for markup"
    assert "\x1b[" not in terminal(*ledger)


def test_the_terminal_says_that_a_rule_came_late(ledger):
    assert "so it is not a blind test" in terminal(*ledger)
    assert "so it is not a blind test" not in terminal([v for v in ledger[0] if v.blind], ledger[1])


def test_one_experiment_for_the_end_of_a_reproduction(world, ledger, monkeypatch):
    monkeypatch.setattr(judge, "_cells", lambda folder, *asked: world.load(*asked))
    text = of_experiment(world.experiments / "sim", world.results, "store")
    assert "supported (small)" in text
    (world.experiments / "bare").mkdir()
    assert of_experiment(world.experiments / "bare", world.results, "store") == ""
