"""The forward pass: which kernels run on an input, and the buffers between them."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gbn.kernels.backend import Arguments, Kept
from gbn.kernels.plan import Plan

from .apply import apply
from .bracket import draw, edges, sample_ranks, sample_size
from .geometry import View, cut, cut_rows, native, next_power
from .scan import scan
from .schedule import Stage, has_kernels, numbers_on, ranks_on, schedule
from .settle import settle

__all__ = ["OPTIONS", "Affine", "affine_of", "as_given", "forward", "on_device"]

#: Options of every kernel: a product and a sum may be fused. Triton 3.9 warns if this is not given, since its default
#: is changing.
OPTIONS = {"enable_fp_fusion": True}

#: Samples of a channel that one program selects from directly. Beyond this, drawing a sample and narrowing takes less
#: time than some 16 to 30 walks of one multiprocessor over the channel.
_SMALL = 16384
#: Bytes of an input that the level-2 cache keeps between passes: one pass that finds everything and one that writes y
#: are then faster than two that each do half, with one kernel more.
_CACHED = 1 << 25
#: Room for the samples in brackets: a multiple of the expected number, and a constant on top.
_ROOM, _MORE = 1.5, 1024
_SHIFTS = {torch.float32: 0, torch.bfloat16: 16, torch.float16: 13}


def on_device(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which kernels for x are launched."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


class Affine(NamedTuple):
    """The map from x to y, as kernels take it.

    Attributes:
        weight, bias: ``(C,)``, contiguous, or None.
        eps: where it goes, ``flags["ROOT"]`` says.
        flags: the constants RELU, ROOT, WEIGHT and BIAS.
    """

    weight: Tensor | None
    bias: Tensor | None
    eps: float
    flags: dict[str, bool]

    def numbers(self, s: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return S, D, weight and bias; in the place of what is missing stands S, which is then not read."""
        return s, d, s if self.weight is None else self.weight, s if self.bias is None else self.bias


def affine_of(of: Arguments) -> Affine:
    """Return the map of a call."""
    weight, bias = (None if t is None else t.detach().contiguous() for t in (of.weight, of.bias))
    flags = {"RELU": of.relu, "ROOT": of.plan.root, "WEIGHT": weight is not None, "BIAS": bias is not None}
    return Affine(weight, bias, of.eps, flags)


def forward(of: Arguments) -> tuple[Tensor, Kept]:
    """See :class:`gbn.kernels.backend.Backend`.

    Raises:
        RuntimeError: there are no kernels for the pair.
    """
    x, plan = of.x, of.plan
    if not has_kernels(plan):
        raise RuntimeError(
            "gbn's GPU kernels serve the mean, std, superquantiles and a few order statistics, but this graph asks "
            "for another pair: compile under GBN_KERNELS=reference"
        )
    affine, laid = affine_of(of), native(x.detach())
    y, view = torch.empty_like(laid), cut(laid)
    with on_device(x):
        if view.n <= _SMALL:
            kept = _directly(laid, view, plan)
        else:
            stages = _stages(laid, plan)
            kept = _scanning(laid, y, view, plan, stages, affine)
            if len(stages) == 2:
                return as_given(y, x), kept  # the second pass over x has written y
        numbers = affine.numbers(kept.s, kept.d)
        apply[(view.strips * view.tiles,)](
            *(laid, y, *numbers, affine.eps, *view.addresses),
            **view.tile,
            **affine.flags,
            **OPTIONS,
        )
    return as_given(y, x), kept


def as_given(y: Tensor, x: Tensor) -> Tensor:
    """Return y in the strides that an elementwise operation on x would give its result."""
    if y.stride() == x.stride():
        return y
    like = torch.empty_like(x)
    return y if like.stride() == y.stride() else like.copy_(y)


def _new(x: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=x.device)


def _results(view: View, x: Tensor, plan: Plan) -> Kept:
    channels = view.channels
    return Kept(_new(x, channels), _new(x, channels), _new(x, channels, plan.record))


def _directly(x: Tensor, view: View, plan: Plan) -> Kept:
    """Find everything about a channel in one program; adjacent channels are first copied to rows."""
    if view.length == 1 and view.channels > 1:
        x = x.movedim(1, 0).flatten(1).contiguous()
        view = cut_rows(x)
    results = _results(view, x, plan)
    _settle(x, x, None, None, view, plan, schedule(plan).joint, results, direct=True)
    return results


def _stages(x: Tensor, plan: Plan) -> list[Stage]:
    planned = schedule(plan)
    if planned.second is None:
        return [planned.first]
    return [planned.joint] if x.nbytes <= _CACHED else [planned.first, planned.second]


