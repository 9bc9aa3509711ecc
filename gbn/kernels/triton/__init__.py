"""Fused kernels for CUDA tensors, in Triton: a :class:`gbn.kernels.backend.Backend`.

Forward: exact order statistics in one pass over x, then a pass that writes y. Backward: one pass of sums over x and
g, then one that writes dx. Nothing waits for the device, and all sums have a fixed order. Triton is imported when a
kernel is first needed, never with this package.

The road of one pair, S = quantile and D = cvar, through a training step:

* :mod:`.launch_forward` cuts x into tiles (:mod:`.geometry`); :mod:`.schedule` says what to measure in which pass;
* ``draw`` and ``edges`` (:mod:`.bracket`) bracket each wanted rank by a sample of the channel; ``scan`` counts and
  sums about the brackets and collects what is inside; ``settle`` selects from that, and writes S, D and the record of
  their derivatives (:mod:`.finish`); ``apply`` writes y. Channels of up to 16,384 samples go to ``settle`` at once;
* :mod:`.launch_backward` runs the three kernels of :mod:`.gradient`: ``reduce`` sums g and g (x - S), ``merge`` makes
  one function f of the record and these sums, ``gradient`` writes ``dx = scale (g - f(x))``.

Instance enhancement is not fused here: these kernels normalize, and torch operations compute and apply the gate,
which reads and writes the tensor several more times and keeps x_hat besides x. In half precision x_hat is rounded
before the gate, and the result again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gbn.kernels.backend import Arguments, Gradients, Kept
from gbn.kernels.plan import lower
from gbn.risk.base import Deviation, Statistic

__all__ = ["FUSES_GATE", "REQUIRES", "backward", "forward", "load", "ready", "serves"]

REQUIRES = "triton"
FUSES_GATE = False

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: Offsets are 32-bit integers, and the last tile reaches slightly beyond the last value.
_MOST_VALUES = 2**31 - 2**24
#: The offsets of records, up to 511 numbers per channel, must fit as well.
_MOST_CHANNELS = 2**22
#: With this many samples every order statistic of a pair has its own rank. Which kernels serve a pair must not depend
#: on the number of samples, which a tracer does not know.
_MANY = 2**20


def load() -> None:
    """Import Triton and the kernels, which it compiles at their first call.

    Raises whatever Triton does where it cannot launch one: it builds part of its launcher with a C compiler.
    """
    from triton.runtime import driver

    from . import launch_backward, launch_forward  # noqa: F401

    driver.active.get_current_target()


def serves(x: Tensor) -> bool:
    """Return whether the kernels take this tensor."""
    small = 0 < x.numel() <= _MOST_VALUES and x.dim() > 1 and x.shape[1] <= _MOST_CHANNELS
    return x.is_cuda and x.dtype in _DTYPES and small


def ready(x: Tensor, gated: bool, statistic: Statistic, deviation: Deviation) -> bool:
    """Return whether the kernels measure this pair. Triton compiles at first launch, and raises if it cannot."""
    from .schedule import has_kernels

    return has_kernels(lower(statistic, deviation, _MANY))


def forward(of: Arguments) -> tuple[Tensor, Kept]:
    """See :class:`gbn.kernels.backend.Backend`."""
    from .launch_forward import forward as launch

    return launch(of)


def backward(g: Tensor, of: Arguments, kept: Kept, wanted: bool) -> Gradients:
    """See :class:`gbn.kernels.backend.Backend`."""
    from .launch_backward import backward as launch

    return launch(g, of, kept, wanted)
