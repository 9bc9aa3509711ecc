"""S, D and record of any pair from rows of samples: eager torch, for what no fast kernel measures, and as an oracle.

Every kind of :mod:`gbn.kernels.plan` is served, on any device, without a host synchronisation: where the
functionals of :mod:`gbn.risk` iterate (expectile, Huber), the rows are sorted here and the solution is read off
their prefix sums. All is computed in float64; a float32 row's S is rounded first, so that the record, written about
it, belongs to the S that the kernels subtract.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gbn.kernels import describe_solved as solved
from gbn.kernels import plan as p
from gbn.kernels.describe_sample import Derivative, Measured, Point, Sample, over
from gbn.kernels.plan import Part, Plan, Term

__all__ = ["describe"]


def _mean(sample: Sample, part: Part) -> Measured:
    return sample.mean, Derivative(sample.mean, base=1.0 / sample.n)


def _std(sample: Sample, part: Part) -> Measured:
    return sample.std, Derivative(sample.mean, slope=over(1.0, sample.n * sample.std))


def _mean_mad(sample: Sample, part: Part) -> Measured:
    below, _, above = sample.counts(level := sample.rounded(sample.mean))
    n, value = sample.n, (sample.wide - sample.mean).abs_().mean(-1, keepdim=True)
    points: list[Point] = [(level, 1.0 / n, 2.0 / n, 0.0, 0.0)]
    return value, Derivative(sample.mean, base=(-1.0 - (above - below) / n) / n, points=points)


def _semideviation(sample: Sample, part: Part) -> Measured:
    side, mean = part.numbers[0], sample.mean
    excess = (side * (sample.wide - mean)).relu_()
    half = excess.mean(-1, keepdim=True)
    value = excess.square_().mean(-1, keepdim=True).sqrt_()
    unit = over(1.0, sample.n * value)
    slope = unit if side < 0 else 0.0  # the sloping part is below the mean there
    level = sample.rounded(mean)
    points: list[Point] = [(level, 0.0, side * unit * (level - mean), side * unit, math.inf)]
    return value, Derivative(mean, base=-side * half * unit, slope=slope, points=points)


def _entropic_sum(sample: Sample) -> tuple[Tensor, Tensor]:
    """log mean exp(x), and the number that makes its exp(x - shift) sum to 1, whatever the shift's rounding."""
    top = sample.wide.amax(-1, keepdim=True)
    value = top + (sample.wide - top).exp_().mean(-1, keepdim=True).log_()
    total = (sample.wide - sample.rounded(value)).exp_().sum(-1, keepdim=True)
    return value, 1.0 / total


def _entropic(sample: Sample, part: Part) -> Measured:
    value, multiple = _entropic_sum(sample)
    return value, Derivative(value, shift=sample.rounded(value), multiple=multiple)


def _entropic_deviation(sample: Sample, part: Part) -> Measured:
    value, multiple = _entropic_sum(sample)
    derivative = Derivative(value, base=-1.0 / sample.n, shift=sample.rounded(value), multiple=multiple)
    return (value - sample.mean).clamp_min_(0.0), derivative


def _tails(sample: Sample, part: Part) -> Measured:
    n, total = sample.n, torch.zeros_like(sample.mean)
    derivative = Derivative(sample.mean, base=total)
    for term in part.terms:
        q, above = sample.kth(term.rank), 1.0 / (n * (1.0 - term.alpha))
        sign = -1.0 if term.mirrored else 1.0
        excess = (sign * (sample.wide - q)).relu_().mean(-1, keepdim=True) / (1.0 - term.alpha)
        total = total + term.weight * (excess - sign * (sample.mean - q)).clamp_min_(0.0)
        n_below, n_at, n_above = sample.counts(q)
        rest = (1.0 - (n_below if term.mirrored else n_above) * above) / n_at
        # the mirrored one: -above for the samples below, -rest at q, nothing beyond it
        at = above - rest if term.mirrored else rest
        below = sign * (-1.0 / n) - (above if term.mirrored else 0.0)
        derivative.base = derivative.base + term.weight * below
        derivative.points.append((q, term.weight * at, term.weight * above, 0.0, 0.0))
    return total, derivative