class _Narrowed:
    """Brackets of all ranks that a schedule will ask for, and the counters of the scans that use them."""

    def __init__(self, x: Tensor, view: View, stages: list[Stage]) -> None:
        self.ranks = [rank for stage in stages for rank in stage.ranks]
        self.kept = _new(x, len(stages), view.channels, dtype=torch.int32)
        self.brackets = _new(x, max(1, len(self.ranks)), 2, view.channels)
        self.m = sample_size(view.n)
        if not self.ranks:
            return
        sample = _new(x, view.channels, self.m, dtype=x.dtype)
        drawn = min(self.m, max(16, 1024 // view.lanes))
        draw[(view.strips * (self.m // drawn),)](
            *(x, sample, *view.addresses),
            LENGTH=view.length,
            LANES=view.lanes,
            M=self.m,
            DRAWN=drawn,
            **OPTIONS,
        )
        targets = tuple(k for rank in self.ranks for k in sample_ranks(rank, view.n, self.m))
        edges[(view.channels * len(self.ranks),)](
            *(sample, ranks_on(targets, x.device), self.brackets, self.kept),
            *(view.channels, len(stages), len(self.ranks)),
            M=self.m,
            SHIFT=_SHIFTS[x.dtype],
            num_warps=8,
            **OPTIONS,
        )

    def capacity(self, stage: Stage, n: int) -> int:
        """Return the number of samples per channel that a scan has room for."""
        shares = [(high - low) / self.m for low, high in (sample_ranks(k, n, self.m) for k in stage.ranks)]
        room = min(n, int(_ROOM * sum(shares) * n) + _MORE)
        return -(-room // 16) * 16


class _Scan:
    """The outputs of a stage's scan; shapes are those of :func:`.scan.scan`."""

    def __init__(
        self, x: Tensor, view: View, stage: Stage, narrowed: _Narrowed, first: int, number: int
    ) -> None:
        self.capacity = narrowed.capacity(stage, view.n)
        self.brackets, self.kept = narrowed.brackets[first:], narrowed.kept[number]
        self.buffer = _new(x, view.channels, self.capacity if stage.ranks else 1, dtype=x.dtype)
        self.counts = _new(x, 2, max(1, len(stage.ranks)), view.channels, view.chunks, dtype=torch.int32)
        self.sums = _new(x, max(1, stage.sums), view.channels, view.chunks)
        self.pivots = _new(x, view.channels)


def _scanning(x: Tensor, y: Tensor, view: View, plan: Plan, stages: list[Stage], affine: Affine) -> Kept:
    """Bracket ranks by a sample, then run one pass per stage; the second one also writes y."""
    narrowed = _Narrowed(x, view, stages)
    results = _results(view, x, plan)
    found = _new(x, view.channels, max(1, len(stages[0].ranks)))
    first = 0
    for number, stage in enumerate(stages):
        left = _Scan(x, view, stage, narrowed, first, number)
        first += len(stage.ranks)
        scan[(view.strips * view.chunks,)](
            *(x, left.brackets, left.buffer, left.kept, left.counts, left.sums, left.pivots, y),
            *(*affine.numbers(results.s, results.d), affine.eps, *view.addresses),
            *(view.tiles, view.chunks, view.per_chunk, left.capacity, 0),
            **view.tile,
            R=len(stage.ranks),
            WINDOWS=stage.windows,
            SQUARES=stage.squares,
            TAILS=stage.tails,
            TOTAL=stage.total,
            WRITE=number == 1,
            **affine.flags,
            **OPTIONS,
        )
        _settle(x, left.buffer, left, found, view, plan, stage, results, direct=False)
    return results


def _settle(
    x: Tensor,
    buffer: Tensor,
    left: _Scan | None,
    found: Tensor | None,
    view: View,
    plan: Plan,
    stage: Stage,
    results: Kept,
    direct: bool,
) -> None:
    s, d, record, _ = results
    if found is None:
        found = _new(x, view.channels, max(1, len(stage.ranks)))
    scanned = (s,) * 5 if left is None else (left.kept, left.brackets, left.counts, left.sums, left.pivots)
    of_s, of_d = plan.statistic, plan.deviation
    source = view.n if direct else left.capacity if left is not None and stage.ranks else 1
    # the tile times the number of ranks has to fit in registers
    tile = max(16, min(4096 if len(stage.ranks) <= 2 else 2048, next_power(source)))
    settle[(view.channels,)](
        *(
            x,
            buffer,
            *scanned,
            ranks_on(stage.ranks, x.device),
            numbers_on(plan, x.device),
            found,
            s,
            d,
            record,
        ),
        *(view.n, view.stride, view.step, view.channels, 0 if left is None else left.capacity, view.chunks),
        LENGTH=view.length,
        TILE=tile,
        CHUNKS=next_power(view.chunks),
        SHIFT=_SHIFTS[x.dtype],
        DIRECT=direct,
        R=len(stage.ranks),
        RP=next_power(len(stage.ranks)),
        WINDOWS=stage.windows,
        WP=next_power(len(stage.windows)),
        SQUARES=stage.squares,
        TAILS=stage.tails,
        TOTAL=stage.total,
        WIDTH=plan.record,
        FOUND=found.shape[1],
        MEASURES=stage.measures,
        S_KIND=of_s.kind,
        S_MODE=of_s.mode,
        S_VALUES=stage.values[0],
        D_KIND=of_d.kind,
        D_MEAN=int(of_d.numbers[0]),
        D_VALUES=stage.values[1],
        D_TERM=len(of_s.terms),
        POINTS=stage.points,
        EDGES=stage.edges,
        num_warps=16 if tile >= 2048 else 4,
        **OPTIONS,
    )
