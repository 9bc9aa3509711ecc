"""From torch tensors to the compiled entry points with instance enhancement (:mod:`.gate`)."""

from __future__ import annotations

import torch
from torch import Tensor

from gbn.kernels.backend import Arguments, Gradients, Kept
from gbn.kernels.gate import Gate

from .gate import TOTALS
from .launch import address, layout_of, like, plain, start
from .passes_last import pieces_of
from .rows import LAST, PLANES
from .simd import LANES

__all__ = ["run_backward_gated", "run_forward_gated"]


def _row_numbers(x: Tensor, pieces: int = 1) -> Tensor:
    """Return room for one number per row, or per piece of a row, and a vector more: loops over rows read ahead."""
    return x.new_empty(x.shape[0] * x.shape[1] * pieces + LANES, dtype=torch.float32)


def run_forward_gated(of: Arguments, gate: Gate) -> tuple[Tensor, Kept]:
    """See :class:`gbn.kernels.backend.Backend`; this is the pass with a gate."""
    x, layout = layout_of(of.x)
    y = torch.empty_like(x)
    channels = x.shape[1]
    s, d = (x.new_empty(channels, dtype=torch.float32) for _ in range(2))
    record = x.new_empty((channels, of.plan.record), dtype=torch.float32)
    shape = (channels, x.shape[0]) if layout == PLANES else (x.shape[0], channels)
    means = x.new_empty(shape, dtype=torch.float32)
    parameters = [plain(one) for one in (of.weight, of.bias, *gate)]
    tensors = (x, y, None, s, d, record, *parameters[:2], None, None, None)
    of_gate = (*parameters[2:], None, None, means, _row_numbers(x), None, None)
    addresses = [address(one) for one in (*tensors, *of_gate)]
    for name in ("forward",) if layout == PLANES else ("forward", "normalize_spans"):
        start(name, x, layout, of, False, addresses)
    return y, Kept(s, d, record, means.t() if layout == PLANES else means)


def run_backward_gated(g: Tensor, of: Arguments, gate: Gate, kept: Kept, wanted: bool) -> Gradients:
    """See :class:`gbn.kernels.backend.Backend`; this is the pass with a gate."""
    assert kept.means is not None
    x, layout = layout_of(of.x)
    g = like(g, x, layout)
    dx = torch.empty_like(x) if wanted else None
    gradients = [torch.empty_like(kept.s) for _ in range(4)]
    partial, pieces = None, 1
    if layout == LAST:
        partial = x.new_empty((-(-x.shape[1] // LANES), TOTALS, LANES), dtype=torch.float64)
        pieces = pieces_of(x.shape[0], x.shape[1], x.numel() // (x.shape[0] * x.shape[1]))
    parameters = [plain(one) for one in (of.weight, of.bias, *gate)]
    tensors = (x, dx, g, kept.s, kept.d, kept.record, *parameters[:2], *gradients[:2], partial)
    means = (kept.means.t() if layout == PLANES else kept.means).contiguous()
    rows = (means, _row_numbers(x), _row_numbers(x, pieces), _row_numbers(x, pieces))
    addresses = [address(one) for one in (*tensors, *parameters[2:], *gradients[2:], *rows)]
    last = ("reduce_spans", "settle_blocks", "differentiate_spans")
    for name in ("backward",) if layout == PLANES else last:
        start(name, x, layout, of, wanted, addresses)
    return Gradients(dx, *gradients)
