"""The two layouts in memory in which kernels read a batch; needs only torch."""

from __future__ import annotations

from torch import Tensor

__all__ = ["LAST", "PLANES", "layout", "layout_of", "like"]

#: PLANES, (N, C, L): channel c of each image is a run of L values. LAST, (N, L, C): channels are adjacent.
PLANES, LAST = range(2)


def layout(x: Tensor) -> int:
    """Return the layout in which kernels read x; a tensor in neither layout is copied to planes."""
    if x.numel() == x.shape[0] * x.shape[1]:  # one value per image and channel: both layouts are the same
        return LAST
    return LAST if not x.is_contiguous() and x.movedim(1, -1).is_contiguous() else PLANES


def layout_of(x: Tensor) -> tuple[Tensor, int]:
    """Return x, copied if it is in neither layout, and its layout."""
    found = layout(x)
    if found == PLANES:
        return x.contiguous(), PLANES
    return x.movedim(1, -1).contiguous().movedim(-1, 1), LAST


def like(g: Tensor, x: Tensor, layout: int) -> Tensor:
    """Return the cotangent in x's layout and dtype."""
    if g.dtype != x.dtype:
        g = g.to(x.dtype)
    return g.contiguous() if layout == PLANES else g.movedim(1, -1).contiguous().movedim(-1, 1)
