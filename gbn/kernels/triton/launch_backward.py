"""The backward pass: which kernels run, and the buffers between them."""

from __future__ import annotations

import torch
from torch import Tensor

from gbn.kernels.backend import Arguments, Gradients, Kept
from gbn.kernels.plan import POINT

from .geometry import cut, native, next_power
from .gradient import MERGED, gradient, merge, reduce
from .launch_forward import OPTIONS, affine_of, as_given, on_device

__all__ = ["backward"]


def backward(g: Tensor, of: Arguments, kept: Kept, wanted: bool) -> Gradients:
    """See :class:`gbn.kernels.backend.Backend`."""
    x, plan, affine = of.x, of.plan, affine_of(of)
    s, d, record, _ = kept
    laid, g = native(x.detach()), g.detach()
    if g.stride() != laid.stride():
        g = torch.empty_like(laid, dtype=g.dtype).copy_(g)
    view = cut(laid)
    channels = view.channels
    partial = torch.empty(2, channels, view.chunks, dtype=torch.float32, device=x.device)
    merged = torch.empty(MERGED + POINT * plan.points, channels, dtype=torch.float32, device=x.device)
    dweight, dbias = torch.empty_like(s), torch.empty_like(s)
    numbers = affine.numbers(s, d)
    with on_device(x):
        # sums over the chunks of each strip, then one program per channel adds them up and merges the record ...
        reduce[(view.strips * view.chunks,)](
            *(g, laid, *numbers, partial, of.eps, *view.addresses, view.tiles, view.chunks, view.per_chunk),
            **view.tile,
            **affine.flags,
            **OPTIONS,
        )
        merge[(channels,)](
            *(partial, d, record, merged, dweight, dbias, of.eps, channels, view.chunks),
            CHUNKS=next_power(view.chunks),
            WIDTH=plan.record,
            S_POINTS=plan.statistic.points,
            POINTS=plan.points,
            ROOT=plan.root,
            **OPTIONS,
        )
        if not wanted:
            return Gradients(None, dweight, dbias)
        # ... with which dx is an elementwise function of x and g
        dx = torch.empty_like(laid)
        gradient[(view.strips * view.tiles,)](
            *(g, laid, dx, *numbers, merged, of.eps, *view.addresses),
            POINTS=plan.points,
            BENDS=plan.bends,
            **view.tile,
            **affine.flags,
            **OPTIONS,
        )
    return Gradients(as_given(dx, x), dweight, dbias)
