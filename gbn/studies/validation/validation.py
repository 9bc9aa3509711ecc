"""Check that the intervals and tests keep what they promise, on thousands of simulated pairs with a known speed-up.

Pairs are drawn as times: a pair shares its seed's speed (with a wide spread, which must cancel), and each run has its
own noise, so log(reference / arm) = log(speed-up) + noise. The functions measured are those that the tables call, on
the same kind of numbers, not a reimplementation. ``scripts/validate_statistics.py`` runs it and writes
``results/validation/``.
"""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from gbn.analysis.estimates import power, resampling, survival
from gbn.analysis.estimates.decisions import holm, p_of_t
from gbn.analysis.estimates.estimate import ALPHA, LEVEL, Estimate
from gbn.analysis.estimates.pairs import log_ratios, median_of_bounds, speedup
from gbn.analysis.estimates.targets import Time

#: Standard deviation of a seed's log speed, which both runs of a pair share.
SHARED = 0.5
#: Standard deviation of the noise of a pair's log ratio.
NOISE = 0.2
EFFECT = 1.3
PAIRS = (5, 10, 30)
FAMILY = 8

BOTH_SKEWED = "two exponentials' difference (both arms skewed)"

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _gamma(shape: float) -> Draw:
    return lambda rng, size: (rng.gamma(shape, size=size) - shape) / math.sqrt(shape)


#: Noise of a pair's log ratio, with mean 0 and standard deviation 1, by name, skewness and excess kurtosis.
DISTRIBUTIONS: dict[str, Draw] = {
    "normal (lognormal times)": lambda rng, size: rng.standard_normal(size),
    "uniform": lambda rng, size: rng.uniform(-math.sqrt(3), math.sqrt(3), size),
    "t with 5 degrees of freedom (heavy tails)": lambda rng, size: rng.standard_t(5, size) * math.sqrt(3 / 5),
    BOTH_SKEWED: lambda rng, size: (rng.exponential(size=size) - rng.exponential(size=size)) / math.sqrt(2),
    "gamma, shape 4 (skewness 1)": _gamma(4),
    "exponential (skewness 2)": _gamma(1),
}


@dataclass(frozen=True)
class Finding:
    """One measured number.

    Attributes:
        study: "uncensored", "censored", "restricted mean", "survival curve", "family", "power" or "whole path".
        noise: one of :data:`DISTRIBUTIONS`, with further details of the case.
        effect: the true speed-up.
        n: number of pairs.
        quantity: what was measured.
        value: a share (coverage, error rate, power) or a ratio (bias).
        repetitions: number of repetitions behind the value.
        promised: the value according to theory or the protocol; NaN if there is none.
    """

    study: str
    noise: str
    effect: float
    n: int
    quantity: str
    value: float
    repetitions: int
    promised: float = math.nan

    @property
    def error(self) -> float:
        """Monte Carlo standard error of a share; nonzero even for a count of 0 or all (Laplace's rule)."""
        share = (min(max(self.value, 0.0), 1.0) * self.repetitions + 1) / (self.repetitions + 2)
        return math.sqrt(share * (1 - share) / self.repetitions)


def pairs(
    rng: np.random.Generator, draw: Draw, effect: float, n: int, end: float = math.inf
) -> tuple[list[Time], list[Time]]:
    """Return n pairs of times (arm, reference) in updates; a time beyond `end` is a miss."""
    seed = rng.normal(6, SHARED, n)
    noise = NOISE * draw(rng, (n,))
    reference, arm = np.exp(seed), np.exp(seed - math.log(effect) - noise)
    return [_time(value, end) for value in arm.tolist()], [_time(value, end) for value in reference.tolist()]


def _time(value: float, end: float) -> Time:
    return Time(value, value) if value <= end else Time(end, math.inf)


def uncensored(
    repetitions: int, seed: int = 0, noises: Collection[str] = tuple(DISTRIBUTIONS)
) -> Iterator[Finding]:
    """Yield coverage of primary and sensitivity intervals, error rates and bias, if every run reaches the target."""
    for place, (name, draw) in enumerate(DISTRIBUTIONS.items()):
        if name not in noises:
            continue
        for effect in (1.0, EFFECT):
            for n in PAIRS:
                rng = np.random.default_rng([seed, place, n, round(10 * effect)])
                yield from _uncensored(rng, name, draw, effect, n, repetitions)


