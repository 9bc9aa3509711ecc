"""What the kernels of a device are called with, and what they return: plain tensors, without autograd."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from gbn.kernels.gate import Gate
from gbn.kernels.plan import Plan
from gbn.risk.base import Deviation, Statistic

__all__ = ["Arguments", "Backend", "Gradients", "Kept"]


class Arguments(NamedTuple):
    """What both passes are given.

    Attributes:
        x: ``(N, C, *spatial)``, in a dtype that the backend serves, any strides.
        weight: gain ``(C,)``, or None for 1.
        bias: ``(C,)``, or None for 0.
        gate: ``(gate_weight, gate_bias)`` of instance enhancement, each ``(C,)``, or None.
        plan: what is measured in the N * prod(spatial) samples of a channel.
        eps: at least 0; :mod:`gbn.kernels.epsilon` says where it goes.
        relu: whether a ReLU follows.
    """

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    gate: Gate | None
    plan: Plan
    eps: float
    relu: bool


class Kept(NamedTuple):
    """What the forward pass leaves for the backward pass, float32. The ReLU's mask is computed again from x.

    Attributes:
        s, d: S and D, ``(C,)``.
        record: their derivatives (:mod:`gbn.kernels.plan`), ``(C, plan.record)``.
        means: with a gate, those of x over the spatial dimensions: ``(N, C)``, in any memory format.
    """

    s: Tensor
    d: Tensor
    record: Tensor
    means: Tensor | None = None


class Gradients(NamedTuple):
    """Gradients to x (None where it is not wanted), and to the parameters: float32, ``(C,)``."""

    x: Tensor | None
    weight: Tensor
    bias: Tensor
    gate_weight: Tensor | None = None
    gate_bias: Tensor | None = None


class Backend(Protocol):
    """A device's kernels: :mod:`gbn.kernels.numba` and :mod:`gbn.kernels.triton`."""

    #: The package that compiles them.
    REQUIRES: str
    #: Whether they take a gate. Where they don't, torch's own operations apply it: right, in several passes more.
    FUSES_GATE: bool

    def load(self) -> None:
        """Import what the kernels need; raises where that fails."""

    def serves(self, x: Tensor) -> bool:
        """Whether the kernels take this tensor."""

    def ready(self, x: Tensor, gated: bool, statistic: Statistic, deviation: Deviation) -> bool:
        """Whether there are kernels for this pair that can be compiled here; may wait for the compiler."""

    def forward(self, of: Arguments) -> tuple[Tensor, Kept]:
        """Return y, with the shape and dtype of x, and what the backward pass needs."""

    def backward(self, g: Tensor, of: Arguments, kept: Kept, wanted: bool) -> Gradients:
        """Return the gradients, given that to y; ``wanted`` says whether the one to x is."""
