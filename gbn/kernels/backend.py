"""The interface of a device's kernels: their inputs and outputs as plain tensors, without autograd."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from gbn.kernels.gate import Gate
from gbn.kernels.plan import Plan
from gbn.risk.base import Deviation, Statistic

__all__ = ["Arguments", "Backend", "Gradients", "Kept"]


class Arguments(NamedTuple):
    """The inputs of both passes.

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
    """The tensors saved for the backward pass, in float32. The ReLU mask is recomputed from x.

    Attributes:
        s, d: S and D, ``(C,)``.
        record: coefficients of their derivatives (:mod:`gbn.kernels.plan`), ``(C, plan.record)``.
        means: with a gate, the means of x over the spatial dimensions: ``(N, C)``, in any memory format.
    """

    s: Tensor
    d: Tensor
    record: Tensor
    means: Tensor | None = None


class Gradients(NamedTuple):
    """Gradients of x (None where it is not needed) and of the parameters: float32, ``(C,)``."""

    x: Tensor | None
    weight: Tensor
    bias: Tensor
    gate_weight: Tensor | None = None
    gate_bias: Tensor | None = None


class Backend(Protocol):
    """A device's kernels: :mod:`gbn.kernels.numba` and :mod:`gbn.kernels.triton`."""

    #: The package that compiles them.
    REQUIRES: str
    #: Whether they apply a gate. Where they do not, torch operations do: correctly, but in several more passes.
    FUSES_GATE: bool

    def load(self) -> None:
        """Import what the kernels need; raise whatever error that gives."""

    def serves(self, x: Tensor) -> bool:
        """Return whether the kernels take this tensor."""

    def ready(self, x: Tensor, gated: bool, statistic: Statistic, deviation: Deviation) -> bool:
        """Return whether kernels for this pair compile on this machine; may wait for the compiler."""

    def forward(self, of: Arguments) -> tuple[Tensor, Kept]:
        """Return y, with the shape and dtype of x, and what the backward pass needs."""

    def backward(self, g: Tensor, of: Arguments, kept: Kept, wanted: bool) -> Gradients:
        """Return the gradients for g, the gradient of y; ``wanted`` says whether the gradient of x is needed."""
