"""The fused kernels' side of autograd and of ``torch.compile``, the same for every device.

A backend (:mod:`gbn.kernels.cpu`, :mod:`gbn.kernels.gpu`) offers two functions of plain tensors, without autograd:

* ``forward(x, weight, bias, plan, eps, relu) -> (y, S, D, record)``
* ``backward(g, x, weight, bias, S, D, record, plan, eps, relu, wanted) -> (dx or None, dweight, dbias)``

``weight`` and ``bias`` are ``(C,)`` or None; S, D, dweight, dbias ``(C,)`` and the record ``(C, plan.record)`` are
float32; ``plan`` is :class:`gbn.kernels.plan.Plan`; ``wanted`` says whether dx is. Nothing else is kept between
the two: the ReLU's mask is computed again from x.

In eager mode an autograd.Function calls them. Where something traces (``torch.compile``, ``torch.export``) the two
operators ``gbn::normalize`` and ``gbn::normalize_backward`` stand in the graph, without a break; a pair is written
into the graph as text (:attr:`gbn.risk.base.Functional.text`).
"""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor

from gbn.kernels import cpu, gpu
from gbn.kernels.activation import activate
from gbn.kernels.checks import (
    arranged,
    check_batch,
    check_cotangent,
    check_device,
    check_not_empty,
    kept,
    readable,
)
from gbn.kernels.plan import Plan, lower
from gbn.risk.base import Deviation, Statistic
from gbn.risk.quadrangles import from_text

__all__ = [
    "ANY_LAYOUT",
    "FUSED",
    "Backend",
    "as_promised",
    "backend",
    "here",
    "normalize",
    "plan_of",
    "plan_on",
    "refuse_second_derivative",
    "serving",
]

_log = logging.getLogger(__name__)

#: Activations that the kernels apply themselves; others follow as torch's own operation.
FUSED = (None, "relu")

Gradients = tuple[Tensor | None, Tensor, Tensor]


class Backend(Protocol):
    """What a device's kernels offer; see the module."""

    REQUIRES: str  # the package that compiles them

    def load(self) -> None:
        """Import what the kernels need; raises where that fails."""

    def serves(self, x: Tensor) -> bool:
        """Whether the kernels take this tensor."""

    def ready(self, x: Tensor, gated: bool, common: bool) -> bool:
        """Whether the kernels for a tensor, a gate and a pair of a kind can be compiled here; may wait for it."""

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, plan: Plan, eps: float, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalise."""

    def backward(
        self,
        g: Tensor,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        s: Tensor,
        d: Tensor,
        record: Tensor,
        plan: Plan,
        eps: float,
        relu: bool,
        wanted: bool,
    ) -> Gradients:
        """Gradients to x, gain and bias."""


_BACKENDS: dict[str, Any] = {"cpu": cpu, "cuda": gpu}
_INSTALLED = {device: find_spec(module.REQUIRES) is not None for device, module in _BACKENDS.items()}
_WORKS: dict[str, bool] = {}


def backend(device_type: str) -> Backend | None:
    """The kernels for a type of device; None where there are none, or this machine lacks what they need.

    What is missing is said once in the log.
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
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`gbn.kernels.normalize`; for arguments that it has checked and an x that the backend serves."""
    inner = act if act in FUSED else None
    (x, weight, bias), by_operator = arranged(x, weight, bias)
    if by_operator:
        y, s, d, _ = _operator(x, weight, bias, statistic.text, deviation.text, eps, inner == "relu")
        s, d = s.detach(), d.detach()
    else:
        plan = lower(statistic, deviation, x.numel() // x.shape[1])
        y, s, d = _Normalize.apply(x, weight, bias, plan, eps, inner == "relu")
    return (y if act in FUSED else activate(y, act)), s, d


def here(x: Tensor) -> Backend:
    """The kernels for the device of x; raises RuntimeError, saying what to install, where there are none."""
    found = backend(x.device.type)
    if found is None:
        package = (
            _BACKENDS[x.device.type].REQUIRES if x.device.type in _BACKENDS else "another device's kernels"
        )
        raise RuntimeError(
            f"this graph asks for gbn's fused kernels on {x.device.type!r}, which do not work here: install "
            f"{package} or compile under GBN_KERNELS=reference"
        )
    return found


def serving(x: Tensor) -> Backend:
    """The same for an x that nobody has asked about: raises RuntimeError where the kernels don't take it."""
    found = here(x)
    if not found.serves(x):
        raise RuntimeError(
            f"gbn's fused kernels take float32, bfloat16 and float16, on a GPU up to 2 ** 31 - 2 ** 24 values: got "
            f"{x.dtype}, {tuple(x.shape)}"
        )
    return found


def refuse_second_derivative() -> None:
    """Raise RuntimeError in a backward pass that is itself to be differentiated."""
    if torch.is_grad_enabled():
        # torch's own once_differentiable lets a constant cotangent pass and its second derivative be 0.
        raise RuntimeError(
            "generalized batch normalization is differentiable once: create_graph=True (a gradient "
            "penalty, a Hessian) is not supported through it; use BatchNorm there"
        )


