"""The backward pass: which kernels run, and the buffers between them."""

from __future__ import annotations

import torch
from torch import Tensor

from gbn.kernels.backend import Arguments, Gradients, Kept
from gbn.kernels.plan import POINT

from .geometry import cut, native, next_power
from .gradient import MERGED, gradient, merge, reduce
from .launch_forward import OPTIONS, as_given, on_device, transformed

__all__ = ["backward"]


def backward(g: Tensor, of: Arguments, kept: Kept, wanted: bool) -> Gradients:
    """See :class:`gbn.kernels.backend.Backend`."""
    x, plan, eps, relu = of.x, of.plan, of.eps, of.relu
    s, d, record, _ = kept
    weight, bias = (None if t is None else t.detach().contiguous() for t in (of.weight, of.bias))
    laid = native(x.detach())
    g = g.detach()
    if g.stride() != laid.stride():
        g = torch.empty_like(laid, dtype=g.dtype).copy_(g)
    view = cut(laid)
    channels = view.channels
    partial = torch.empty(2, channels, view.chunks, dtype=torch.float32, device=x.device)
    merged = torch.empty(MERGED + POINT * plan.points, channels, dtype=torch.float32, device=x.device)
    dweight, dbias = torch.empty_like(s), torch.empty_like(s)
    affine = transformed(s, d, weight, bias, eps)
    flags = {"RELU": relu, "ROOT": plan.root, "WEIGHT": weight is not None, "BIAS": bias is not None}
    lies = {"LENGTH": view.length, "SAMPLES": view.samples, "LANES": view.lanes}
    where = (view.n, view.stride, view.step, channels, view.strips)
    with on_device(x):
        reduce[(view.strips * view.chunks,)](
            *(g, laid, *affine[:4], partial, eps, *where, view.tiles, view.chunks, view.per_chunk),
            **lies,
            **flags,
            **OPTIONS,
        )
        merge[(channels,)](
            *(partial, d, record, merged, dweight, dbias, eps, channels, view.chunks),
            CHUNKS=next_power(view.chunks),
            WIDTH=plan.record,
            S_POINTS=plan.statistic.points,
            POINTS=plan.points,
            ROOT=plan.root,
            **OPTIONS,
        )
        if not wanted:
            return Gradients(None, dweight, dbias)
        dx = torch.empty_like(laid)
        gradient[(view.strips * view.tiles,)](
            *(g, laid, dx, *affine[:4], merged, eps, *where),
            POINTS=plan.points,
            BENDS=plan.bends,
            **lies,
            **flags,
            **OPTIONS,
        )
    return Gradients(as_given(dx, x), dweight, dbias)
