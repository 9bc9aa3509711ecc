"""A plan (:mod:`gbn.kernels.plan`) as the tables that compiled code reads."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

from gbn.kernels import plan as p

from .memory import int64s, reader

__all__ = ["TERM", "Encoded", "Part", "Term", "encoded", "part_at", "plan_at", "term_at"]


class Term(ctypes.Structure):
    """A :class:`gbn.kernels.plan.Term`; an order statistic is given by its index among the plan's ranks."""

    _fields_ = (
        *int64s(
            "place",  # index of its order statistic, or -1
            "low_place",  # index of the first order statistic of its window, or -1
            "high_place",  # of the last one
            "low",  # the ranks of these two
            "high",
            "mirrored",
        ),
        ("weight", ctypes.c_double),
        ("alpha", ctypes.c_double),
    )


class Part(ctypes.Structure):
    """A :class:`gbn.kernels.plan.Part`: S or D."""

    _fields_ = (
        *int64s(
            "kind",
            "mode",
            "count",  # of its terms
            "terms",  # the first of them, a Term
            "points",  # breakpoints of its derivative
        ),
        (
            "number",
            ctypes.c_double,
        ),  # the first of the part's two numbers: a weight, a side, tau or a threshold
        ("scaled", ctypes.c_double),  # the second one
    )


class Encoded(ctypes.Structure):
    """A :class:`gbn.kernels.plan.Plan`."""

    _fields_ = int64s(
        "ranks",  # how many
        "points",
        "wanted",  # int64 (ranks,), ascending
        "statistic",  # a Part
        "deviation",
    )


plan_at, part_at, term_at = reader(Encoded), reader(Part), reader(Term)

#: Bytes from one term to the next.
TERM = ctypes.sizeof(Term)


@lru_cache(maxsize=1024)
def encoded(plan: p.Plan) -> Encoded:
    """Return a plan as tables, which live as long as the result."""
    place = {k: i for i, k in enumerate(plan.ranks)} | {0: -1}
    ranks = (ctypes.c_int64 * len(plan.ranks))(*plan.ranks)
    parts: list[Part] = []
    kept: list[Any] = [ranks]
    for part in (plan.statistic, plan.deviation):
        terms = (Term * len(part.terms))(
            *(
                Term(
                    *(place[k] for k in (t.rank, t.low, t.high)), t.low, t.high, t.mirrored, t.weight, t.alpha
                )
                for t in part.terms
            )
        )
        parts.append(
            Part(part.kind, part.mode, len(terms), ctypes.addressof(terms), part.points, *part.numbers)
        )
        kept.append(terms)
    found = Encoded(len(ranks), plan.points, ctypes.addressof(ranks), *map(ctypes.addressof, parts))
    found.kept = (*kept, *parts)
    return found