def _uncensored(
    rng: np.random.Generator, name: str, draw: Draw, effect: float, n: int, repetitions: int
) -> Iterator[Finding]:
    covered = dict.fromkeys(("paired t", "bootstrap percentile", "bootstrap BCa", "sign test"), 0)
    rejected = dict.fromkeys(("paired t", "sign flips"), 0)
    logs, with_interval = [], 0
    for _ in range(repetitions):
        arm, reference = pairs(rng, draw, effect, n)
        estimate, ratios = speedup(arm, reference), log_ratios(arm, reference)
        boot = resampling.bootstrap(ratios)
        signs = median_of_bounds(estimate.ratios)
        with_interval += not math.isnan(signs.low)
        for key, (low, high) in (
            ("paired t", (estimate.low, estimate.high)),
            ("bootstrap percentile", boot.percentile),
            ("bootstrap BCa", boot.bca),
            ("sign test", (signs.low, signs.high)),
        ):
            covered[key] += low <= effect <= high
        rejected["paired t"] += estimate.p <= ALPHA
        rejected["sign flips"] += resampling.sign_flip(ratios) <= ALPHA
        logs.append(math.log(estimate.value_low))

    def finding(quantity: str, value: float, promised: float = math.nan, of: int = repetitions) -> Finding:
        return Finding("uncensored", name, effect, n, quantity, value, of, promised)

    for key, count in covered.items():
        of = with_interval if key == "sign test" else repetitions
        symmetric = not name.startswith(("gamma", "exponential"))
        if of and (key != "sign test" or symmetric):  # the median of a skewed ratio is another number
            yield finding(f"coverage, {key}", count / of, LEVEL, of)
    for key, count in rejected.items():
        what = "false positives" if effect == 1 else "power"
        yield finding(f"{what}, {key}", count / repetitions, ALPHA if effect == 1 else math.nan)
    yield finding("estimated / true speed-up", math.exp(float(np.mean(logs)) - math.log(effect)), 1.0)


def censored(repetitions: int, seed: int = 0) -> Iterator[Finding]:
    """Yield the same with runs that end while a fifth, or a twentieth, of the reference's still miss the target.

    Both runs of a pair share the seed, so in a slow pair often both miss. If a run misses, the primary interval is
    the sign test's, for the median over pairs, which needs six pairs.
    """
    cases = [(name, share) for name in ("normal (lognormal times)", BOTH_SKEWED) for share in (0.2, 0.05)]
    for place, (name, share) in enumerate(cases):
        end = math.exp(6 + SHARED * NormalDist().inv_cdf(1 - share))
        for effect in (1.0, EFFECT):
            for n in PAIRS:
                rng = np.random.default_rng([seed, 100 + place, n, round(10 * effect)])
                sample = [
                    speedup(*pairs(rng, DISTRIBUTIONS[name], effect, n, end)) for _ in range(repetitions)
                ]
                yield from _censored(
                    sample, (f"{name}; {100 * share:.0f} % of the reference's miss", effect, n)
                )


def _censored(sample: list[Estimate], case: tuple[str, float, int]) -> Iterator[Finding]:
    all_of, effect = len(sample), case[1]
    known = [estimate for estimate in sample if not math.isnan(estimate.low)]
    yield Finding("censored", *case, "share of samples with an interval", len(known) / all_of, all_of)
    if known:
        covered = sum(estimate.low <= effect <= estimate.high for estimate in known)
        yield Finding("censored", *case, "coverage, primary", covered / len(known), len(known), LEVEL)
    rejected = sum(estimate.p <= ALPHA for estimate in sample) / all_of
    if effect == 1:
        yield Finding("censored", *case, "false positives, primary", rejected, all_of, ALPHA)
    else:
        yield Finding("censored", *case, "power, primary", rejected, all_of)
    exact = [e.value_low for e in sample if e.value_low == e.value_high and 0 < e.value_low < math.inf]
    yield Finding(
        "censored", *case, "share of samples whose estimate is a number", len(exact) / all_of, all_of
    )


