"""How the channels of a tensor lie in memory, and how large a piece of them one program takes.

Sample j of channel c stands at ``(j // length) * stride + j % length + c * step``:

* NCHW ("planes"): length = H W, stride = C H W, step = H W; a tile is 1 channel x ``samples`` samples;
* channels_last and (N, C) ("columns"): length = 1, stride = C, step = 1; a tile is ``lanes`` channels x ``samples``.

Kernels see tiles of shape (1, samples, lanes), lanes = 1 for planes: one body serves both, and the leading 1 is
where several ranks stand side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

__all__ = ["View", "cut", "cut_rows", "native", "next_power"]

#: Values of a tile at 4 warps: 16 a thread, so that two to four 16-byte loads are in flight before the first is
#: used and few kernels need more than 128 registers (twice as many needed 255, and one block in two found room).
_TILE = 2048
#: Channels of a column tile: 128 bytes of the shortest dtype, a full line.
_LANES = 64
#: Programs of a pass that sums: some 8 for each of a Hopper GPU's 132 multiprocessors, so that the last ones
#: to finish leave little of it idle.
_PROGRAMS = 1056


@dataclass(frozen=True)
class View:
    """Where the samples lie and how they are cut; see the module.

    Attributes:
        channels, n: C, and the samples of each.
        length, stride, step: the addresses.
        lanes, samples: a tile's size, powers of 2.
        strips: groups of ``lanes`` channels.
        tiles: tiles that a strip has.
        chunks: programs that share a strip's tiles in a pass that sums.
    """

    channels: int
    n: int
    length: int
    stride: int
    step: int
    lanes: int
    samples: int
    strips: int
    tiles: int
    chunks: int

    @property
    def per_chunk(self) -> int:
        """Tiles of one program."""
        return -(-self.tiles // self.chunks)


def next_power(count: int) -> int:
    """The smallest power of 2 that is at least count."""
    return 1 << max(count - 1, 0).bit_length()


def _columns(x: Tensor) -> bool:
    """Whether the values of all channels at one place lie side by side."""
    return x.movedim(1, -1).is_contiguous()


def native(x: Tensor) -> Tensor:
    """x itself where the kernels can walk it as it lies, else a contiguous copy."""
    return x if x.is_contiguous() or _columns(x) else x.contiguous()


def cut(x: Tensor) -> View:
    """The view of a tensor (N, C, *spatial) as :func:`native` returns it."""
    channels, n = x.shape[1], x.numel() // x.shape[1]
    length = n // x.shape[0]
    planes = x.is_contiguous() and (length > 1 or channels == 1)
    return _cut(planes, channels, n, length)


def cut_rows(rows: Tensor) -> View:
    """The view of contiguous rows (C, n)."""
    return _cut(True, rows.shape[0], rows.shape[1], rows.shape[1])


@lru_cache(maxsize=1024)
def _cut(planes: bool, channels: int, n: int, length: int) -> View:
    lanes = 1 if planes else min(_LANES, next_power(channels))
    samples = _TILE // lanes
    strips, tiles = -(-channels // lanes), -(-n // samples)
    chunks = max(1, min(tiles, -(-_PROGRAMS // strips)))
    chunks = -(-tiles // -(-tiles // chunks))  # none without a tile
    if planes:
        return View(channels, n, length, channels * length, length, lanes, samples, strips, tiles, chunks)
    return View(channels, n, 1, channels, 1, lanes, samples, strips, tiles, chunks)
