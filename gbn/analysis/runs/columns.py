"""The curves that a plan uses, as columns: those that were recorded, and those that replace them."""

from collections.abc import Mapping, Sequence

import numpy as np

from gbn.analysis.runs.rows import Row
from gbn.methods import METHODS

Key = tuple[str, str, int]

#: Methods without batch statistics: evaluation has nothing to compute exactly and writes no key with this suffix.
UNTRACKED = tuple(row.name for row in METHODS.values() if row.statistics in ("image", "none"))
EXACT = "_exact"


class Curves:
    """The curves of selected runs.

    Attributes:
        rows: the runs by setting, arm and seed.
        keys: the keys of their curves.
    """

    def __init__(self, rows: Mapping[Key, Row]) -> None:
        self.rows = rows
        self.keys = list(dict.fromkeys(key for row in rows.values() for key in row.columns))

    def columns(self, key: Key, names: Sequence[str]) -> tuple[np.ndarray, ...]:
        """Return some keys of one run's curve in order of update, float64 of shape (points,); NaN if not measured.

        A run that does not exist has no points.
        """
        row = self.rows.get(key)
        return tuple(np.empty(0) if row is None else _values(row, name) for name in names)

    def complete(self, name: str) -> bool:
        """Return whether every point of every run has this key."""
        return name in self.keys and not any(np.isnan(_values(row, name)).any() for row in self.rows.values())

    def stands_in(self, key: Key, name: str) -> bool:
        """Return whether plain values replace those with exact statistics, since the run has no statistics to make
        exact.
        """
        return key in self.rows and name.endswith(EXACT) and _untracked(self.rows[key])


def _values(row: Row, name: str) -> np.ndarray:
    return row.values(name.removesuffix(EXACT) if name.endswith(EXACT) and _untracked(row) else name)


def _untracked(row: Row) -> bool:
    method = (row.identity or {}).get("norm", {}).get("method")
    return method in UNTRACKED and not any(name.endswith(EXACT) for name in row.columns)
