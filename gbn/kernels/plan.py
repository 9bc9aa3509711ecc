"""Lowering: the measurements that a fused kernel needs for a pair on n samples per channel, as plain numbers.

The derivative of S, and of D, with respect to sample x is a piecewise linear function of x with few breakpoints b_j:

    f(x) = base + slope (x - S) + sum_j { at_j where x = b_j; rise_j where x > b_j; bend_j clamp(x - b_j, 0, span_j) }

(the entropic pair adds a multiple of exp(x - shift)). Besides S and D, these coefficients are all that a channel
keeps for the backward pass: one row of float32 numbers, its *record*:

    [base, slope] of S, [base, slope] of D, shift, multiple of S, multiple of D,          (HEAD numbers)
    [b, at, rise, bend, span] per breakpoint, those of S first                            (POINT numbers each)

A bend is measured from its own breakpoint and ends after its span. Measured from S, a steep and narrow piece far from
S, such as a window at the minimum, would lose its digits. ``span`` is infinite where the bend has no end.

So one backward kernel serves every pair. A plan holds the number of breakpoints and the order statistics that are
needed. It holds no data, so one plan serves every call with the same pair and number of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from gbn.risk.base import Deviation, Functional, Statistic
from gbn.risk.entropic import Entropic, EntropicDeviation
from gbn.risk.expectiles import Expectile, ExpectileDeviation, ExpectileRisk
from gbn.risk.extremes import LowerRange, Range, UpperRange, WorstCase
from gbn.risk.huber import Huber, HuberDeviation
from gbn.risk.moments import LowerSemideviation, Mean, MeanMad, Std, UpperSemideviation
from gbn.risk.order import rank
from gbn.risk.parameters import GRADIENT_MODES
from gbn.risk.quantiles import Maximum, Median, Midrange, MixedQuantile, Quantile, QuantileMidpoint
from gbn.risk.ranks import RankSum
from gbn.risk.tails import Cvar, Mad, MixedCvar, QuantileRadius

__all__ = ["HEAD", "POINT", "Part", "Plan", "Term", "is_common", "lower", "lowers"]

# Kinds of a functional, on which kernels branch once per channel. Integers, because compiled code reads them.
MEAN, RANKS, EXPECTILE, HUBER, ENTROPIC = range(5)
STD, TAILS, SEMIDEVIATION, MEAN_MAD, EXPECTILE_RISK = range(5, 10)

# How a gradient passes through an order statistic: gbn.risk.parameters.GRADIENT_MODES, as integers.
EXACT, WINDOW, WINDOW_CENTRED, SMOOTHED, EVEN, DETACHED = (
    GRADIENT_MODES.index(mode)
    for mode in ("exact", "window", "window_centred", "smoothed", "mean", "detached")
)

#: Numbers in the head of a record, and numbers per breakpoint.
HEAD, POINT = 7, 5

_KNOWN = frozenset(
    (
        *(Quantile, Median, MixedQuantile, QuantileMidpoint, Midrange, Maximum),
        *(Range, WorstCase, UpperRange, LowerRange),
        *(Cvar, Mad, MixedCvar, QuantileRadius),
        *(Mean, Std, MeanMad, UpperSemideviation, LowerSemideviation),
        *(Expectile, ExpectileDeviation, ExpectileRisk),
        *(Huber, HuberDeviation, Entropic, EntropicDeviation),
    )
)


#: Functionals that are found by iteration or through exponentials.
_RARE = frozenset(
    (Expectile, ExpectileDeviation, ExpectileRisk, Huber, HuberDeviation, Entropic, EntropicDeviation)
)
_RARE_KINDS = frozenset((EXPECTILE, HUBER, ENTROPIC, EXPECTILE_RISK))


@dataclass(frozen=True)
class Term:
    """``weight`` times an order statistic, or times a superquantile deviation (kind TAILS).

    Attributes:
        weight: coefficient in the sum.
        rank: 1 to n, or 0 where only the mean of the window is needed.
        low, high: first and last rank of the window; 0 without one.
        alpha: level of a superquantile.
        mirrored: whether this is the superquantile of -x, about the same rank of x.
    """

    weight: float
    rank: int
    low: int = 0
    high: int = 0
    alpha: float = 0.0
    mirrored: bool = False


@dataclass(frozen=True)
class Part:
    """One functional: kind, gradient mode, terms, up to two numbers, breakpoints of its derivative.

    ``numbers`` are the mean's weight (RANKS), the side +-1 (SEMIDEVIATION), tau (EXPECTILE, EXPECTILE_RISK), or
    the threshold b and whether it is scaled (HUBER). ``bends``: whether any bend is nonzero.
    """

    kind: int
    mode: int = EXACT
    terms: tuple[Term, ...] = ()
    numbers: tuple[float, float] = (0.0, 0.0)
    points: int = 0
    bends: bool = False


@dataclass(frozen=True, eq=False)  # hashed by identity, which is fast: `lower` makes only one of each
class Plan:
    """The measurements of a kernel in n samples; see the module docstring.

    Attributes:
        n: samples per channel.
        statistic, deviation: the two parts.
        ranks: the distinct ranks that are needed, in ascending order.
    """

    n: int
    statistic: Part
    deviation: Part
    ranks: tuple[int, ...]

    @property
    def points(self) -> int:
        """Number of breakpoints of both parts."""
        return self.statistic.points + self.deviation.points

    @property
    def record(self) -> int:
        """Numbers kept per channel."""
        return HEAD + POINT * self.points

    @property
    def bends(self) -> int:
        """Number of leading breakpoints to check for a bend: all up to the last one that may have one."""
        if self.deviation.bends:
            return self.points
        return self.statistic.points if self.statistic.bends else 0

    @property
    def common(self) -> bool:
        """See :func:`is_common`."""
        return not _RARE_KINDS & {self.statistic.kind, self.deviation.kind}

    @property
    def root(self) -> bool:
        """True if eps goes under a square root (gbn.kernels.epsilon)."""
        return self.deviation.kind == STD


def lowers(statistic: Statistic, deviation: Deviation) -> bool:
    """Return whether both are built-in classes; a subclass may mean something else, so it does not count as one."""
    return type(statistic) in _KNOWN and type(deviation) in _KNOWN


def is_common(statistic: Statistic, deviation: Deviation) -> bool:
    """Return whether both are moments, order statistics or superquantiles, which are measured in a few passes.

    The rest takes as much code again, for fewer networks; compiling it separately lets the common pairs start sooner.
    """
    return type(statistic) not in _RARE and type(deviation) not in _RARE


def _rank_sum(functional: RankSum, n: int) -> Part:
    mode = GRADIENT_MODES.index(functional._mode)
    windowed = mode in (WINDOW, WINDOW_CENTRED, SMOOTHED)
    terms = tuple(
        Term(term.weight, term.rank(n) if mode != SMOOTHED else 0, *((lo, hi) if windowed else ()))
        for term, (lo, hi) in zip(functional.terms, functional._windows(n), strict=True)
    )
    each = 2 if windowed else 1 if mode == EXACT else 0
    numbers = (functional.mean_weight, 0.0)
    return Part(RANKS, mode, terms, numbers, each * len(terms), bends=mode == WINDOW_CENTRED)


def _tails(functional: Functional, n: int) -> Part:
    if isinstance(functional, Mad):
        terms = [Term(1.0, rank(n, 0.5), alpha=0.5)]
    elif isinstance(functional, Cvar):
        terms = [Term(1.0, rank(n, functional.alpha), alpha=functional.alpha)]
    elif isinstance(functional, MixedCvar):
        pairs = zip(functional.weights, functional.alphas, strict=True)
        terms = [Term(weight, rank(n, alpha), alpha=alpha) for weight, alpha in pairs]
    else:
        assert isinstance(functional, QuantileRadius)
        alpha, m = functional.alpha, rank(n, functional.alpha)
        # half the deviation of the upper tail plus half that of the mirrored lower tail: the means cancel
        terms = [Term(0.5, m, alpha=alpha), Term(0.5, n + 1 - m, alpha=alpha, mirrored=True)]
    return Part(TAILS, terms=tuple(terms), points=len(terms))


def _part(functional: Functional, n: int) -> Part:
    match functional:
        case RankSum():
            return _rank_sum(functional, n)
        case Mean():
            return Part(MEAN)
        case Std():
            return Part(STD)
        case MeanMad():
            return Part(MEAN_MAD, points=1)
        case UpperSemideviation() | LowerSemideviation():
            return Part(SEMIDEVIATION, numbers=(functional.side, 0.0), points=1, bends=True)
        case Expectile():
            return Part(EXPECTILE, numbers=(functional.tau, 0.0), points=1)
        case ExpectileDeviation():
            return Part(EXPECTILE, numbers=(functional.tau, 0.0), points=1, bends=True)
        case ExpectileRisk():
            return Part(EXPECTILE_RISK, numbers=(functional.tau, 0.0), points=1)
        case Huber():
            # the ends of the part within the threshold, and the location itself, where the minimum may be flat
            return Part(HUBER, numbers=(functional.b, float(functional.scaled)), points=3)
        case HuberDeviation():
            numbers = (functional.b, float(functional.scaled))
            return Part(HUBER, numbers=numbers, points=1, bends=True)
        case Entropic() | EntropicDeviation():
            return Part(ENTROPIC)
    return _tails(functional, n)


@lru_cache(maxsize=1024)
def lower(statistic: Statistic, deviation: Deviation, n: int) -> Plan:
    """Return the plan of a pair for n samples per channel; see :func:`lowers`."""
    parts = _part(statistic, n), _part(deviation, n)
    wanted = {k for part in parts for term in part.terms for k in (term.rank, term.low, term.high)}
    return Plan(n, *parts, tuple(sorted(wanted - {0})))
