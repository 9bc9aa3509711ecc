"""The autograd and ``torch.compile`` side of the fused kernels, the same for every device.

A backend (:mod:`gbn.kernels.backend`) computes a forward and a backward pass on plain tensors. In eager mode an
autograd.Function calls it. Under tracing (``torch.compile``, ``torch.export``) the two operators ``gbn::normalize``
and ``gbn::normalize_backward`` go into the graph, without a break; a pair is stored in the graph as text
(:attr:`gbn.risk.base.Functional.text`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from gbn.kernels import numba, triton
from gbn.kernels.activation import activate
from gbn.kernels.backend import Arguments, Backend, Gradients, Kept
from gbn.kernels.checks import (
    arranged,
    check_batch,
    check_cotangent,
    check_device,
    check_not_empty,
    in_memory,
    kept,
    readable,
)
from gbn.kernels.gate import Gate, enhance
from gbn.kernels.plan import Plan, lower
from gbn.risk.base import Deviation, Statistic
from gbn.risk.quadrangles import from_text

__all__ = ["ANY_LAYOUT", "backend", "device_type", "normalize", "refuse_second_derivative", "serving"]

_log = logging.getLogger(__name__)

#: Activations that the kernels apply themselves; others follow as a separate torch operation.
_FUSED = (None, "relu")

_BACKENDS: dict[str, Any] = {"cpu": numba, "cuda": triton}
_INSTALLED = {device: find_spec(module.REQUIRES) is not None for device, module in _BACKENDS.items()}
_WORKS: dict[str, bool] = {}


def device_type(x: Tensor) -> str:
    """Return the type of the device of x; torch takes longer to make its name than to tell that it is a CPU."""
    return "cpu" if x.is_cpu else x.device.type


def backend(device_type: str) -> Backend | None:
    """Return the kernels for a device type; None where there are none, or where this machine lacks what they need.

    What is missing is logged once.
    """
    if device_type not in _BACKENDS:
        return None
    if torch.compiler.is_compiling():  # a tracer cannot follow imports
        return _BACKENDS[device_type] if _INSTALLED[device_type] else None
    if device_type not in _WORKS:
        _WORKS[device_type] = _works(device_type)
    return _BACKENDS[device_type] if _WORKS[device_type] else None


def _works(device_type: str) -> bool:
    module = _BACKENDS[device_type]
    reason = f"{module.REQUIRES} is not installed"
    if _INSTALLED[device_type]:
        try:
            module.load()
            return True
        except Exception as error:  # a broken installation must not stop a network that can run without it
            reason = f"{module.REQUIRES} does not work here ({type(error).__name__}: {error})"
    _log.warning(
        "%s: gbn's norms on %s use their eager reference kernels, which are several times slower; "
        "`pip install %s` brings the fused ones",
        reason,
        device_type,
        module.REQUIRES,
    )
    return False


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistic: Statistic,
    deviation: Deviation,
    eps: float,
    act: str | None,
    gate: Gate | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`gbn.kernels.normalize`; expects checked arguments and an x that the backend serves."""
    if gate is not None and not _here(x).FUSES_GATE:
        x_hat, s, d = normalize(x, None, None, statistic, deviation, eps, None, None)
        return activate(enhance(x_hat, x, weight, bias, gate), act), s, d
    tensors, by_operator = arranged(x, weight, bias, *(gate or (None, None)))
    if by_operator:
        y, s, d, *_ = _operator(*tensors, statistic.text, deviation.text, eps, act == "relu")
        s, d = s.detach(), d.detach()
    else:
        # by their texts, whose hashes Python keeps
        plan = _plan_of(statistic.text, deviation.text, x.numel() // x.shape[1])
        y, s, d = _Normalize.apply(*tensors, plan, eps, act == "relu")
    return (y if act in _FUSED else activate(y, act)), s, d


def _here(x: Tensor) -> Backend:
    """Return the kernels for the device of x; raise RuntimeError, saying what to install, where there are none."""
    device = device_type(x)
    found = backend(device)
    if found is None:
        package = _BACKENDS[device].REQUIRES if device in _BACKENDS else "another device's kernels"
        raise RuntimeError(
            f"this graph asks for gbn's fused kernels on {device!r}, which do not work here: install {package} or "
            "compile under GBN_KERNELS=reference"
        )
    return found


def serving(x: Tensor) -> Backend:
    """Return the kernels for an x that has not been checked yet; raise RuntimeError where they do not take it."""
    found = _here(x)
    if not found.serves(x):
        raise RuntimeError(
            f"gbn's fused kernels take float32, bfloat16 and float16, on a GPU up to 2 ** 31 - 2 ** 24 values: got "
            f"{x.dtype}, {tuple(x.shape)}"
        )
    return found


def refuse_second_derivative() -> None:
    """Raise RuntimeError in a backward pass that is itself going to be differentiated."""
    if torch.is_grad_enabled():
        # torch's own once_differentiable lets a constant cotangent through, with 0 as its second derivative.
        raise RuntimeError(
            "generalized batch normalization is differentiable once: create_graph=True (a gradient "
            "penalty, a Hessian) is not supported through it; use BatchNorm there"
        )


def _arguments(tensors: Sequence[Any], plan: Plan, eps: float, relu: bool) -> Arguments:
    """Return the arguments of x, gain, bias and the gate's two tensors, as autograd and the operators hold them."""
    x, weight, bias, gate_weight, gate_bias = tensors
    return Arguments(
        x, weight, bias, None if gate_weight is None else (gate_weight, gate_bias), plan, eps, relu
    )


def _like(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """Return a parameter's gradient in its dtype; asking torch to convert to the same dtype is not free."""
    if gradient is None or gradient.dtype is parameter.dtype:
        return gradient
    return gradient.to(parameter.dtype)


class _Normalize(torch.autograd.Function):
    """(x, weight, bias, gate_weight, gate_bias) -> (y, S, D); S and D are not differentiable outputs."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Take the five tensors of :func:`_arguments`, then plan, eps and whether a ReLU follows."""
        of = _arguments(given[:5], *given[5:])
        y, left = _here(of.x).forward(of)
        ctx.save_for_backward(*given[:5], *left)
        ctx.rest = given[5:]
        ctx.mark_non_differentiable(left.s, left.d)
        ctx.set_materialize_grads(False)
        return y, left.s, left.d

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        g = cotangents[0]
        if g is None:
            return (None,) * 8
        saved, needed = ctx.saved_tensors, ctx.needs_input_grad
        found = _run_backward(g, _arguments(saved[:5], *ctx.rest), Kept(*saved[5:]), needed[0])
        parameters = zip(found[1:], saved[1:5], needed[1:5], strict=True)
        return (
            found.x,
            *(_like(one, like) if wanted else None for one, like, wanted in parameters),
            *[None] * 3,
        )


def _run_backward(g: Tensor, of: Arguments, left: Kept, wanted: bool) -> Gradients:
    """Run the backend's backward pass after checking its inputs."""
    x, gate = of.x, of.gate or (None, None)
    check_batch(x, weight=of.weight, bias=of.bias, gate_weight=gate[0], gate_bias=gate[1])
    check_cotangent(g, x)
    images, channels = x.shape[:2]
    s, d = kept(left.s, (channels,), x).contiguous(), kept(left.d, (channels,), x).contiguous()
    record = kept(left.record, (channels, of.plan.record), x).contiguous()
    means = None if left.means is None else kept(left.means, (images, channels), x)
    tensors = x, of.weight, of.bias, *gate, g, s, d, record, means
    if not in_memory(*tensors):
        tensors = readable(*tensors)
        x, (g, s, d, record, means) = tensors[0], tensors[5:]
        of = _arguments(tensors[:5], of.plan, of.eps, of.relu)
    return serving(x).backward(g, of, Kept(s, d, record, means), wanted)


@lru_cache(maxsize=1024)
def _plan_of(statistic: str, deviation: str, n: int) -> Plan:
    """Return the plan of a pair that is given as text."""
    parts = from_text("statistic", statistic), from_text("deviation", deviation)
    return lower(*parts, n)


def _plan_on(x: Tensor, statistic: str, deviation: str) -> Plan:
    """Return the plan of a pair for the samples of x.

    Raises:
        ValueError, RuntimeError: x is no valid batch; see :func:`gbn.kernels.checks.check_batch`.
    """
    check_batch(x)
    check_not_empty(x)
    return _plan_of(statistic, deviation, x.numel() // x.shape[1])


def _forward_operator(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    gate_weight: Tensor | None,
    gate_bias: Tensor | None,
    statistic: str,
    deviation: str,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return (y, S, D, record, means); an operator cannot return None, so without a gate the means are empty."""
    check_batch(x, weight=weight, bias=bias, gate_weight=gate_weight, gate_bias=gate_bias)
    plan = _plan_on(x, statistic, deviation)
    tensors = readable(x, weight, bias, gate_weight, gate_bias)
    y, left = serving(tensors[0]).forward(_arguments(tensors, plan, eps, relu))
    means = left.s.new_empty(0) if left.means is None else left.means.contiguous()
    return _as_promised(y, x), left.s, left.d, left.record, means


def _backward_operator(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    gate_weight: Tensor | None,
    gate_bias: Tensor | None,
    s: Tensor,
    d: Tensor,
    record: Tensor,
    means: Tensor,
    statistic: str,
    deviation: str,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, gain, bias and the two gate parameters; the last two are empty without a gate."""
    plan = _plan_on(x, statistic, deviation)
    of = _arguments((x, weight, bias, gate_weight, gate_bias), plan, eps, relu)
    found = _run_backward(g, of, Kept(s, d, record, means if of.gate else None), True)
    assert found.x is not None
    of_gate = (s.new_empty(0) if value is None else value for value in found[3:])
    return _as_promised(found.x, x), found.weight, found.bias, *of_gate  # type: ignore[return-value]


def _as_promised(result: Tensor, x: Tensor) -> Tensor:
    """Return the result with the strides that the operators' fake implementations promise to a compiler."""
    return result if result.stride() == x.stride() else torch.empty_like(x).copy_(result)


# A compiler may pass x in whichever layout the convolution before it prefers.
ANY_LAYOUT = (torch.Tag.flexible_layout,)
_operator = torch.library.custom_op("gbn::normalize", _forward_operator, mutates_args=(), tags=ANY_LAYOUT)
_operator_backward = torch.library.custom_op(
    "gbn::normalize_backward", _backward_operator, mutates_args=(), tags=ANY_LAYOUT
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
    width = _plan_of(statistic, deviation, 2).record  # the same for any number of samples
    means = (0,) if gate_weight is None else (images, channels)
    shapes = ((channels,), (channels,), (channels, width), means)
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
    of_gate = s.new_empty(0) if gate_weight is None else s
    return torch.empty_like(x), *(torch.empty_like(like) for like in (s, s, of_gate, of_gate))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, *parameters = inputs[:5]
    ctx.rest = inputs[5:]
    ctx.save_for_backward(x, *parameters, *output[1:])
    ctx.dtypes = tuple(None if t is None else t.dtype for t in parameters)


def _backward(ctx: Any, g: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    dx, *found = _operator_backward(g, *ctx.saved_tensors, *ctx.rest)
    pairs = zip(found, ctx.dtypes, strict=True)
    gradients = (None if kind is None else value.to(kind) for value, kind in pairs)
    return dx, *gradients, *[None] * len(ctx.rest)


_operator.register_autograd(_backward, setup_context=_setup_context)
