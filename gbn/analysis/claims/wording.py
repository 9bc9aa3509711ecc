"""Claims, rules and results in words, the same wherever they are shown."""

import math
from collections.abc import Mapping

from gbn import measures
from gbn.analysis.claims.judge import Verdict
from gbn.analysis.claims.schema import RATIOS, TIMES, Claim, Published, Rule
from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.tables import headings, numbers
from gbn.config.grid import FULL
from gbn.measures import ACCURACY, Measure

_NAMES = {
    "speedup_to_target": "speed-up",
    "speedup_to_maximum": "speed-up to the {best} that the other reached at that seed",
    "saving_to_maximum": "share saved on the way to the {best} that the other reached at that seed",
    "last_difference": "difference of {values} after the last epoch",
    "best_val_difference": "difference of {values} at the best {selected}",
    "best_difference": "difference of {values} at the best of each run",
    "area_difference": "difference of the areas under the curve",
    "training_loss_difference": "difference of the mean training loss over all updates",
}


def result(rule: Rule, estimate: Estimate, measure: Measure = ACCURACY) -> str:
    """Format an estimate with its interval: a ratio, a share in percent, percentage points or the measure's unit."""
    if not estimate.n:
        return numbers.NONE
    if rule.quantity in RATIOS:
        return numbers.ratio(estimate)
    if rule.quantity == "saving_to_maximum":
        ends = [_share(end) for end in (estimate.low, estimate.high)]
        known = not (math.isnan(estimate.low) or math.isnan(estimate.high))
        return f"{_saved(estimate)} % saved" + (f" [{ends[0]}, {ends[1]}]" if known else "")
    return " ".join(filter(None, (numbers.difference(estimate, measure), measure.points)))


def _saved(estimate: Estimate) -> str:
    low, high = _share(estimate.value_low), _share(estimate.value_high)
    if low == high:
        return low
    if math.isinf(estimate.value_low):
        return "?" if estimate.value_high >= 1 else f"<= {high}"
    return f">= {low}" if estimate.value_high >= 1 else f"{low} to {high}"


def _share(value: float) -> str:
    return "-inf" if value == -math.inf else f"{100 * value:+.0f}"


def published(claim: Claim, short: bool = False, measure: Measure = ACCURACY) -> str:
    """Format the published number in its unit (a difference in that of `measure`), or say that there is none."""
    if claim.origin == "ours":
        return "(ours)" if short else "a question of ours"
    if claim.published is None:
        return "no number" if short else "claimed, number not available"
    number, rule = _number(claim.published), claim.verdict
    if rule.quantity in TIMES and rule.quantity not in RATIOS:
        return f"{_scaled(claim.published)} % saved"
    if rule.quantity is not None and rule.quantity not in TIMES:
        low, high = (measure.number(end, "+") for end in claim.published.range)
        ends = low if low == high else f"{low} to {high}"
        return " ".join(filter(None, (ends, measure.points or measure.name)))
    return number if rule.quantity in RATIOS else f"{number} {claim.published.unit}"


def _number(number: Published) -> str:
    low, high = number.range
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _scaled(number: Published) -> str:
    low, high = (100 * end for end in number.range)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def quantity(rule: Rule, measure: Measure) -> str:
    """Return the name of a rule's quantity for values of `measure`."""
    values, selected = measure.label, "validation value"
    if measure.family == "accuracy":
        values, selected = "test accuracies", "validation accuracy"
    return _NAMES[str(rule.quantity)].format(values=values, selected=selected, best=headings.best(measure))


def rule_in_words(verdict: Verdict) -> str:
    """Return the rule of a verdict as a sentence."""
    rule = verdict.claim.verdict
    if rule.rule == "none":
        return f"None: {rule.reason}"
    where = f", setting {rule.setting}" if rule.setting else ""
    what = quantity(rule, verdict.compared) + target(rule, verdict.planned)
    text = f"{what}, {rule.arm} against {' and '.join(rule.against)}{where}: "
    if rule.rule == "number":
        text += f"the interval overlaps what was published and excludes {rule.null:g}"
    else:
        each = "each interval" if len(rule.against) > 1 else "the interval"
        side = "above" if rule.quantity in TIMES or verdict.compared.higher_is_better else "below"
        text += f"{each} lies {side} {rule.null:g} ({_relevant(rule, verdict)})"
    return f"{text[0].upper()}{text[1:]}; at least {rule.pairs} pairs."


def target(rule: Rule, planned: Mapping[str, str]) -> str:
    """Return " to 95 % in updates": the target of each scale, as a value of its measure (`planned`: scale -> key)."""
    unit = f" in {rule.unit}" if rule.quantity in TIMES else ""
    if isinstance(rule.target, dict):
        each = ", ".join(f"{_measure(planned, s).target(value)} ({s})" for s, value in rule.target.items())
        return f" to {each}{unit}"
    return f" to {_measure(planned).target(rule.target)}{unit}" if rule.target is not None else unit


def _measure(planned: Mapping[str, str], scale: str = FULL) -> Measure:
    return measures.measure(planned.get(scale, planned.get(FULL, measures.DEFAULT)))


def _relevant(rule: Rule, verdict: Verdict) -> str:
    assert rule.relevant is not None
    if isinstance(rule.relevant, dict):
        each = ", ".join(
            f"{_effect(rule, effect, _measure(verdict.planned, scale))} ({scale})"
            for scale, effect in rule.relevant.items()
        )
        return f"smaller effects than {each} do not count"
    effect = _effect(rule, rule.relevant, verdict.compared)
    if rule.quantity in TIMES or verdict.compared.higher_is_better:
        return f"below {effect} no effect counts"
    return f"no effect smaller than {effect} counts"


def _effect(rule: Rule, effect: float, measure: Measure) -> str:
    if rule.quantity in RATIOS:
        return f"{effect:g}"
    if rule.quantity in TIMES:
        return f"{100 * effect:g} % saved"
    return " ".join(filter(None, (f"{measure.shown(effect):g}", measure.points or measure.name)))


def age(verdict: Verdict) -> str:
    """Say whether the rule is older than the runs that it judges."""
    if not verdict.runs:
        return "no run yet"
    if verdict.claim.fixed is None:
        return "unknown: the claim does not say when its rule was written"
    if verdict.early is None:
        return "unknown: a run has no date"
    if verdict.early == 0:
        return f"yes: fixed {verdict.claim.fixed:%Y-%m-%d %H:%M} UTC, before the first run"
    many = (
        f"all {verdict.runs}" if verdict.early == verdict.runs else f"{verdict.early} of the {verdict.runs}"
    )
    return f"no: the rule was written after {many} runs had begun"


def measured_on(verdict: Verdict) -> str:
    """Name the curve, or the test accuracy, that the numbers come from."""
    compared, quantity = verdict.compared, verdict.claim.verdict.quantity
    if quantity in TIMES or quantity == "area_difference":
        return verdict.measure
    return compared.title if compared.family == "accuracy" else f"{compared.key} ({compared.direction})"


def at_scale(verdict: Verdict) -> str:
    """Name the scale, with a description."""
    return FULL if verdict.scale == FULL else f"{verdict.scale} (a miniature)"
