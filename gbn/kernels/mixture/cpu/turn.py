"""Turning a matrix: channels that lie side by side into planes, and back, in squares of 16."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from gbn.kernels.cpu import objects
from gbn.kernels.cpu.compiling import compiled, entry_point
from gbn.kernels.cpu.convert import transpose
from gbn.kernels.cpu.launch import run_entry
from gbn.kernels.cpu.memory import claim, fence, floats, integers
from gbn.kernels.cpu.simd import LANES

__all__ = ["TURN", "to_planes"]

#: The entry point's name.
TURN = "gbn.kernels.mixture.cpu.turn:turn"

_NEXT, _ROWS, _COLUMNS, _SOURCE, _TARGET = range(5)
#: Rows that a thread claims: of a matrix of 64 columns, as many as fill a sixteenth of a level-2 cache.
_SHARE = 256


@compiled
def _turn(address):
    a = integers(address)
    source, target, rows, columns = floats(a[_SOURCE]), floats(a[_TARGET]), a[_ROWS], a[_COLUMNS]
    while True:
        begin = claim(a, _NEXT) * _SHARE
        if begin >= rows:
            break
        end = min(begin + _SHARE, rows)
        for j in range(0, columns, LANES):
            for i in range(begin, end, LANES):
                if i + LANES <= rows and j + LANES <= columns:
                    transpose(source, i * columns + j, columns, target, j * rows + i, rows)
                    continue
                for row in range(i, min(i + LANES, end)):
                    for column in range(j, min(j + LANES, columns)):
                        target[column * rows + row] = source[row * columns + column]
    fence()


@entry_point
def turn(address):
    """The entry point."""
    _turn(address)


def to_planes(x: Tensor, turned: Tensor | None = None) -> Tensor:
    """(M, C) -> (C, M), float32 and contiguous both; or into ``turned``, whose memory is that of such a matrix."""
    rows, columns = x.shape
    turned = x.new_empty((columns, rows)) if turned is None else turned
    table = (ctypes.c_int64 * 5)(0, rows, columns, x.data_ptr(), turned.data_ptr())
    threads = min(torch.get_num_threads(), -(-rows // _SHARE))
    run_entry(objects.entry(TURN), ctypes.addressof(table), threads)
    return turned
