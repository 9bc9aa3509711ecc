"""A plan as the two flat arrays that compiled code reads, and their layout."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gbn.kernels.plan import Plan

__all__ = ["INTEGERS", "REALS", "encoded"]

# integers: [ranks, points, then kind, mode, terms of S, of D], the ranks in ascending order, then TERM numbers per
# term: index of its rank, of the lowest and of the highest rank of its window (-1: none), these two ranks, mirrored.
RANK_COUNT, POINTS, S_KIND, S_MODE, S_TERMS, D_KIND, D_MODE, D_TERMS, INTEGERS = range(9)
TERM = 6

# reals: [two numbers of S, two of D], then weight and alpha per term.
REALS = 4


@lru_cache(maxsize=1024)
def encoded(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Return (integers, reals) of a plan, int64 and float64; see the module docstring."""
    s, d = plan.statistic, plan.deviation
    place = {k: i for i, k in enumerate(plan.ranks)} | {0: -1}
    integers = [len(plan.ranks), plan.points]
    for part in (s, d):
        integers += [part.kind, part.mode, len(part.terms)]
    integers += plan.ranks
    reals = [*s.numbers, *d.numbers]
    for term in (*s.terms, *d.terms):
        integers += [place[term.rank], place[term.low], place[term.high], term.low, term.high, term.mirrored]
        reals += [term.weight, term.alpha]
    return np.array(integers, dtype=np.int64), np.array(reals, dtype=np.float64)