def _window(sample: Sample, part: Part, term: Term) -> list[Point]:
    """Both edges of a window."""
    width = term.high - term.low + 1
    low, high = sample.kth(term.low), sample.kth(term.high)
    (below_low, at_low, _), (below_high, at_high, _) = sample.counts(low), sample.counts(high)
    one = low == high
    share_low = torch.where(one, 1.0 / at_low, (below_low + at_low - (term.low - 1)) / (at_low * width))
    share_high = (term.high - below_high) / (at_high * width)
    mean, tilt = low, torch.zeros_like(low)
    if part.mode == p.WINDOW_CENTRED:
        mean, variance = _window_moments(sample, term)
        tilt = over(sample.kth(term.rank) - mean, variance)
    factor_low, factor_high = 1.0 + tilt * (low - mean), 1.0 + tilt * (high - mean)
    # what the first point adds beyond the window, as float32 sums it, is what the second takes away
    rise = sample.rounded(term.weight / width * factor_low)
    bend, span = sample.rounded(term.weight / width * tilt), sample.rounded(high - low)
    last = sample.rounded(rise + sample.rounded(bend * span))
    at_high_edge = torch.where(one, 0.0, term.weight * share_high * factor_high - last)
    return [
        (low, term.weight * share_low * factor_low, rise, bend, span),
        (high, at_high_edge, -last, 0.0, 0.0),
    ]


def _window_moments(sample: Sample, term: Term) -> tuple[Tensor, Tensor]:
    low = sample.kth(term.low)
    centred = sample.ordered[:, term.low - 1 : term.high] - low
    shift = centred.mean(-1, keepdim=True)
    return low + shift, (centred - shift).square_().mean(-1, keepdim=True)


def _ranks(sample: Sample, part: Part) -> Measured:
    n, mean_weight = sample.n, part.numbers[0]
    smoothed = part.mode == p.SMOOTHED
    values = [_window_moments(sample, t)[0] if smoothed else sample.kth(t.rank) for t in part.terms]
    total = values[0] * part.terms[0].weight
    for term, value in zip(part.terms[1:], values[1:], strict=True):
        total = total + term.weight * value
    if mean_weight:
        # the mean of differences, so that a constant row gives 0 whatever its rounding
        anchor = total / -mean_weight
        total = (mean_weight * (sample.wide - anchor).mean(-1, keepdim=True)).clamp_min_(0.0)
    level = mean_weight / n
    if part.mode == p.EVEN:
        level += math.fsum(term.weight for term in part.terms) / n
    derivative = Derivative(sample.mean, base=level)
    for term, value in zip(part.terms, values, strict=True):
        if part.mode == p.EXACT:
            derivative.points.append((value, term.weight / sample.counts(value)[1], 0.0, 0.0, 0.0))
        elif part.mode in (p.WINDOW, p.WINDOW_CENTRED, p.SMOOTHED):
            derivative.points += _window(sample, part, term)
    return total, derivative


_STATISTICS = {
    p.MEAN: _mean,
    p.RANKS: _ranks,
    p.EXPECTILE: solved.expectile,
    p.HUBER: solved.huber,
    p.ENTROPIC: _entropic,
}
_DEVIATIONS = {
    p.RANKS: _ranks,
    p.EXPECTILE: solved.expectile_deviation,
    p.HUBER: solved.huber_deviation,
    p.ENTROPIC: _entropic_deviation,
    p.STD: _std,
    p.TAILS: _tails,
    p.SEMIDEVIATION: _semideviation,
    p.MEAN_MAD: _mean_mad,
    p.EXPECTILE_RISK: solved.expectile_risk,
}


def describe(rows: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Measure rows: ``(C, n)``, n = plan.n, float32 or float64.

    Returns:
        S ``(C,)``, D ``(C,)`` and the record ``(C, plan.record)`` in the rows' dtype; NaN for a row with a value
        that is not finite.
    """
    sample = Sample(rows)
    s, derivative_s = _STATISTICS[plan.statistic.kind](sample, plan.statistic)
    d, derivative_d = _DEVIATIONS[plan.deviation.kind](sample, plan.deviation)
    s = sample.rounded(s)
    of_s, of_d = derivative_s.moved(s), derivative_d.moved(s)
    entropic = of_s if plan.statistic.kind == p.ENTROPIC else of_d  # the same shift, where both are
    columns: list[Tensor | float] = [
        of_s.base,
        of_s.slope,
        of_d.base,
        of_d.slope,
        entropic.shift,
        of_s.multiple,
        of_d.multiple,
    ]
    columns += [number for point in (*of_s.points, *of_d.points) for number in point]
    record = torch.cat([c if isinstance(c, Tensor) else torch.full_like(s, c) for c in columns], -1)
    nan = ~rows.isfinite().all(-1)
    s, d = s.squeeze(-1).masked_fill(nan, math.nan), d.squeeze(-1).masked_fill(nan, math.nan)
    return s.to(rows.dtype), d.to(rows.dtype), record.masked_fill(nan[:, None], math.nan).to(rows.dtype)
