"""The evidence for a speed-up: its p value, alone and corrected, beside estimates that assume less.

Nothing here decides by itself: the verdict is that of the primary analysis (paired t on log ratios, or the sign test
if a run missed) after Holm. The rest shows whether the verdict depends on that choice, and what would settle an
undecided comparison.
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
    """Supplementary statistics of an estimated speed-up.

    Attributes:
        bootstrap: intervals over resampled pairs; NaN if a run missed the target.
        sign_flip: p value of the permutation test; NaN if a run missed.
        verdict: see :func:`gbn.analysis.estimates.decisions.verdict`.
        seeds: number of pairs that would decide the speed-up as estimated, at the level at which Holm tests it, with
            probability 80 %; NaN if it is decided or cannot be computed.
    """

    bootstrap: Bootstrap
    sign_flip: float
    verdict: Verdict
    seeds: float = math.nan


def evidence(estimates: Sequence[Estimate]) -> list[Evidence]:
    """Return the evidence for speed-ups that have passed through :func:`gbn.analysis.estimates.holm.corrected`."""
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
    """Return the verdict in words: "faster", or "inconclusive at n = 5, about 23 to 56 seeds would decide"."""
    decision = verdict(estimate)
    if decision != "inconclusive":
        return decision
    if estimate.n < 2:
        return f"inconclusive at n = {estimate.n}"
    if estimate.method == "paired t":
        return power.advice(estimate, estimate.holm_level)
    return power.advice_for_signs(*signs(estimate.ratios), estimate.n, estimate.holm_level)
