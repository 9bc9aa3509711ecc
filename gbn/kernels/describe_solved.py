"""The functionals that solve an equation, the expectile's and Huber's, read off the prefix sums of sorted rows.

Where :mod:`gbn.risk` iterates until nothing changes, which asks the device at every step, the forces here are
evaluated at every sample at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gbn.kernels.describe_sample import Derivative, Measured, Point, Sample, over
from gbn.kernels.plan import Part

__all__ = ["expectile", "expectile_deviation", "expectile_risk", "huber", "huber_deviation"]


def _expectile_value(sample: Sample, tau: float) -> Tensor:
    """The expectile: the force sum w (x - e), evaluated at every sample, tells which of them lie below e."""
    n, median = sample.n, sample.kth((sample.n + 1) // 2)
    centred, sums = sample.ordered - median, sample.sums
    place = torch.arange(1, n + 1, device=centred.device, dtype=centred.dtype)
    lower = sums[:, 1:] - place * centred
    upper = sums[:, -1:] - sums[:, 1:] - (n - place) * centred
    below = (tau * upper + (1.0 - tau) * lower > 0).sum(-1, keepdim=True)
    sum_below, below = sums.gather(-1, below), below.double()
    total = tau * (sums[:, -1:] - sum_below) + (1.0 - tau) * sum_below
    return median + total / (tau * (n - below) + (1.0 - tau) * below)


def _expectile_weights(sample: Sample, e: Tensor, tau: float) -> Derivative:
    below, at, above = sample.counts(level := sample.rounded(e))
    total = tau * above + 0.5 * at + (1.0 - tau) * below
    points: list[Point] = [(level, (tau - 0.5) / total, (2.0 * tau - 1.0) / total, 0.0, 0.0)]
    return Derivative(e, base=(1.0 - tau) / total, points=points)


def expectile(sample: Sample, part: Part) -> Measured:
    """The expectile."""
    tau = part.numbers[0]
    e = _expectile_value(sample, tau)
    return e, _expectile_weights(sample, e, tau)


def expectile_deviation(sample: Sample, part: Part) -> Measured:
    """The expectile pair's deviation."""
    tau = part.numbers[0]
    e = _expectile_value(sample, tau)
    centred = sample.wide - e
    pull = centred.relu().mul_(2.0 * tau - 1.0).add_(centred, alpha=1.0 - tau)
    value = pull.mul_(centred).mean(-1, keepdim=True).sqrt_()
    unit = over(1.0, sample.n * value)
    level, bend = sample.rounded(e), (2.0 * tau - 1.0) * unit
    points: list[Point] = [(level, 0.0, bend * (level - e), bend, math.inf)]
    return value, Derivative(e, slope=(1.0 - tau) * unit, points=points)


def expectile_risk(sample: Sample, part: Part) -> Measured:
    """The expectile minus the mean."""
    tau = part.numbers[0]
    e = _expectile_value(sample, tau)
    derivative = _expectile_weights(sample, e, tau)
    derivative.base = derivative.base - 1.0 / sample.n
    return (e - sample.mean).clamp_min_(0.0), derivative


@dataclass
class _Location:
    """Huber's location; the samples that move it lie strictly between ``low`` and ``high``.

    Where the minimum is ``flat`` those two are the samples on either side of it, and they move it.
    ``everywhere``: the row is constant as far as rounding can tell, and every sample moves it.
    """

    value: Tensor
    low: Tensor
    high: Tensor
    flat: Tensor
    everywhere: Tensor


