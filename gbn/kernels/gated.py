"""Instance enhancement on the fused kernels: autograd and operators, as :mod:`gbn.kernels.fused` has them without it.

A backend that fuses the gate (:mod:`gbn.kernels.gate`) offers two functions more:

* ``forward_gated(x, weight, bias, gate, plan, eps, relu) -> (y, S, D, record, means)``
* ``backward_gated(g, x, weight, bias, gate, S, D, record, means, plan, eps, relu, wanted)
  -> (dx or None, dweight, dbias, dgate_weight, dgate_bias)``

``means`` are those of x over the spatial dimensions, ``(N, C)``, float32, in any memory format. Other backends
normalise without gain and activation, and torch's own operations apply the gate: right, in several passes more.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor

from gbn.kernels import fused
from gbn.kernels.activation import activate
from gbn.kernels.checks import arranged, check_batch, check_cotangent, check_device, kept, readable
from gbn.kernels.gate import Gate, enhance
from gbn.kernels.plan import Plan, lower
from gbn.risk.base import Deviation, Statistic

__all__ = ["Backend", "normalize"]

Gradients = tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]


class Backend(Protocol):
    """What a device's kernels offer that fuse the gate; see the module."""

    def forward_gated(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        gate: Gate,
        plan: Plan,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Normalise."""

    def backward_gated(
        self,
        g: Tensor,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        gate: Gate,
        s: Tensor,
        d: Tensor,
        record: Tensor,
        means: Tensor,
        plan: Plan,
        eps: float,
        relu: bool,
        wanted: bool,
    ) -> Gradients:
        """Gradients to x, gain, bias and the gate's two parameters."""


def _here(x: Tensor) -> Backend:
    return cast(Backend, fused.here(x))


def _serving(x: Tensor) -> Backend:
    return cast(Backend, fused.serving(x))


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistic: Statistic,
    deviation: Deviation,
    eps: float,
    act: str | None,
    gate: Gate,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`gbn.kernels.normalize`; for arguments that it has checked and an x that the backend serves."""
    if not hasattr(fused.backend(x.device.type), "forward_gated"):
        x_hat, s, d = fused.normalize(x, None, None, statistic, deviation, eps, None)
        return activate(enhance(x_hat, x, weight, bias, gate), act), s, d
    inner = act if act in fused.FUSED else None
    (x, weight, bias, *gates), by_operator = arranged(x, weight, bias, *gate)
    if by_operator:
        y, s, d, *_ = _operator(x, weight, bias, *gates, statistic.text, deviation.text, eps, inner == "relu")
        s, d = s.detach(), d.detach()
    else:
        plan = lower(statistic, deviation, x.numel() // x.shape[1])
        y, s, d = _NormalizeGated.apply(x, weight, bias, *gates, plan, eps, inner == "relu")
    return (y if act in fused.FUSED else activate(y, act)), s, d


class _NormalizeGated(torch.autograd.Function):
    """(x, weight, bias, gate_weight, gate_bias) -> (y, S, D); S and D carry no gradient of their own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        gate_weight: Tensor,
        gate_bias: Tensor,
        plan: Plan,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        gate = gate_weight, gate_bias
        y, s, d, record, means = _here(x).forward_gated(x, weight, bias, gate, plan, eps, relu)
        ctx.save_for_backward(x, weight, bias, *gate, s, d, record, means)
        ctx.plan, ctx.eps, ctx.relu = plan, eps, relu
        ctx.mark_non_differentiable(s, d)
        ctx.set_materialize_grads(False)
        return y, s, d

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        fused.refuse_second_derivative()
        g = cotangents[0]
        if g is None:
            return (None,) * 8
        x, weight, bias, *gate, s, d, record, means = ctx.saved_tensors
        dx, *others = _run_backward(
            g, x, weight, bias, tuple(gate), s, d, record, means, ctx.plan, ctx.eps, ctx.relu,
            ctx.needs_input_grad[0],
        )  # fmt: skip
        needed = zip(others, (weight, bias, *gate), ctx.needs_input_grad[1:5], strict=True)
        return (
            dx,
            *(value.to(like.dtype) if wanted else None for value, like, wanted in needed),
            None,
            None,
            None,
        )


def _run_backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    gate: Gate,
    s: Tensor,
    d: Tensor,
    record: Tensor,
    means: Tensor,
    plan: Plan,
    eps: float,
    relu: bool,
    wanted: bool,
) -> Gradients:
    """The backend's backward pass, after a look at what it is given."""
    check_batch(x, weight=weight, bias=bias, gate_weight=gate[0], gate_bias=gate[1])
    check_cotangent(g, x)
    images, channels = x.shape[:2]
    s, d = (kept(part, (channels,), x).contiguous() for part in (s, d))
    record = kept(record, (channels, plan.record), x).contiguous()
    means = kept(means, (images, channels), x)
    g, x, weight, bias, *gates, s, d, record, means = readable(g, x, weight, bias, *gate, s, d, record, means)
    gate = gates[0], gates[1]
    return _serving(x).backward_gated(g, x, weight, bias, gate, s, d, record, means, plan, eps, relu, wanted)


