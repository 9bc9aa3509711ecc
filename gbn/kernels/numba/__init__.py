"""Fused kernels for CPU tensors: compiled by numba, run by torch's own threads.

The road of one pair, S = quantile and D = cvar, through a training step:

* :mod:`.launch` lays x out (:mod:`.layout`), allocates what is returned, writes the plan (:mod:`.encode`) and the
  tensors' addresses into one table (:mod:`.call`) and calls an entry point of :mod:`.passes` from every thread;
* ``forward`` claims channels; for each, :mod:`.measure` finds the order statistics (:mod:`.select`, :mod:`.search`),
  sums about them (:mod:`.sums`) and writes S, D and the record of their derivatives (:mod:`.record`); while the
  channel is still in the cache, :mod:`.elementwise` writes ``y = weight (x - S) / D' + bias``, then the ReLU;
* ``backward`` sums g and g (x - S) over the channel, merges the record with these two sums into one function f, and
  writes ``dx = scale g + f(x)`` (:mod:`gbn.kernels.reference` has the formula).

Where channels are adjacent in memory, threads share positions instead and y, the sums and dx have passes of their own
(:mod:`.passes_last`, :mod:`.elementwise_last`). :mod:`.gate` adds instance enhancement to the same passes. Everything
is written in vectors of 16 (:mod:`.simd`, :mod:`.memory`, :mod:`.convert`); :mod:`.compiling`, :mod:`.build`,
:mod:`.objects` and :mod:`.cache` make machine code of it, once per machine.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from gbn.kernels.backend import Arguments, Gradients, Kept
from gbn.kernels.plan import is_common
from gbn.risk.base import Deviation, Statistic

from .layout import layout

__all__ = ["FUSES_GATE", "REQUIRES", "backward", "forward", "load", "ready", "serves"]

REQUIRES = "numba"
FUSES_GATE = True

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def load() -> None:
    """Import what calls the kernels; they are compiled, or read from the cache, at the first call."""
    _launch()


@functools.cache
def _launch() -> Any:
    # not imported with this package: a machine without numba runs the reference
    from . import launch

    return launch


def serves(x: Tensor) -> bool:
    """Return whether the kernels take this tensor: on the CPU, float32 or half precision, not empty."""
    return x.is_cpu and x.dtype in _DTYPES and x.numel() > 0


def ready(x: Tensor, gated: bool, statistic: Statistic, deviation: Deviation) -> bool:
    """Return whether the kernels for such a tensor and pair compile here; the first call waits for them."""
    return _working(layout(x), gated, is_common(statistic, deviation))


def _working(site: int, gated: bool, common: bool) -> bool:
    names = _launch().entries(site, gated, common)
    found: bool = _launch().objects.working(names)
    return found


# A tracer asks once and writes the answer into its graph. This is what torch.compiler.assume_constant_result does,
# but without importing the compiler, which takes two seconds.
_working._dynamo_marked_constant = True  # type: ignore[attr-defined]


def forward(of: Arguments) -> tuple[Tensor, Kept]:
    """See :class:`gbn.kernels.backend.Backend`."""
    found: tuple[Tensor, Kept] = _launch().forward(of)
    return found


def backward(g: Tensor, of: Arguments, kept: Kept, wanted: bool) -> Gradients:
    """See :class:`gbn.kernels.backend.Backend`."""
    found: Gradients = _launch().backward(g, of, kept, wanted)
    return found
