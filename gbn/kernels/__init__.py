"""Forward and backward of ``act(weight * (x - S(x)) / D(x) + bias)``: the one place where a kernel is chosen.

Layers call :func:`normalize` and :func:`normalize_with` and know nothing of implementations:

* ``numba`` (:mod:`gbn.kernels.numba`): fused, for CPU tensors in float32, bfloat16 and float16;
* ``triton`` (:mod:`gbn.kernels.triton`): fused, for CUDA tensors in the same dtypes, and for pairs of the mean, std,
  superquantiles and order statistics;
* ``reference`` (:mod:`gbn.kernels.reference`): eager torch, the formulas of the paper written out. It serves
  everything else (float64, user-defined statistics, machines without numba or Triton) and is what the fused kernels
  are tested against.

All of them treat an infinite or NaN value of x as batch normalization does. In training it turns its whole channel
into NaN (y, S, D and with them the running averages; the gradients of x, the gain and the gate; the gradient of the
bias does not depend on x and stays) and changes nothing in other channels. This holds even where S and D alone would
be finite, as a median among infinities is, so that a run that has diverged shows it. In evaluation each value affects
only itself. Finite values give finite results up to the limits of float32 as long as x - S is finite: the CPU kernels
compute them as float64 would, the GPU kernels up to 1e36; the reference, when traced or on a GPU, stops where squares
overflow float32, at 1e19.

``gate=`` adds instance enhancement (:mod:`gbn.kernels.gate`): inside the passes of ``numba``, as torch operations
around those of ``triton``.

The environment variable ``GBN_KERNELS`` is read once, when this package is imported: ``auto`` (the default) takes the
fused kernels where they apply, ``reference`` never does. :func:`using` overrides it for a block of code.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from torch import Tensor

from gbn.kernels import autograd, reference
from gbn.kernels.activation import ACTIVATIONS, activate
from gbn.kernels.checks import check_batch, check_not_empty, check_vectors
from gbn.kernels.gate import Gate
from gbn.kernels.plan import lowers
from gbn.risk.base import Deviation, Statistic

__all__ = [
    "ACTIVATIONS",
    "KERNELS",
    "activate",
    "failures",
    "implementation",
    "normalize",
    "normalize_with",
    "selected",
    "using",
]

KERNELS = ("auto", "reference")

_NAMES = {"cpu": "numba", "cuda": "triton"}


def _read_choice(text: str) -> str:
    if text not in KERNELS:
        raise ValueError(f"environment variable GBN_KERNELS={text!r}: allowed are {', '.join(KERNELS)}")
    return text


_choice = _read_choice(os.environ.get("GBN_KERNELS", "auto"))


@contextlib.contextmanager
def using(choice: str) -> Iterator[None]:
    """Within this context, in all threads, choose kernels as ``GBN_KERNELS=choice`` would.

    Raises:
        ValueError: ``choice`` is not in :data:`KERNELS`.
    """
    global _choice
    if choice not in KERNELS:
        raise ValueError(f"choice={choice!r}: allowed are {', '.join(KERNELS)}")
    before, _choice = _choice, choice
    try:
        yield
    finally:
        _choice = before


def selected(device: str = "cpu") -> str:
    """Return the implementation used on a device type, as recorded in a run's provenance (never ``auto``).

    Where some kernels could not be compiled (:func:`failures`), this is "numba then reference".
    """
    if _choice == "auto" and autograd.backend(device) is not None:
        return f"{_NAMES[device]} then reference" if device == "cpu" and failures() else _NAMES[device]
    return "reference"


def failures() -> list[str]:
    """Return why requested CPU kernels could not be compiled in this process; empty if all could."""
    if autograd.backend("cpu") is None:
        return []
    from gbn.kernels.numba.objects import failures

    return failures()


def implementation(x: Tensor, statistic: Statistic, deviation: Deviation, gate: Gate | None = None) -> str:
    """Return the name of the implementation that :func:`normalize` would use: numba, triton or reference.

    The first call for a kind of tensor waits until its kernels are compiled.
    """
    if _choice == "auto" and lowers(statistic, deviation):
        device = autograd.device_type(x)
        found = autograd.backend(device)
        if found is not None and found.serves(x) and found.ready(x, gate is not None, statistic, deviation):
            return _NAMES[device]
    return "reference"


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistic: Statistic,
    deviation: Deviation,
    eps: float,
    act: str | None = None,
    gate: Gate | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize each channel with the statistic and the deviation of this batch (training).

    Args:
        x: ``(N, C, *spatial)``, floating point, at least one value per channel, any memory format.
        weight: gain ``(C,)``, or None for 1.
        bias: ``(C,)``, or None for 0.
        statistic: what is subtracted, taken over N and the spatial dimensions.
        deviation: what is divided by; :mod:`gbn.kernels.epsilon` says where ``eps`` goes.
        eps: at least 0.
        act: None or a name in :data:`ACTIVATIONS`.
        gate: None, or ``(gate_weight, gate_bias)``, each ``(C,)``: the gain of image n is then ``weight`` times
            ``sigmoid(gate_weight * mean + gate_bias)``, with the mean of that image's ``x`` over the spatial
            dimensions (:mod:`gbn.kernels.gate`); gradients flow through it.

    Returns:
        ``(y, S, D)``: ``y`` with the shape, dtype and memory format of ``x``; ``S`` and ``D`` of shape
        ``(C,)`` in float32 (float64 for a float64 input), detached, for the running averages.

    Raises:
        ValueError: x has no channel dimension or no values.
        RuntimeError: x is not strided and floating point, or a parameter is not ``(C,)``, floating point, on the
            device of x.
    """
    check_batch(x, weight=weight, bias=bias)
    if gate is not None:
        check_vectors(x, gate_weight=gate[0], gate_bias=gate[1])
    check_not_empty(x)
    if implementation(x, statistic, deviation, gate) != "reference":
        return autograd.normalize(x, weight, bias, statistic, deviation, eps, act, gate)
    return reference.normalize(x, weight, bias, statistic, deviation, eps, act, gate)


def normalize_with(
    x: Tensor,
    statistic_value: Tensor,
    deviation_value: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    deviation: Deviation,
    eps: float,
    act: str | None = None,
    gate: Gate | None = None,
) -> Tensor:
    """Normalize each channel with given values (evaluation): no image depends on another.

    ``statistic_value`` and ``deviation_value`` have shape ``(C,)`` and count as constants; ``deviation`` only
    determines where ``eps`` goes. ``x`` may be empty. The rest is as in :func:`normalize`.
    """
    check_batch(x, statistic_value=statistic_value, deviation_value=deviation_value, weight=weight, bias=bias)
    if gate is not None:
        check_vectors(x, gate_weight=gate[0], gate_bias=gate[1])
    return reference.normalize_with(
        x, statistic_value, deviation_value, weight, bias, deviation, eps, act, gate
    )