def _forward_operator(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    gate_weight: Tensor,
    gate_bias: Tensor,
    statistic: str,
    deviation: str,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    check_batch(x, weight=weight, bias=bias, gate_weight=gate_weight, gate_bias=gate_bias)
    plan = fused.plan_on(x, statistic, deviation)
    x, weight, bias, *gates = readable(x, weight, bias, gate_weight, gate_bias)
    gate = gates[0], gates[1]
    y, s, d, record, means = _serving(x).forward_gated(x, weight, bias, gate, plan, eps, relu)
    return fused.as_promised(y, x), s, d, record, means.contiguous()


def _backward_operator(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    gate_weight: Tensor,
    gate_bias: Tensor,
    s: Tensor,
    d: Tensor,
    record: Tensor,
    means: Tensor,
    statistic: str,
    deviation: str,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    plan, gate = fused.plan_on(x, statistic, deviation), (gate_weight, gate_bias)
    dx, *others = _run_backward(g, x, weight, bias, gate, s, d, record, means, plan, eps, relu, True)
    assert dx is not None
    dweight, dbias, dgate_weight, dgate_bias = others
    return fused.as_promised(dx, x), dweight, dbias, dgate_weight, dgate_bias


_operator = torch.library.custom_op(
    "gbn::normalize_gated", _forward_operator, mutates_args=(), tags=fused.ANY_LAYOUT
)
_operator_backward = torch.library.custom_op(
    "gbn::normalize_gated_backward", _backward_operator, mutates_args=(), tags=fused.ANY_LAYOUT
)


@_operator.register_fake
def _(
    x: Tensor,
    weight: Any,
    bias: Any,
    gate_weight: Any,
    gate_bias: Any,
    statistic: str,
    deviation: str,
    *rest: Any,
) -> Any:
    check_batch(x, weight=weight, bias=bias, gate_weight=gate_weight, gate_bias=gate_bias)
    images, channels = x.shape[:2]
    width = fused.plan_of(statistic, deviation, 2).record  # the same for every number of samples
    shapes = ((channels,), (channels,), (channels, width), (images, channels))
    return torch.empty_like(x), *(x.new_empty(shape, dtype=torch.float32) for shape in shapes)


@_operator_backward.register_fake
def _(
    g: Tensor,
    x: Tensor,
    weight: Any,
    bias: Any,
    gate_weight: Any,
    gate_bias: Any,
    s: Tensor,
    d: Tensor,
    record: Tensor,
    means: Tensor,
    *rest: Any,
) -> Any:
    check_batch(x, weight=weight, bias=bias, gate_weight=gate_weight, gate_bias=gate_bias)
    check_cotangent(g, x)
    check_device(x, s, d, record, means)
    return torch.empty_like(x), *(torch.empty_like(s) for _ in range(4))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, *parameters = inputs[:5]
    ctx.rest = inputs[5:]
    ctx.save_for_backward(x, *parameters, *output[1:])
    ctx.dtypes = tuple(None if t is None else t.dtype for t in parameters)


def _backward(ctx: Any, g: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    dx, *others_dx = _operator_backward(g, *ctx.saved_tensors, *ctx.rest)
    gradients = (None if kind is None else d.to(kind) for d, kind in zip(others_dx, ctx.dtypes, strict=True))
    return dx, *gradients, *[None] * len(ctx.rest)


_operator.register_autograd(_backward, setup_context=_setup_context)
