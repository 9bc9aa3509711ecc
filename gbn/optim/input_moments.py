"""Sums that the moments of a layer's inputs are made from, without unfolding a convolution's input.

A layer is ``a = W h + b`` with a column of W for each input of a linear layer, or for each input channel and tap of a
convolution's kernel. The inputs h of a column are summed over the batch and, for a convolution, over space:

* ``channel``: over the whole map of a channel, one number for all taps of the kernel;
* ``patch``: over the positions that the tap really visits, padding included, one number a tap. Equal to ``channel``
  where padding is circular, the stride 1 and the output as large as the input.

Sums run over images first and are float64 from there on. A convolution's map of sums is smaller than the data by the
size of the batch, so telling taps apart costs next to nothing.

The variance will be a difference of these sums, so the squares must not be rounded to float32 where the mean is
thousands of deviations from 0: over images differences from the mean and their squares are added up, in the precision
of the data (float32 at least), and what the mean itself adds in float64.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["STATISTICS", "Conv", "input_sums"]

STATISTICS = ("channel", "patch")

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


def input_sums(layer: nn.Linear | Conv, x: Tensor, statistics: str) -> tuple[Tensor, int]:
    """Sums of a layer's inputs and of their squares.

    Args:
        layer: its geometry is read, not its values.
        x: detached; ``(..., in_features)`` for a linear layer, ``([N,] C, *spatial)`` for a convolution.
        statistics: ``channel`` or ``patch``; without meaning for a linear layer.

    Returns:
        (sums, rows): sums of shape (2, columns) in float64 with columns = in_features, or C, or C * taps (the taps of
        a channel together); rows is the number of terms of each sum.
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
    matrix = x.movedim(1, -1).reshape(-1, x.shape[1])  # a view where channels lie last in memory
    return _column_sums(matrix), matrix.shape[0]


def _maps(x: Tensor) -> Tensor:
    """(N, C, *spatial) -> (2, C, *spatial) in float64: values and squares, summed over images."""
    return _column_sums(x.flatten(1)).unflatten(1, x.shape[1:])


def _column_sums(matrix: Tensor) -> Tensor:
    """(rows, columns) -> (2, columns) in float64: sums of values and of squares."""
    rows = matrix.shape[0]
    if rows <= 1:
        matrix = matrix.double()
        return torch.stack((matrix.sum(0), matrix.square().sum(0)))
    if matrix.dtype in (torch.float16, torch.bfloat16):
        matrix = matrix.float()
    centre = matrix.mean(0)
    centred = matrix - centre
    rest, squares = centred.sum(0).double(), centred.mul_(centred).sum(0).double()
    centre = centre.double()
    shift = rows * centre
    return torch.stack((shift + rest, squares + centre * (shift + 2 * rest)))


def _sums_by_taps(layer: Conv, maps: Tensor) -> tuple[Tensor, int]:
    """(2, C, *spatial) -> (2, C * taps), over the positions that each tap visits, and how many these are."""
    dims = len(layer.kernel_size)
    # torch's own list, in the order of F.pad, with padding="same" worked out.
    padding = list(layer._reversed_padding_repeated_twice)
    if any(padding):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        maps = F.pad(maps, padding, mode=mode)
    positions = 1
    for i in range(dims):
        kernel, stride, dilation = layer.kernel_size[i], layer.stride[i], layer.dilation[i]
        outputs = (maps.shape[2 + i] - dilation * (kernel - 1) - 1) // stride + 1
        # A view: the axis becomes the taps, and what each visits lies along a new last axis.
        windows = maps.unfold(2 + i, stride * (outputs - 1) + 1, dilation)
        maps = windows.narrow(2 + i, 0, kernel)[..., ::stride]
        positions *= outputs
    return maps.sum(tuple(range(2 + dims, 2 + 2 * dims))).flatten(1), positions
