"""The layout of a tensor's channels in memory, and the size of the piece that one program takes.

Sample j of channel c is at offset ``(j // length) * stride + j % length + c * step``:

* NCHW ("planes"): length = H W, stride = C H W, step = H W; a tile is 1 channel x ``samples`` samples;
* channels_last and (N, C) ("columns"): length = 1, stride = C, step = 1; a tile is ``lanes`` channels x ``samples``.

Kernels see tiles of shape (1, samples, lanes), lanes = 1 for planes: one body serves both, and the leading 1 is the
axis for several ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

__all__ = ["View", "cut", "cut_rows", "native", "next_power"]

#: Values per tile at 4 warps: 16 per thread, so that two to four 16-byte loads are in flight before the first is
#: used and few kernels need more than 128 registers (twice as many needed 255, which halved the occupancy).
_TILE = 2048
#: Channels per column tile: 128 bytes of the shortest dtype, a full cache line.
_LANES = 64
#: Programs of a summing pass: some 8 for each of a Hopper GPU's 132 multiprocessors, so that the last ones to finish
#: leave little of it idle.
_PROGRAMS = 1056


@dataclass(frozen=True)
class View:
    """The addresses of the samples and how they are tiled; see the module docstring.

    Attributes:
        channels, n: C, and the samples per channel.
        length, stride, step: the addresses.
        lanes, samples: size of a tile, powers of 2.
        strips: number of groups of ``lanes`` channels.
        tiles: tiles per strip.
        chunks: programs that share a strip's tiles in a summing pass.
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
        """Tiles per program."""
        return -(-self.tiles // self.chunks)

    @property
    def addresses(self) -> tuple[int, ...]:
        """The arguments n, stride, step, channels, strips of the kernels."""
        return self.n, self.stride, self.step, self.channels, self.strips

    @property
    def tile(self) -> dict[str, int]:
        """The constants LENGTH, SAMPLES, LANES of the kernels."""
        return {"LENGTH": self.length, "SAMPLES": self.samples, "LANES": self.lanes}


def next_power(count: int) -> int:
    """Return the smallest power of 2 that is at least count."""
    return 1 << max(count - 1, 0).bit_length()


def _columns(x: Tensor) -> bool:
    """Return whether the values of all channels at one position are contiguous."""
    return x.movedim(1, -1).is_contiguous()


def native(x: Tensor) -> Tensor:
    """Return x itself if the kernels can address it in place, else a contiguous copy."""
    return x if x.is_contiguous() or _columns(x) else x.contiguous()


def cut(x: Tensor) -> View:
    """Return the view of a tensor (N, C, *spatial) as returned by :func:`native`."""
    channels, n = x.shape[1], x.numel() // x.shape[1]
    length = n // x.shape[0]
    planes = x.is_contiguous() and (length > 1 or channels == 1)
    return _cut(planes, channels, n, length)


def cut_rows(rows: Tensor) -> View:
    """Return the view of contiguous rows (C, n)."""
    return _cut(True, rows.shape[0], rows.shape[1], rows.shape[1])


@lru_cache(maxsize=1024)
def _cut(planes: bool, channels: int, n: int, length: int) -> View:
    lanes = 1 if planes else min(_LANES, next_power(channels))
    samples = _TILE // lanes
    strips, tiles = -(-channels // lanes), -(-n // samples)
    chunks = max(1, min(tiles, -(-_PROGRAMS // strips)))
    chunks = -(-tiles // -(-tiles // chunks))  # so that no chunk is without a tile
    if planes:
        return View(channels, n, length, channels * length, length, lanes, samples, strips, tiles, chunks)
    return View(channels, n, 1, channels, 1, lanes, samples, strips, tiles, chunks)