class _Normalize(torch.autograd.Function):
    """(x, weight, bias) -> (y, S, D); S and D carry no gradient of their own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        plan: Plan,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, s, d, record = here(x).forward(x, weight, bias, plan, eps, relu)
        ctx.save_for_backward(x, weight, bias, s, d, record)
        ctx.plan, ctx.eps, ctx.relu = plan, eps, relu
        ctx.mark_non_differentiable(s, d)
        ctx.set_materialize_grads(False)
        return y, s, d

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        g = cotangents[0]
        if g is None:
            return (None,) * 6
        x, weight, bias, s, d, record = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        dx, dweight, dbias = _run_backward(
            g, x, weight, bias, s, d, record, ctx.plan, ctx.eps, ctx.relu, wanted
        )
        return (
            dx,
            dweight.to(weight.dtype) if ctx.needs_input_grad[1] else None,
            dbias.to(bias.dtype) if ctx.needs_input_grad[2] else None,
            None,
            None,
            None,
        )


def _run_backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    s: Tensor,
    d: Tensor,
    record: Tensor,
    plan: Plan,
    eps: float,
    relu: bool,
    wanted: bool,
) -> Gradients:
    """The backend's backward pass, after a look at what it is given."""
    check_batch(x, weight=weight, bias=bias)
    check_cotangent(g, x)
    channels = x.shape[1]
    s, d = (kept(part, (channels,), x).contiguous() for part in (s, d))
    record = kept(record, (channels, plan.record), x).contiguous()
    g, x, weight, bias, s, d, record = readable(g, x, weight, bias, s, d, record)
    return serving(x).backward(g, x, weight, bias, s, d, record, plan, eps, relu, wanted)


@lru_cache(maxsize=1024)
def plan_of(statistic: str, deviation: str, n: int) -> Plan:
    """The plan of a pair that is written as text."""
    parts = from_text("statistic", statistic), from_text("deviation", deviation)
    return lower(*parts, n)


def plan_on(x: Tensor, statistic: str, deviation: str) -> Plan:
    """The plan of a pair for the samples of x.

    Raises:
        ValueError, RuntimeError: there are none; see :func:`gbn.kernels.checks.check_batch`.
    """
    check_batch(x)
    check_not_empty(x)
    return plan_of(statistic, deviation, x.numel() // x.shape[1])


def _forward_operator(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistic: str,
    deviation: str,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_batch(x, weight=weight, bias=bias)
    plan = plan_on(x, statistic, deviation)
    x, weight, bias = readable(x, weight, bias)
    y, s, d, record = serving(x).forward(x, weight, bias, plan, eps, relu)
    return as_promised(y, x), s, d, record


def _backward_operator(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    s: Tensor,
    d: Tensor,
    record: Tensor,
    statistic: str,
    deviation: str,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    plan = plan_on(x, statistic, deviation)
    dx, dweight, dbias = _run_backward(g, x, weight, bias, s, d, record, plan, eps, relu, True)
    assert dx is not None
    return as_promised(dx, x), dweight, dbias


def as_promised(result: Tensor, x: Tensor) -> Tensor:
    """A result with the strides that the operators' fake implementations tell a compiler of."""
    return result if result.stride() == x.stride() else torch.empty_like(x).copy_(result)


# A compiler may hand over x in the layout that the convolution before it likes best.
ANY_LAYOUT = (torch.Tag.flexible_layout,)
_operator = torch.library.custom_op("gbn::normalize", _forward_operator, mutates_args=(), tags=ANY_LAYOUT)
_operator_backward = torch.library.custom_op(
    "gbn::normalize_backward", _backward_operator, mutates_args=(), tags=ANY_LAYOUT
)


@_operator.register_fake
def _(x: Tensor, weight: Any, bias: Any, statistic: str, deviation: str, eps: float, relu: bool) -> Any:
    check_batch(x, weight=weight, bias=bias)
    channels = x.shape[1]
    width = plan_of(statistic, deviation, 2).record  # the same for every number of samples
    new = [x.new_empty(shape, dtype=torch.float32) for shape in ((channels,), (channels,), (channels, width))]
    return torch.empty_like(x), *new


@_operator_backward.register_fake
def _(g: Tensor, x: Tensor, weight: Any, bias: Any, s: Tensor, d: Tensor, record: Tensor, *rest: Any) -> Any:
    check_batch(x, weight=weight, bias=bias)
    check_cotangent(g, x)
    check_device(x, s, d, record)
    return torch.empty_like(x), torch.empty_like(s), torch.empty_like(s)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, *ctx.rest = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:])
    ctx.dtypes = tuple(None if t is None else t.dtype for t in (weight, bias))


def _backward(ctx: Any, g: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    dx, *others_dx = _operator_backward(g, *ctx.saved_tensors, *ctx.rest)
    gradients = (None if kind is None else d.to(kind) for d, kind in zip(others_dx, ctx.dtypes, strict=True))
    return dx, *gradients, *[None] * len(ctx.rest)


_operator.register_autograd(_backward, setup_context=_setup_context)