def _zero_force(sample: Sample, t: Tensor) -> Tensor:
    """The place s where G(s) = sum clip(x - s, -t, t) is 0.

    G falls with s and bends at x_k - t and at x_k + t. Its sign there tells how many samples are clipped at the
    place, and between two bends G is linear. NaN where the minimum is flat.
    """
    n, sums, median = sample.n, sample.sums, sample.kth((sample.n + 1) // 2)
    centred = sample.ordered - median
    rank = torch.arange(n, device=centred.device).expand_as(centred)

    def force(s: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """G(s), the samples first ... last - 1 (0-based) being within t of s."""
        inside = sums.gather(-1, last) - sums.gather(-1, first) - (last - first) * s
        return inside + t * (n - last - first)

    first = torch.searchsorted(centred, centred - 2.0 * t)
    unclipped = (force(centred - t, first, rank) > 0).sum(-1, keepdim=True)
    last = torch.searchsorted(centred, centred + 2.0 * t, right=True)
    clipped = (force(centred + t, rank, last) >= 0).sum(-1, keepdim=True)
    inside = sums.gather(-1, unclipped) - sums.gather(-1, clipped)
    return median + (inside + t * (n - unclipped - clipped)) / (unclipped - clipped)


def _locate(sample: Sample, t: Tensor) -> _Location:
    """What ``gbn.risk.huber._locate_eagerly`` finds, with its rules for flat minima and constant rows."""
    # two middle samples farther apart than 2 t leave the minimum flat between them
    below, above = sample.kth((sample.n + 1) // 2), sample.kth(sample.n // 2 + 1)
    middle, half = 0.5 * (below + above), 0.5 * (above - below)
    rounding = 16 * torch.finfo(sample.rows.dtype).eps * (middle.abs() + t)
    flat = (half >= t - rounding) & (t > rounding)
    place = _zero_force(sample, t)
    location = torch.where(flat | ~place.isfinite(), middle, place)
    # samples closer to each other than rounding resolves count as a constant row
    everywhere = ((sample.wide - location).abs_().amin(-1, keepdim=True) >= t) & ~flat
    low, high = sample.rounded(location - t), sample.rounded(location + t)
    # an end that rounding moved inwards goes back: a sample at it is within the threshold
    low = torch.where(location - low < t, _next(sample, low, -math.inf), low)
    high = torch.where(high - location < t, _next(sample, high, math.inf), high)
    return _Location(
        location, torch.where(flat, below, low), torch.where(flat, above, high), flat, everywhere
    )


def _next(sample: Sample, value: Tensor, towards: float) -> Tensor:
    """The next number in the rows' dtype."""
    value = value.to(sample.rows.dtype)
    return torch.nextafter(value, torch.full_like(value, towards)).double()


def _threshold(sample: Sample, part: Part) -> Tensor:
    b, scaled = part.numbers
    return b * sample.std if scaled else torch.full_like(sample.mean, b)


def huber(sample: Sample, part: Part) -> Measured:
    """Huber's location."""
    found = _locate(sample, _threshold(sample, part))
    inside = (sample.wide > found.low) & (sample.wide < found.high)
    count = inside.sum(-1, keepdim=True).double()
    even = found.everywhere | (~found.flat & (count == 0))
    inner = ~(found.flat | even)
    level, pull = torch.where(inner, 1.0 / count, 0.0), torch.zeros_like(count)
    if part.numbers[
        1
    ]:  # a change of the threshold moves the location, unless the samples within are balanced
        moment = torch.where(inside, sample.wide - found.value, 0.0).sum(-1, keepdim=True) * level
        pull = torch.where(inner, over(moment, sample.n * sample.std.square()), 0.0)
    (_, at_low, _), (_, at_high, _) = sample.counts(found.low), sample.counts(found.high)
    points: list[Point] = [
        (found.low, torch.where(found.flat, 0.5 / at_low, 0.0), level, 0.0, 0.0),
        (found.high, torch.where(found.flat, 0.5 / at_high, -level), -level, 0.0, 0.0),
    ]
    points += [(found.high, 0.0, 0.0, 0.0, 0.0)] * (part.points - len(points))
    base = even.double() / sample.n
    return found.value, Derivative(sample.mean, base=base, slope=-pull, points=points)


def huber_deviation(sample: Sample, part: Part) -> Measured:
    """The mean Huber loss about Huber's location."""
    n, t = sample.n, _threshold(sample, part)
    location = _locate(sample, t).value
    centred = sample.wide - location
    clipped = torch.minimum(centred, t).clamp_min_(-t)
    value = over(clipped.mul(centred - 0.5 * clipped).mean(-1, keepdim=True), t)
    unit, side = over(1.0, n * t), (t != 0).double() / n
    low = sample.rounded(location - t)
    over_low = low - (location - t)  # what rounding the breakpoint leaves out, or adds
    points: list[Point] = [(low, 0.0, unit * over_low, unit, 2.0 * t - over_low)]
    derivative = Derivative(location, base=-side, points=points)
    if part.numbers[1]:
        # the loss falls by (min(abs(z), b) / b)^2 / 2 a unit of b, and b by b / s a unit of s
        spread = clipped.square_().mean(-1, keepdim=True)
        fall = over(0.5 * spread, t * sample.std.square() * n)
        derivative.base = derivative.base - fall * (location - sample.mean)
        derivative.slope = -fall
    return value, derivative
