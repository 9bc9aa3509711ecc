"""Selection: exact order statistics of each row, and the moments of the samples between two ranks.

On the CPU numpy's vectorized quickselect does this if numpy is installed (the layers do not depend on it): in about a
third of the time of a sort for one rank, half of it for a rank with its window, since the samples of a window are
contiguous in the partitioned copy. Elsewhere torch selects or sorts. Under tracing the whole is one custom operator,
so that ``torch.compile(fullgraph=True)`` works.

Ranks are 1-based: rank 1 is the minimum and rank n the maximum. A row with a NaN gives NaN everywhere, as
batch normalization would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

try:
    import numpy as np
except ImportError:  # pragma: no cover - the layers need only torch
    np = None  # type: ignore[assignment]

Window = tuple[int, int]


class NeedsRanks(Protocol):
    """The interface that :class:`OrderStatistics` requires of a functional."""

    def needs(self, n: int) -> tuple[tuple[int, ...], tuple[Window, ...]]:
        """Return the ranks and the rank windows that the functional will request on rows of n samples."""


def rank(n: int, alpha: float) -> int:
    """Return the rank of the lower alpha-quantile of n samples: ceil(n alpha), at least 1.

    n alpha counts as an integer if it is one up to rounding: 100 * 0.07 is 7.000000000000001.
    """
    return max(1, min(n, math.ceil(n * alpha - 1e-9 * n)))


def _partition(block: Any, offset: int, ranks: Sequence[int]) -> None:
    """Move, in place, each rank's order statistic to its sorted position in ``block`` (rows, length).

    The rank that leaves the least to search goes first; after that each side is searched separately. One rank per
    call: numpy's vectorized path does not take a list.
    """
    if not ranks:
        return
    end = offset + block.shape[1]

    def left_over(i: int) -> int:
        left = ranks[i] - 1 - offset if i > 0 else 0
        right = end - ranks[i] if i < len(ranks) - 1 else 0
        return left + right

    first = min(range(len(ranks)), key=left_over)
    k = ranks[first] - 1 - offset
    block.partition(k, axis=1)
    _partition(block[:, :k], offset, ranks[:first])
    _partition(block[:, k + 1 :], offset + k + 1, ranks[first + 1 :])


def _moments(segment: Any, anchor: Any) -> tuple[Any, Any]:
    """Return mean and centered second moment of a contiguous segment; exact on constants thanks to the anchor."""
    centered = segment - anchor
    shift = centered.mean(-1)[..., None]
    centered -= shift
    centered *= centered
    return anchor + shift, centered.mean(-1)[..., None]


def _select_numpy(
    rows: Tensor, ranks: Sequence[int], pivots: Sequence[int], windows: Sequence[Window]
) -> list[Any]:
    block = rows.numpy(force=True)  # materializes the signs of a negated view and the zeros of a zero tensor
    n = block.shape[1]
    # minimum and maximum need no partition, but a window's edge does, unless it is the end of the row
    edges = {lo for lo, _ in windows if lo > 1} | {hi for _, hi in windows if hi < n}
    inner = sorted(edges | {k for k in pivots if 1 < k < n})
    if inner or windows:
        block = np.array(block, order="C")
    columns: dict[int, Any] = {}
    if 1 in pivots:
        columns[1] = block.min(-1, keepdims=True)
    if n in pivots and n > 1:
        columns[n] = block.max(-1, keepdims=True)
    _partition(block, 0, inner)
    columns.update({k: block[:, k - 1 : k].copy() for k in inner})
    # minimum and maximum propagate NaN; quickselect puts it last, so check the samples from the last pivot on
    nan = np.isnan(
        next(iter(columns.values()))
        if len(columns) > len(inner)
        else block[:, inner[-1] - 1 :].max(-1)[:, None]
    )
    out = [columns[k] for k in ranks]
    with np.errstate(invalid="ignore", over="ignore"):  # infinite samples
        for lo, hi in windows:
            out += _moments(block[:, lo - 1 : hi], columns[lo])
    if nan.any():
        out = [np.where(nan, np.nan, column).astype(block.dtype) for column in out]
    return [torch.from_numpy(column) for column in out]


def _select_torch(
    rows: Tensor, ranks: Sequence[int], pivots: Sequence[int], windows: Sequence[Window]
) -> list[Tensor]:
    n = rows.shape[1]
    inner = [k for k in pivots if 1 < k < n]
    # with deterministic algorithms kthvalue on CUDA is refused, although its values are deterministic
    selectable = not (rows.is_cuda and torch.are_deterministic_algorithms_enabled())
    if not windows and (not inner or (len(inner) == 1 and selectable)):
        nan = rows.amax(-1, keepdim=True).isnan()
        by_rank = {1: lambda: rows.amin(-1, keepdim=True), n: lambda: rows.amax(-1, keepdim=True)}
        out = [by_rank[k]() if k in by_rank else rows.kthvalue(k, -1, keepdim=True)[0] for k in ranks]
    else:
        ordered = rows.sort(-1)[0]  # NaN last
        nan = ordered[:, -1:].isnan()
        out = [ordered[:, k - 1 : k].clone() for k in ranks]
        for lo, hi in windows:
            out += _moments(ordered[:, lo - 1 : hi], ordered[:, lo - 1 : lo])
    return [column.masked_fill(nan, math.nan) for column in out]


def _select_eagerly(rows: Tensor, ranks: Sequence[int], edges: Sequence[int]) -> Tensor:
    """Return order statistics, then mean and variance of each window: (..., n) -> (..., ranks + 2 windows)."""
    windows = list(zip(edges[::2], edges[1::2], strict=True))
    columns = len(ranks) + 2 * len(windows)
    flat = rows.detach().reshape(-1, rows.shape[-1])
    if flat.shape[0] == 0 or columns == 0:
        return rows.new_empty((*rows.shape[:-1], columns))
    pivots = sorted({*ranks, *edges})
    numpy_can = np is not None and flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64)
    select = _select_numpy if numpy_can else _select_torch
    return torch.cat(select(flat, ranks, pivots, windows), -1).reshape(*rows.shape[:-1], columns)


_select_operator = torch.library.custom_op("gbn::select", _select_eagerly, mutates_args=())


@_select_operator.register_fake
def _(rows: Tensor, ranks: Sequence[int], edges: Sequence[int]) -> Tensor:
    return rows.new_empty((*rows.shape[:-1], len(ranks) + len(edges)))


def traced(rows: Tensor) -> bool:
    """Return whether these rows are being traced, so that work on their values must be a custom operator.

    Otherwise it should not be one: the first call of an operator imports torch's compiler, which takes over a second
    and needs numpy.
    """
    return torch.compiler.is_compiling() or type(rows) is not Tensor or rows.is_meta


def _select(rows: Tensor, ranks: Sequence[int], edges: Sequence[int]) -> Tensor:
    """See :func:`_select_eagerly`; uses the operator only under tracing."""
    if traced(rows):
        return _select_operator(rows, ranks, edges)
    return _select_eagerly(rows, ranks, edges)


class OrderStatistics:
    """The order statistics, window moments and mean of ``rows`` (..., n), each computed once.

    Pass the functionals that will be evaluated, and one selection serves them all; what they did not announce
    is selected on request. All results have shape (..., 1) and carry no autograd history.

    Raises:
        ValueError: rows without samples, or a rank outside 1 ... n.
    """

    def __init__(self, rows: Tensor, *functionals: NeedsRanks) -> None:
        self.rows = rows
        self.n = rows.shape[-1]
        if self.n < 1:
            raise ValueError(
                f"no samples: rows of shape {tuple(rows.shape)}; give at least one sample per row"
            )
        self._kth: dict[int, Tensor] = {}
        self._moments: dict[Window, tuple[Tensor, Tensor]] = {}
        self._once: dict[Hashable, Any] = {}
        ranks: dict[int, None] = {}  # as an ordered set
        windows: dict[Window, None] = {}
        for functional in functionals:
            its_ranks, its_windows = functional.needs(self.n)
            ranks.update(dict.fromkeys(its_ranks))
            windows.update(dict.fromkeys(its_windows))
        self._fetch(list(ranks), list(windows))

    def _fetch(self, ranks: list[int], windows: list[Window]) -> None:
        if not ranks and not windows:
            return
        edges = [edge for window in windows for edge in window]
        for k in (*ranks, *edges):
            if not 1 <= k <= self.n:
                raise ValueError(f"rank {k} of {self.n} samples; ranks go from 1 to {self.n}")
        columns = _select(self.rows, ranks, edges).split(1, -1)
        self._kth.update(zip(ranks, columns, strict=False))
        for i, window in enumerate(windows):
            mean, variance = columns[len(ranks) + 2 * i : len(ranks) + 2 * i + 2]
            self._moments[window] = (mean, variance)

    def kth(self, k: int) -> Tensor:
        """Return the k-th smallest sample of each row (..., 1), 1 <= k <= n."""
        if k not in self._kth:
            self._fetch([k], [])
        return self._kth[k]

    def moments(self, lo: int, hi: int) -> tuple[Tensor, Tensor]:
        """Return mean and variance (divided by the count) of the samples of rank lo ... hi."""
        if (lo, hi) not in self._moments:
            self._fetch([], [(lo, hi)])
        return self._moments[lo, hi]

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return ``compute()``, computed at the first call with this key: this is what S and D of a pair share."""
        if key not in self._once:
            self._once[key] = compute()
        return self._once[key]

    def mean(self) -> Tensor:
        """Return the mean of each row."""
        return self.once("mean", lambda: self.rows.mean(-1, keepdim=True))
