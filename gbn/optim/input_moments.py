"""Sums from which the moments of a layer's inputs are computed, without unfolding a convolution's input.

A layer is ``a = W h + b`` with one column of W per input of a linear layer, or per input channel and tap of a
convolution's kernel. The inputs h of a column are summed over the batch and, for a convolution, over space:

* ``channel``: over the whole map of a channel, one number for all taps of the kernel;
* ``patch``: over the positions that the tap actually visits, padding included, one number per tap. Equal to
  ``channel`` if padding is circular, the stride is 1 and the output is as large as the input.

Sums run over images first and are float64 from there on. A convolution's map of sums is smaller than the data by a
factor of the batch size, so separate sums per tap cost next to nothing.

The variance is a difference of these sums, so the squares must not be rounded to float32 when the mean is thousands
of deviations away from 0. Over images, therefore, differences from the mean and their squares are summed in the
precision of the data (at least float32), and the contribution of the mean itself is added in float64.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["STATISTICS", "Conv", "input_sums"]

STATISTICS = ("channel", "patch")

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


def input_sums(layer: nn.Linear | Conv, x: Tensor, statistics: str) -> tuple[Tensor, int]:
    """Return the sums of a layer's inputs and of their squares.

    Args:
        layer: only its geometry is used, not its values.
        x: detached; ``(..., in_features)`` for a linear layer, ``([N,] C, *spatial)`` for a convolution.
        statistics: ``channel`` or ``patch``; ignored for a linear layer.

    Returns:
        (sums, rows): sums of shape (2, columns) in float64 with columns = in_features, or C, or C * taps (the taps of
        a channel are adjacent); rows is the number of terms of each sum.
    """
    if isinstance(layer, nn.Linear):
        matrix = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        return _column_sums(matrix), matrix.shape[0]
    if x.dim() == len(layer.kernel_size) + 1:
        x = x.unsqueeze(0)
    if statistics == "patch":
        sums, positions = _sums_by_taps(layer, _maps(x))
        return sums, x.shape[0] * positions
    if x.is_contiguous():
        return _maps(x).flatten(2).sum(2), x.numel() // x.shape[1]
    matrix = x.movedim(1, -1).reshape(-1, x.shape[1])  # a view if channels are last in memory
    return _column_sums(matrix), matrix.shape[0]


def _maps(x: Tensor) -> Tensor:
    """Map (N, C, *spatial) to (2, C, *spatial) in float64: values and squares, summed over images."""
    return _column_sums(x.flatten(1)).unflatten(1, x.shape[1:])


def _column_sums(matrix: Tensor) -> Tensor:
    """Map (rows, columns) to (2, columns) in float64: sums of values and of squares."""
    rows = matrix.shape[0]
    if rows <= 1:
        matrix = matrix.double()
        return torch.stack((matrix.sum(0), matrix.square().sum(0)))
    if matrix.dtype in (torch.float16, torch.bfloat16):
        matrix = matrix.float()
    center = matrix.mean(0)
    centered = matrix - center
    rest, squares = centered.sum(0).double(), centered.mul_(centered).sum(0).double()
    center = center.double()
    shift = rows * center
    return torch.stack((shift + rest, squares + center * (shift + 2 * rest)))


def _sums_by_taps(layer: Conv, maps: Tensor) -> tuple[Tensor, int]:
    """Sum (2, C, *spatial) to (2, C * taps) over the positions that each tap visits; also return their number."""
    dims = len(layer.kernel_size)
    # torch's own list, in the order of F.pad, with padding="same" resolved.
    padding = list(layer._reversed_padding_repeated_twice)
    if any(padding):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        maps = F.pad(maps, padding, mode=mode)
    positions = 1
    for i in range(dims):
        kernel, stride, dilation = layer.kernel_size[i], layer.stride[i], layer.dilation[i]
        outputs = (maps.shape[2 + i] - dilation * (kernel - 1) - 1) // stride + 1
        # A view: the axis becomes the taps, and the positions that each one visits form a new last axis.
        windows = maps.unfold(2 + i, stride * (outputs - 1) + 1, dilation)
        maps = windows.narrow(2 + i, 0, kernel)[..., ::stride]
        positions *= outputs
    return maps.sum(tuple(range(2 + dims, 2 + 2 * dims))).flatten(1), positions
