"""The outcome of a rule, given measurements: the claim holds, fails, or stays open.

An interval that merely touches the null, or the smallest relevant effect, does not lie beyond it.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from gbn.analysis.claims.schema import TIMES, Published, Rule
from gbn.analysis.estimates.estimate import Estimate
from gbn.config.grid import FULL

Outcome = Literal["holds", "fails", "open", "not run", "underspecified"]

_WORDS: Mapping[Outcome, str] = {
    "holds": "reproduced",
    "fails": "not reproduced",
    "open": "inconclusive",
    "not run": "not run",
    "underspecified": "underspecified",
}
_SMALL: Mapping[Outcome, str] = {"holds": "supported", "fails": "not supported", "open": "inconclusive"}


def word(outcome: Outcome, scale: str) -> str:
    """Return the word for an outcome; a miniature can say no more than "supported (its name)"."""
    if scale == "full" or outcome not in _SMALL:
        return _WORDS[outcome]
    return f"{_SMALL[outcome]} ({scale})"


def decide(
    rule: Rule,
    published: Published | None,
    estimates: Mapping[str, Estimate],
    scale: str = FULL,
    higher_is_better: bool = True,
) -> tuple[Outcome, str]:
    """Return the outcome and its reason.

    Args:
        rule: "direction" or "number".
        published: the number, for a rule "number".
        estimates: for each arm of `rule.against`, the estimate with its interval at the level after Holm.
        scale: where it is judged; selects the smallest effect that counts there.
        higher_is_better: the direction of the measure; if lower is better, a difference below 0 supports the claim.
    """
    n = min(estimate.n for estimate in estimates.values())
    assert rule.pairs is not None
    if n < rule.pairs:
        short = [name for name, estimate in estimates.items() if estimate.n < rule.pairs]
        return "open", f"{n} pairs against {', '.join(short)}; the rule asks for {rule.pairs}"
    blind = [
        name for name, estimate in estimates.items() if math.isnan(estimate.low) or math.isnan(estimate.high)
    ]
    if blind:
        return "open", f"{n} pairs with misses have no interval at this level ({', '.join(blind)})"
    if rule.rule == "number":
        assert published is not None
        return _number(rule, published, estimates)
    relevant = rule.relevant_at(scale)
    assert relevant is not None
    return _direction(rule, estimates, relevant, higher_is_better or rule.quantity in TIMES)


def _direction(
    rule: Rule, estimates: Mapping[str, Estimate], relevant: float, upward: bool
) -> tuple[Outcome, str]:
    """Decide by improvements: differences as they are, or their negatives if `upward` is False."""
    if not upward:
        estimates = {name: replace(one, low=-one.high, high=-one.low) for name, one in estimates.items()}
    better, worse = ("above", "below") if upward else ("below", "above")
    if all(estimate.low > rule.null for estimate in estimates.values()):
        return "holds", f"every interval lies {better} {rule.null:g}"
    for name, estimate in estimates.items():
        if estimate.high < rule.null:
            return "fails", f"against {name} the interval lies {worse} {rule.null:g}: the opposite direction"
    for name, estimate in estimates.items():
        if estimate.high < relevant:
            smallest = relevant if upward else -relevant
            return (
                "fails",
                f"against {name} the interval ends {worse} {smallest:g}, the smallest effect that counts",
            )
    open_ = [name for name, estimate in estimates.items() if estimate.low <= rule.null]
    return "open", f"the interval against {', '.join(open_)} holds both {rule.null:g} and relevant effects"


def _number(rule: Rule, published: Published, estimates: Mapping[str, Estimate]) -> tuple[Outcome, str]:
    low, high = published.range
    for name, estimate in estimates.items():
        if estimate.low > high or estimate.high < low:
            side = "above" if estimate.low > high else "below"
            return "fails", f"against {name} the interval lies {side} the published number"
    if all(estimate.low > rule.null or estimate.high < rule.null for estimate in estimates.values()):
        return "holds", "the interval overlaps the published number and excludes no effect"
    return "open", "the interval overlaps the published number and no effect alike"
