"""What intervals mean under a rule, to the exact boundary."""

import math

import pytest

from gbn.analysis.claims.rules import decide, word
from gbn.analysis.claims.schema import Published, Rule
from gbn.analysis.estimates.estimate import Estimate

RATIO = Rule(
    rule="direction", quantity="speedup_to_target", target=0.6, arm="a", against=["bn"], pairs=5, relevant=1.1
)
SHARE = Rule(rule="number", quantity="saving_to_maximum", arm="a", against=["bn"], pairs=5)
DIFFERENCE = Rule(
    rule="direction", quantity="last_difference", arm="a", against=["bn"], pairs=5, relevant=0.01
)
RANGE = Published(low=0.31, high=0.47, unit="share")
ABOVE = math.nextafter(1.0, 2.0)


def estimate(low, high, n=5):
    return Estimate(low, high, low, high, n, "paired t")


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (1.2, 1.5, "holds"),
        (ABOVE, 1.05, "holds"),  # above the null is above the null, however little
        (1.0, 1.5, "open"),  # touching is not beyond
        (0.5, 0.9, "fails"),
        (0.9, 1.0, "fails"),  # ends below relevant
        (0.99, 1.09, "fails"),
        (0.9, 1.1, "open"),  # ends at relevant, not below
        (0.9, 1.3, "open"),
        (math.nan, math.nan, "open"),
        (1.2, math.nan, "open"),
        (0.0, 0.0, "fails"),  # never reached
        (1.3, math.inf, "holds"),
        (0.0, math.inf, "open"),
    ],
)
def test_a_direction_of_a_ratio(low, high, outcome):
    assert decide(RATIO, None, {"bn": estimate(low, high)})[0] == outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.001, 0.02, "holds"),
        (0.0, 0.02, "open"),
        (-0.02, 0.009, "fails"),
        (-0.02, 0.01, "open"),
        (-2, -1, "fails"),
    ],
)
def test_a_direction_of_a_difference(low, high, outcome):
    assert decide(DIFFERENCE, None, {"bn": estimate(low, high)})[0] == outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.2, 0.4, "holds"),
        (0.47, 0.6, "holds"),  # touching the range is overlapping it
        (0.48, 0.6, "fails"),
        (0.1, 0.31, "holds"),
        (0.1, 0.30, "fails"),
        (-0.2, 0.4, "open"),
        (0.0, 0.4, "open"),
        (-math.inf, 0.4, "open"),
        (-math.inf, -0.1, "fails"),
        (math.nan, math.nan, "open"),
    ],
)
def test_a_number(low, high, outcome):
    assert decide(SHARE, RANGE, {"bn": estimate(low, high)})[0] == outcome


def test_a_value_alone_is_a_range_of_no_width():
    value = Published(value=0.028, unit="points")
    rule = DIFFERENCE.model_copy(update={"rule": "number"})
    assert decide(rule, value, {"bn": estimate(0.02, 0.03)})[0] == "holds"
    assert decide(rule, value, {"bn": estimate(0.029, 0.03)})[0] == "fails"


def test_fewer_pairs_than_the_rule_asks_for_decide_nothing():
    outcome, reason = decide(RATIO, None, {"bn": estimate(1.2, 1.5, n=4)})
    assert outcome == "open"
    assert reason == "4 pairs against bn; the rule asks for 5"


def test_a_claim_must_hold_against_each():
    good, bad, unclear = estimate(1.2, 1.5), estimate(0.5, 0.9), estimate(0.9, 1.3)
    assert decide(RATIO, None, {"a": good, "b": good})[0] == "holds"
    assert decide(RATIO, None, {"a": good, "b": unclear})[0] == "open"
    outcome, reason = decide(RATIO, None, {"a": unclear, "b": bad})
    assert outcome == "fails"
    assert "against b " in reason


def test_a_miniature_says_no_more_than_supported():
    assert [word(one, "full") for one in ("holds", "fails", "open", "not run", "underspecified")] == [
        *("reproduced", "not reproduced", "inconclusive", "not run", "underspecified")
    ]
    assert [word(one, "small") for one in ("holds", "fails", "open")] == [
        *("supported (small)", "not supported (small)", "inconclusive (small)")
    ]


@pytest.mark.parametrize(
    ("low", "high", "outcome", "said"),
    [
        (-0.02, -0.001, "holds", "every interval lies below 0"),
        (-0.02, 0.0, "open", "holds both 0 and relevant effects"),
        (-0.009, 0.02, "fails", "ends above -0.01, the smallest effect that counts"),
        (-0.01, 0.02, "open", "holds both 0 and relevant effects"),
        (1, 2, "fails", "lies above 0: the opposite direction"),
    ],
)
def test_a_direction_of_a_difference_where_lower_is_better(low, high, outcome, said):
    found, reason = decide(DIFFERENCE, None, {"bn": estimate(low, high)}, higher_is_better=False)
    assert found == outcome
    assert said in reason


def test_a_speedup_is_better_when_greater_whatever_it_is_of():
    assert decide(RATIO, None, {"bn": estimate(1.2, 1.5)}, higher_is_better=False)[0] == "holds"
    assert decide(RATIO, None, {"bn": estimate(0.5, 0.9)}, higher_is_better=False)[0] == "fails"


def test_the_smallest_effect_may_differ_between_scales():
    rule = DIFFERENCE.model_copy(update={"relevant": {"full": 2.0, "small": 0.002}})
    assert decide(rule, None, {"bn": estimate(-1.0, 0.5)}, "full", False)[0] == "fails"
    assert decide(rule, None, {"bn": estimate(-1.0, 0.5)}, "small", False)[0] == "open"
