"""The measurements of the passes over x for a plan: which ranks and sums come first, and which can wait.

y needs only S and D. The edges of a gradient's window (modes ``window`` and ``window_centred``) go only into the
record, so on large inputs they are found while y is written: each of the two passes over x then computes less per
value than it takes to load one. On small inputs one program finds everything about a channel (``joint``).

Kernels are compiled for the structure of a stage (tuples of small integers); the numbers (ranks, weights, alphas) are
data, so neither a new n nor a new alpha recompiles anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from gbn.kernels import plan as p
from gbn.kernels.plan import HEAD, POINT, Part, Plan, Term

__all__ = ["NUMBERS", "Schedule", "Stage", "has_kernels", "schedule"]

#: Numbers per term: weight, low, high, alpha.
NUMBERS = 4

#: Order statistics per channel that the kernels find, each in its own registers: with half as many again most of what
#: a thread holds is spilled, and compilation takes a minute.
_MOST_RANKS = 16

_WINDOWED = (p.WINDOW, p.WINDOW_CENTRED, p.SMOOTHED)


@dataclass(frozen=True)
class Stage:
    """The quantities that one pass over x finds.

    Attributes:
        ranks: the ranks, in ascending order.
        windows: indices in ``ranks`` of the first and last rank of each window whose samples are summed.
        squares: whether the squares of those samples are summed too.
        tails: whether the samples above each rank are summed.
        total: 1 if all samples are summed, 2 if their squares are too, 0 if neither.
        measures: whether S, D, and the record except its windows are written.
        values: for S, then for D: per term (1, index in ``windows``) or (0, index in ``ranks``), or empty.
        points: per order statistic with a breakpoint: (breakpoint, index in ``ranks``, term, whether it is D's,
            kind); kind is 0 for an exact one, 1 for a superquantile, 2 for a mirrored one.
        edges: per window with breakpoints: (breakpoint, index of its first rank, of its last, window or -1, term,
            index of the term's rank among those of the stage that measures).
    """

    ranks: tuple[int, ...]
    windows: tuple[tuple[int, int], ...] = ()
    squares: bool = False
    tails: bool = False
    total: int = 0
    measures: bool = True
    values: tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]] = ((), ())
    points: tuple[tuple[int, int, int, int, int], ...] = ()
    edges: tuple[tuple[int, int, int, int, int, int], ...] = ()

    @property
    def sums(self) -> int:
        """Sums that a program of the pass leaves per channel, besides its counts."""
        return self.total + self.tails * len(self.ranks) + (1 + self.squares) * len(self.windows)


@dataclass(frozen=True)
class Schedule:
    """The stages of a plan; ``second`` is None if nothing is left to find while y is written."""

    joint: Stage
    first: Stage
    second: Stage | None
    numbers: tuple[float, ...]


def has_kernels(plan: Plan) -> bool:
    """Return whether the plan uses only mean, std, superquantiles and as many order statistics as registers hold."""
    known = plan.statistic.kind in (p.MEAN, p.RANKS) and plan.deviation.kind in (p.STD, p.TAILS, p.RANKS)
    return known and len(schedule(plan).joint.ranks) <= _MOST_RANKS


def _terms(plan: Plan) -> list[tuple[Part, int, int, Term]]:
    """Return (part, whether it is D, breakpoint, term) per term."""
    found, point = [], 0
    for is_d, part in enumerate((plan.statistic, plan.deviation)):
        each = part.points // len(part.terms) if part.terms else 0
        for term in part.terms:
            found.append((part, is_d, point, term))
            point += each
    return found


def _total(plan: Plan) -> int:
    """Return 2 if squares are needed, for the std, else 1: the sum gives the mean and reveals non-finite samples."""
    return 2 if plan.deviation.kind == p.STD else 1


def _stage(plan: Plan, measures: bool, windows: bool) -> Stage:
    """Return the stage that measures S and D, or finds the windows of the record, or both."""
    terms = _terms(plan)
    waits = [part.mode in (p.WINDOW, p.WINDOW_CENTRED) for part, *_ in terms]
    smooth = [part.mode == p.SMOOTHED for part, *_ in terms]
    edged = [(wait and windows) or (even and measures) for wait, even in zip(waits, smooth, strict=True)]
    ranks = {term.rank for *_, term in terms} if measures else set()
    for edge, (*_, term) in zip(edged, terms, strict=True):
        ranks |= {term.low, term.high} if edge else set()
    ordered = tuple(sorted(ranks - {0}))
    place = {rank: i for i, rank in enumerate(ordered)}
    measured = tuple(sorted({term.rank for *_, term in terms} - {0}))
    summed: dict[tuple[int, int], int] = {}
    values: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    points, edges = [], []
    for i, (edge, (part, is_d, point, term)) in enumerate(zip(edged, terms, strict=True)):
        window = -1
        if edge and part.mode != p.WINDOW:
            window = summed.setdefault((place[term.low], place[term.high]), len(summed))
        if measures and part.kind == p.RANKS:
            values[is_d].append((1, window) if part.mode == p.SMOOTHED else (0, place[term.rank]))
        if measures and (part.kind == p.TAILS or part.mode == p.EXACT):
            kind = (2 if term.mirrored else 1) if part.kind == p.TAILS else 0
            points.append((point, place[term.rank], i, is_d, kind))
        if edge:
            centered = window if part.mode == p.WINDOW_CENTRED else -1
            middle = (place if measures else {r: j for j, r in enumerate(measured)}).get(term.rank, 0)
            edges.append((point, place[term.low], place[term.high], centered, i, middle))
    return Stage(
        ranks=ordered,
        windows=tuple(summed),
        squares=any(part.mode == p.WINDOW_CENTRED for part, *_ in terms) and bool(summed) and windows,
        tails=measures and plan.deviation.kind == p.TAILS,
        total=_total(plan) if measures else 0,
        measures=measures,
        values=(tuple(values[0]), tuple(values[1])),
        points=tuple(points),
        edges=tuple(edges),
    )


@lru_cache(maxsize=1024)
def schedule(plan: Plan) -> Schedule:
    """Return the stages of a plan whose kinds are those of :func:`has_kernels`."""
    second = _stage(plan, measures=False, windows=True)
    numbers = [x for *_, t in _terms(plan) for x in (t.weight, float(t.low), float(t.high), t.alpha)]
    return Schedule(
        joint=_stage(plan, measures=True, windows=True),
        first=_stage(plan, measures=True, windows=False),
        second=second if second.edges else None,
        numbers=tuple(numbers),
    )


@lru_cache(maxsize=1024)
def numbers_on(plan: Plan, device: torch.device) -> Tensor:
    """Return the terms' numbers, float64 on the device; the first use copies them there, and waits for it."""
    return torch.tensor(schedule(plan).numbers or (0.0,), dtype=torch.float64, device=device)


@lru_cache(maxsize=1024)
def ranks_on(ranks: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the ranks, int32 on the device; the first use copies them there, and waits for it."""
    return torch.tensor(ranks or (0,), dtype=torch.int32, device=device)


assert (HEAD, POINT) == (7, 5), "finish.py writes records of this layout"
