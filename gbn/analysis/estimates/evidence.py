"""How sure a speed-up is: its p, alone and after the table's correction, beside estimates that assume less.

What stands here decides nothing by itself: the verdict is the primary analysis's (paired t on log ratios, the sign
test where a run missed) after Holm. The rest shows whether the verdict hangs on that choice, and what would decide
where nothing is decided.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gbn.analysis.estimates import power, resampling
from gbn.analysis.estimates.decisions import Verdict, verdict
from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.estimates.pairs import signs
from gbn.analysis.estimates.resampling import Bootstrap


@dataclass(frozen=True)
class Evidence:
    """What is known beside an estimated speed-up.

    Attributes:
        bootstrap: intervals over resampled pairs; NaN where a run missed the target.
        sign_flip: p of the permutation; NaN where a run missed.
        verdict: see :func:`gbn.analysis.estimates.decisions.verdict`.
        seeds: pairs that would decide the speed-up as estimated, at the level at which Holm tests it, with
            probability 80 %; NaN where it is decided or cannot be told.
    """

    bootstrap: Bootstrap
    sign_flip: float
    verdict: Verdict
    seeds: float = math.nan


def evidence(estimates: Sequence[Estimate]) -> list[Evidence]:
    """The evidence of speed-ups that :func:`gbn.analysis.estimates.holm.corrected` has been through."""
    logs = [
        [math.log(low) for low, _ in estimate.ratios] if estimate.method == "paired t" else []
        for estimate in estimates
    ]
    found = []
    for estimate, own, flipped in zip(estimates, logs, resampling.sign_flips(logs), strict=True):
        decision = verdict(estimate)
        seeds = float(_seeds(estimate)) if decision == "inconclusive" and estimate.n > 1 else math.nan
        found.append(Evidence(resampling.bootstrap(own), flipped, decision, seeds))
    return found


def _seeds(estimate: Estimate) -> float:
    if estimate.method == "paired t":
        return power.seeds_needed(estimate.sd, estimate.value_low, estimate.holm_level)
    above, below = signs(estimate.ratios)
    if above + below == 0:
        return math.nan
    return power.seeds_for_signs(power.share_of_signs(above, below), estimate.holm_level)


def text(estimate: Estimate) -> str:
    """The verdict in words: "faster", or "inconclusive at n = 5, about 23 to 56 seeds would decide"."""
    decision = verdict(estimate)
    if decision != "inconclusive":
        return decision
    if estimate.n < 2:
        return f"inconclusive at n = {estimate.n}"
    if estimate.method == "paired t":
        return power.advice(estimate, estimate.holm_level)
    return power.advice_for_signs(*signs(estimate.ratios), estimate.n, estimate.holm_level)