def survival_curves(repetitions: int, seed: int = 0) -> Iterator[Finding]:
    """Yield the Kaplan-Meier pointwise interval at the true median, and the paired difference of restricted means.

    One run in five is censored, with censoring times that differ from run to run (as budgets do when sweeps are
    stopped).
    """
    horizon = math.exp(6.2)
    for n in PAIRS:
        rng = np.random.default_rng([seed, 200, n])
        inside, total, covered, kept = 0, 0, 0, 0
        true = _restricted(EFFECT, horizon) - _restricted(1.0, horizon)
        for _ in range(repetitions):
            draw = DISTRIBUTIONS["normal (lognormal times)"]
            ends = np.exp(rng.normal(7, 0.3, (2, n)))
            arm, reference = pairs(rng, draw, EFFECT, n)
            arm, reference = (
                [_time(time.low, end) for time, end in zip(times, own, strict=True)]
                for times, own in ((arm, ends[0]), (reference, ends[1]))
            )
            curve = survival.kaplan_meier(reference)
            index = int(np.searchsorted(curve.time, math.exp(6), side="right")) - 1
            if index >= 0 and not math.isnan(curve.low[index]):
                total += 1
                inside += bool(curve.low[index] <= 0.5 <= curve.high[index])
            if min(survival.kaplan_meier(times).follow_up for times in (arm, reference)) < horizon:
                continue
            try:
                difference = survival.restricted_mean_difference(arm, reference, horizon)
            except ValueError:  # without one of its runs a curve ends before the horizon
                continue
            kept += 1
            covered += difference.low <= true <= difference.high
        case = ("normal (lognormal times), censored at random", EFFECT, n)
        yield Finding(
            "survival curve", *case, "coverage, Kaplan-Meier at the median", inside / total, total, 0.95
        )
        yield Finding(
            "survival curve", *case, "coverage, difference of restricted means", covered / kept, kept, 0.95
        )


def _restricted(effect: float, horizon: float) -> float:
    """Return E min(T, horizon) of a lognormal T whose logarithm has mean 6 - log(effect)."""
    from scipy.special import ndtr

    mean, sd = 6 - math.log(effect), SHARED if effect == 1 else math.hypot(SHARED, NOISE)
    z = (math.log(horizon) - mean) / sd
    return float(math.exp(mean + sd**2 / 2) * ndtr(z - sd) + horizon * (1 - ndtr(z)))


def families(repetitions: int, seed: int = 0) -> Iterator[Finding]:
    """Yield the rate of any false decision among 8 arms that share their reference, before and after Holm."""
    for place, name in enumerate(("normal (lognormal times)", "exponential (skewness 2)")):
        draw = DISTRIBUTIONS[name]
        for true in (0, FAMILY // 2):
            label = f"{true} of {FAMILY} arms are {EFFECT} times as fast" if true else "no arm differs"
            for n in PAIRS:
                rng = np.random.default_rng([seed, 300 + place, n, true])
                any_alone = any_holm = found = 0
                for _ in range(repetitions):
                    # log(reference / arm): the reference's noise is in every row of the table
                    logs = (draw(rng, (1, n)) - draw(rng, (FAMILY, n))) * NOISE / math.sqrt(2)
                    logs[:true] += math.log(EFFECT)
                    means, sds = logs.mean(axis=1), logs.std(axis=1, ddof=1)
                    p = [p_of_t(float(mean), float(sd), n) for mean, sd in zip(means, sds, strict=True)]
                    adjusted = holm(p)
                    any_alone += min(p[true:]) <= ALPHA
                    any_holm += min(adjusted[true:]) <= ALPHA
                    found += sum(value <= ALPHA for value in adjusted[:true])
                case = (f"{name}; {label}", EFFECT if true else 1.0, n)
                yield Finding(
                    "family", *case, "any false positive, alone", any_alone / repetitions, repetitions
                )
                yield Finding(
                    "family",
                    *case,
                    "any false positive, after Holm",
                    any_holm / repetitions,
                    repetitions,
                    ALPHA,
                )
                if true:
                    share = found / true / repetitions
                    yield Finding("family", *case, "power, after Holm", share, true * repetitions)


def predicted_power(repetitions: int, seed: int = 0) -> Iterator[Finding]:
    """Yield the power promised by :mod:`gbn.analysis.estimates.power` beside the share of samples that decide."""
    name = "normal (lognormal times)"
    for effect in (1.1, 1.2, EFFECT):
        n = power.seeds_needed(NOISE, effect)
        rng = np.random.default_rng([seed, 400, n])
        decided = sum(
            speedup(*pairs(rng, DISTRIBUTIONS[name], effect, n)).p <= ALPHA for _ in range(repetitions)
        )
        promised = power.power(n, NOISE, effect)
        yield Finding(
            "power", name, effect, n, "power at seeds_needed", decided / repetitions, repetitions, promised
        )
