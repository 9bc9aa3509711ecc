"""Claims of a measure of which lower is better, from the file to the ledger."""

import pytest

from gbn.analysis.claims import load_claims, load_papers, markdown, terminal, wording
from gbn.config.errors import ConfigError
from gbn.studies.validation.simulate import Arm

from .conftest import SWEEP

KID, FID = "kid_own_1a2b3c4d", "fid_inception"
BN = Arm(final=0.02)
BETTER = Arm(speed=1.5, final=0.012, own_spread=0.05)
GAN = SWEEP | {
    "measure": FID,
    "targets": [60],
    "scales": {"small": {"seeds": 8, "measure": KID, "targets": [0.06]}},
}


@pytest.fixture
def generators(world):
    """The world with a grid of FID, and a miniature of KID."""
    world.sweep(GAN)
    return world


SMALL = {"measure": KID, "start": 0.4, "thresholds": (0.06,)}


def last(**changes):
    return {
        "target": None,
        "quantity": "last_difference",
        "relevant": {"full": 2.0, "small": 0.002},
        "controls": [],
        **changes,
    }


def test_a_lower_value_is_an_improvement_and_a_target_is_reached_from_above(generators, claim):
    generators.claims(
        claim(id="lower", rule=last(), published={"value": -4.21, "unit": "FID"}),
        claim(id="faster", rule={"target": {"full": 60, "small": 0.06}, "controls": []}),
    )
    generators.runs(scale="small", grid=SMALL, bn=BN, gbn=BETTER)
    found = {one.claim.id: one for one in generators.judge()}
    lower, faster = found["lower"], found["faster"]
    assert (lower.word, faster.word) == ("supported (small)", "supported (small)")
    assert lower.estimates["bn"].high < 0
    assert "below 0" in lower.reason
    assert faster.estimates["bn"].value_low == pytest.approx(1.6, rel=0.15)
    text = markdown([*found.values()], load_papers(generators.experiments))
    assert "Difference of KID x 1000 (own network 1a2b3c4d) after the last epoch, gbn against bn" in text
    assert "the interval lies below 0 (smaller effects than 2 FID (full), 2 KID (small) do not count)" in text
    assert "Speed-up to FID 60 (full), KID 60 (small) in updates, gbn against bn" in text
    assert f"measured on {KID} (lower is better)" in text
    assert "| -4.21 FID |" in text.replace("  ", "")  # in its own unit, not in that of the miniature
    assert "points" not in text.split("## A paper")[1].split("#### ")[1]
    assert "supported (small)" in terminal([*found.values()], load_papers(generators.experiments))
    assert "KID x 1000" in wording.rule_in_words(lower)


def test_a_higher_value_is_the_other_way_round(generators, claim):
    generators.claims(claim(rule=last()))
    generators.runs(scale="small", grid=SMALL, bn=BETTER, gbn=BN)
    (verdict,) = generators.judge()
    assert verdict.word == "not supported (small)"
    assert verdict.reason.endswith("above 0: the opposite direction")


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ({"quantity": "best_val_difference"}, "allowed: area_difference, best_difference, last_difference"),
        ({"relevant": {"full": 2.0, "smal": 1.0}}, "unknown scale of the smallest effect"),
        ({"relevant": {"small": 1.0}}, "relevant has no entry for the scale full"),
        ({"relevant": {"full": 2.0, "small": 0.0}}, "relevant must lie above 0"),
    ],
)
def test_what_such_a_measure_has_not_is_refused(generators, claim, verdict, words):
    generators.claims(claim(rule=last(**verdict)))
    with pytest.raises(ConfigError, match=words):
        load_claims(generators.experiments)


def test_a_best_of_the_run_is_of_measures_without_a_test_set(world, claim):
    world.claims(claim(rule={"target": None, "quantity": "best_difference", "relevant": 0.01}))
    with pytest.raises(ConfigError, match="unknown quantity for the measure val_accuracy"):
        load_claims(world.experiments)
