"""Claims, rules and results in words, the same wherever they are shown."""

import math

from gbn.analysis import printed
from gbn.analysis.claims.judge import Verdict
from gbn.analysis.claims.schema import RATIOS, TIMES, Claim, Published, Rule
from gbn.analysis.estimate import Estimate
from gbn.config.grid import FULL

_NAMES = {
    "speedup_to_target": "speed-up",
    "speedup_to_maximum": "speed-up to the maximum that the other reached at that seed",
    "saving_to_maximum": "share saved on the way to the maximum that the other reached at that seed",
    "last_difference": "difference of test accuracies after the last epoch",
    "best_val_difference": "difference of test accuracies at the best validation accuracy",
    "area_difference": "difference of the areas under the curve",
}


def result(rule: Rule, estimate: Estimate) -> str:
    """An estimate with its interval: a ratio, a share in per cent, or percentage points."""
    if not estimate.n:
        return printed.NONE
    if rule.quantity in RATIOS:
        return printed.ratio(estimate)
    if rule.quantity == "saving_to_maximum":
        ends = [_share(end) for end in (estimate.low, estimate.high)]
        known = not (math.isnan(estimate.low) or math.isnan(estimate.high))
        return f"{_saved(estimate)} % saved" + (f" [{ends[0]}, {ends[1]}]" if known else "")
    return f"{printed.difference(estimate)} points"


def _saved(estimate: Estimate) -> str:
    low, high = _share(estimate.value_low), _share(estimate.value_high)
    if low == high:
        return low
    if math.isinf(estimate.value_low):
        return "?" if estimate.value_high >= 1 else f"<= {high}"
    return f">= {low}" if estimate.value_high >= 1 else f"{low} to {high}"


def _share(value: float) -> str:
    return "-inf" if value == -math.inf else f"{100 * value:+.0f}"


def published(claim: Claim, short: bool = False) -> str:
    """What was published: a number in its unit, or that there is none."""
    if claim.origin == "ours":
        return "(ours)" if short else "a question of ours"
    if claim.published is None:
        return "no number" if short else "claimed, number not available"
    number, rule = _number(claim.published), claim.verdict
    if rule.quantity in TIMES and rule.quantity not in RATIOS:
        return f"{_scaled(claim.published)} % saved"
    if rule.quantity is not None and rule.quantity not in TIMES:
        return f"{_scaled(claim.published, '+.2f')} points"
    return number if rule.quantity in RATIOS else f"{number} {claim.published.unit}"


def _number(number: Published) -> str:
    low, high = number.range
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _scaled(number: Published, form: str = "g") -> str:
    low, high = (100 * end for end in number.range)
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"


def rule_in_words(claim: Claim) -> str:
    """The rule of a verdict as a sentence."""
    rule = claim.verdict
    if rule.rule == "none":
        return f"None: {rule.reason}"
    where = f", setting {rule.setting}" if rule.setting else ""
    text = f"{_NAMES[str(rule.quantity)]}{_target(rule)}, {rule.arm} against {' and '.join(rule.against)}{where}: "
    if rule.rule == "number":
        text += f"the interval overlaps what was published and excludes {rule.null:g}"
    else:
        each = "each interval" if len(rule.against) > 1 else "the interval"
        text += f"{each} lies above {rule.null:g} (below {_relevant(rule)} no effect counts)"
    return f"{text[0].upper()}{text[1:]}; at least {rule.pairs} pairs."


def _target(rule: Rule) -> str:
    unit = f" in {rule.unit}" if rule.quantity in TIMES else ""
    if isinstance(rule.target, dict):
        each = ", ".join(f"{100 * target:g} % ({scale})" for scale, target in rule.target.items())
        return f" to {each}{unit}"
    return f" to {100 * rule.target:g} %{unit}" if rule.target is not None else unit


def _relevant(rule: Rule) -> str:
    assert rule.relevant is not None
    if rule.quantity in RATIOS:
        return f"{rule.relevant:g}"
    return f"{100 * rule.relevant:g} {'% saved' if rule.quantity in TIMES else 'points'}"


def age(verdict: Verdict) -> str:
    """Whether the rule is older than the runs that it judges."""
    if not verdict.runs:
        return "no run yet"
    if verdict.claim.fixed is None:
        return "not known: the claim states no date of its rule"
    if verdict.early is None:
        return "not known: a run has no date"
    if verdict.early == 0:
        return f"yes: fixed {verdict.claim.fixed:%Y-%m-%d %H:%M} UTC, before the first run"
    many = (
        f"all {verdict.runs}" if verdict.early == verdict.runs else f"{verdict.early} of the {verdict.runs}"
    )
    return f"no: the rule was written after {many} runs had begun"


def measured_on(verdict: Verdict) -> str:
    """The curve, or the accuracy, that the numbers come from."""
    differences = ("last_difference", "best_val_difference")
    return "test accuracy" if verdict.claim.verdict.quantity in differences else verdict.measure


def at_scale(verdict: Verdict) -> str:
    """The scale, with what it is."""
    return FULL if verdict.scale == FULL else f"{verdict.scale} (a miniature)"
