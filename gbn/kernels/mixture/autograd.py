"""The autograd and ``torch.compile`` side of the fused kernels.

They serve joint mixtures in training, on the CPU, where the gradient treats posteriors as constants. The kernels
(:mod:`gbn.kernels.mixture.numba.launch`) take plain float32 tensors; half precision is widened before and rounded
after.

In eager mode an autograd.Function calls them. Under tracing (``torch.compile``, ``torch.export``) the operators
``gbn::mixture_normalize``, ``gbn::mixture_normalize_backward`` and ``gbn::mixture_fit`` go into the graph, without a
break.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gbn import kernels
from gbn.kernels.autograd import ANY_LAYOUT, serving
from gbn.kernels.checks import (
    arranged,
    check_batch,
    check_cotangent,
    check_device,
    check_not_empty,
    kept,
    readable,
)
from gbn.kernels.mixture.checks import check_fit, check_mixture
from gbn.kernels.mixture.gaussians import Mixture, Moments
from gbn.kernels.numba.objects import working
from gbn.risk.order import traced

__all__ = ["MOST_COMPONENTS", "Normalize", "fit", "normalize", "serves", "serves_fit"]

#: With more components, their vectors would not fit in a processor's registers.
MOST_COMPONENTS = 8

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def serves(x: Tensor, components: int, posterior_gradient: bool) -> bool:
    """Return whether the fused kernels compute this for a joint mixture; never under ``GBN_KERNELS=reference``.

    Outside of tracers, they must also compile on this machine; the first call waits for that.
    """
    return _takes(x, components, posterior_gradient) and (
        traced(x) or working(_kernels().entries(x, components))
    )


def _takes(x: Tensor, components: int, posterior_gradient: bool) -> bool:
    return (
        not posterior_gradient
        and x.device.type == "cpu"
        and x.dtype in _DTYPES
        and x.numel() > 0
        and components <= MOST_COMPONENTS
        and kernels.selected("cpu").startswith("numba")
    )


def serves_fit(samples: Tensor, components: int) -> bool:
    """Return whether compiled steps of expectation-maximization serve a joint mixture; see :func:`serves`."""
    if samples.dtype != torch.float32 or not _takes(samples, components, False):
        return False
    return traced(samples) or working(_kernels().fit_entries(components))


def _kernels() -> Any:
    # imported only when first needed: a machine without numba runs the eager ones
    return import_module("gbn.kernels.mixture.numba.launch")


def fit(
    samples: Tensor,
    start: Mixture,
    steps: int,
    floor: Tensor,
    draws: Tensor | None,
    mean: Tensor,
    var: Tensor,
) -> Mixture:
    """Run :func:`gbn.kernels.mixture.fitted` as one compiled call."""
    (samples, *parts, floor, draws, mean, var), by_operator = arranged(
        samples, *start, floor, draws, mean, var
    )
    if by_operator:
        return Mixture(*_fit_operator(samples, *parts, steps, floor, draws, mean, var))
    samples, *parts, floor, draws, mean, var = readable(samples, *parts, floor, draws, mean, var)
    return _run_fit(samples, Mixture(*parts), steps, floor, draws, mean, var)


def _run_fit(samples: Tensor, start: Mixture, *rest: Any) -> Mixture:
    found: Mixture = _kernels().run_fit(samples, start, *rest)
    return found


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mixture: Mixture,
    center: Tensor,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Moments]:
    """See :func:`gbn.kernels.mixture.normalize_by_batch`; expects checked arguments that the kernels serve."""
    tensors, by_operator = arranged(x, weight, bias, *mixture, center)
    if not by_operator:
        y, *moments = Normalize.apply(*tensors, eps, relu)
        return y, Moments(*moments)
    y, *results = _operator(*tensors, eps, relu)
    return y, Moments(*(result.detach() for result in results[:4]))


class Normalize(torch.autograd.Function):
    """See :func:`gbn.kernels.mixture.normalize_by_batch`; saves x, posteriors or what makes them, a bit per value."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mixture_weight: Tensor,
        mixture_mean: Tensor,
        mixture_var: Tensor,
        center: Tensor,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, ...]:
        """Return (y, l, m, q, sum of squared weights)."""
        # Hooks on saved tensors may bring x back in another memory format.
        ctx.planes = x.is_contiguous() or not x.movedim(1, -1).is_contiguous()
        mixture = Mixture(mixture_weight, mixture_mean, mixture_var)
        laid = _laid_out(x.to(torch.float32), ctx.planes)
        y, moments, kept = _kernels().run_forward(laid, weight, bias, mixture, center, eps, relu)
        ctx.mark_non_differentiable(*moments)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, bias, *kept)
        ctx.eps, ctx.relu = eps, relu
        return (_as(y, x), *moments)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias."""
        if grad is None:
            return (None,) * 9
        x, weight, bias, *kept = ctx.saved_tensors
        dx, to_weight, to_bias = _run_backward(
            grad, x, weight, kept, ctx.planes, ctx.eps, ctx.relu, ctx.needs_input_grad[0]
        )
        return (
            None if dx is None else _as(dx, x),
            to_weight.to(weight.dtype) if ctx.needs_input_grad[1] else None,
            to_bias.to(bias.dtype) if ctx.needs_input_grad[2] else None,
            *[None] * 6,
        )


def _run_backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    saved: Sequence[Any],
    planes: bool,
    eps: float,
    relu: bool,
    wanted: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Run the backward pass after checking its inputs."""
    posteriors, mask, logits, numbers, center = saved
    components = numbers.shape[1] if numbers.dim() == 3 else 0
    check_batch(x, weight=weight, center=center)
    check_not_empty(x)
    _check_served(x, components)
    check_cotangent(g, x)
    numbers = kept(numbers, (4, components, x.shape[1]), x, torch.float64)
    g, x, weight, *saved = readable(g, x, weight, posteriors, mask, logits, numbers, center)
    wide = _laid_out(x.to(torch.float32), planes)
    return _kernels().run_backward(g.to(torch.float32), wide, weight, saved, eps, relu, wanted)


def _check_served(x: Tensor, components: int, weights: Tensor | None = None) -> None:
    """Raise RuntimeError if no kernels serve this, as a graph made elsewhere, or a direct caller, may find."""
    serving(x)
    if weights is not None and weights.shape[1] != 1:
        raise RuntimeError(
            f"gbn's fused kernels serve one weight per component (K, 1), got {tuple(weights.shape)}: compile under "
            "GBN_KERNELS=reference"
        )
    if not 1 <= components <= MOST_COMPONENTS or x.device.type != "cpu":
        raise RuntimeError(
            f"gbn's fused kernels for mixtures serve up to {MOST_COMPONENTS} components on the CPU, got {components} "
            f"on {x.device}: compile under GBN_KERNELS=reference"
        )


def _as(result: Tensor, x: Tensor) -> Tensor:
    """Return a result in the dtype and memory format of x."""
    like = torch.empty_like(x)
    if result.stride() == like.stride():
        return result.to(x.dtype)
    return like.copy_(result)


def _laid_out(x: Tensor, planes: bool) -> Tensor:
    """Return x with channels as planes, or last in memory: saved posteriors and bits follow one of these orders."""
    return x.contiguous() if planes else x.movedim(1, -1).contiguous().movedim(-1, 1)


def _held(part: Tensor | None, size: int, dtype: torch.dtype) -> Tensor:
    """Return a saved part padded to ``size`` numbers: operators promise sizes before the memory format is known."""
    flat = torch.empty(0, dtype=dtype) if part is None else part.flatten()
    if flat.numel() == size:
        return flat
    room = flat.new_zeros(size)
    room[: flat.numel()] = flat
    return room


def _forward_operator(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mixture_weight: Tensor,
    mixture_mean: Tensor,
    mixture_var: Tensor,
    center: Tensor,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return (y, l, m, q, sum of squared weights, whether channels are planes, what else is saved)."""
    mixture = Mixture(mixture_weight, mixture_mean, mixture_var)
    check_batch(x, weight=weight, bias=bias, center=center)
    check_not_empty(x)
    check_mixture(x, mixture)
    x, weight, bias, *parts, center = readable(x, weight, bias, *mixture, center)
    mixture = Mixture(*parts)
    _check_served(x, mixture_mean.shape[0], mixture_weight)
    planes = x.is_contiguous()
    y, moments, (posteriors, mask, logits, numbers, _) = _kernels().run_forward(
        _laid_out(x.to(torch.float32), planes), weight, bias, mixture, center, eps, relu
    )
    sizes = _kernels().kept_sizes(x.shape, mixture_mean.shape[0], relu)
    share, mean, var, concentration = (part.clone() for part in moments)  # no two results may share memory
    return (
        _as(y, x),
        share,
        mean,
        var,
        concentration,
        torch.tensor(planes),
        _held(posteriors, sizes[0], torch.float32),
        _held(mask, sizes[1], torch.int16),
        _held(logits, sizes[2], torch.float32),
        numbers,
    )


def _backward_operator(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    planes: Tensor,
    posteriors: Tensor,
    mask: Tensor,
    logits: Tensor,
    numbers: Tensor,
    center: Tensor,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    kept = posteriors, mask if relu else None, logits, numbers, center
    dx, to_weight, to_bias = _run_backward(g, x, weight, kept, bool(planes), eps, relu, True)
    assert dx is not None
    return _as(dx, x), to_weight.clone(), to_bias.clone()


def _fit_of_tensors(
    samples: Tensor,
    weight: Tensor,
    mean: Tensor,
    var: Tensor,
    steps: int,
    floor: Tensor,
    draws: Tensor | None,
    center: Tensor,
    spread: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    start = Mixture(weight, mean, var)
    check_fit(samples, start, floor, draws, mean=center, var=spread)
    samples, *parts, floor, draws, center, spread = readable(samples, *start, floor, draws, center, spread)
    start = Mixture(*parts)
    _check_served(samples, mean.shape[0], weight)
    if samples.dtype != torch.float32:
        raise RuntimeError(f"compiled steps take float32 samples, got {samples.dtype}")
    found = _run_fit(samples, start, steps, floor, draws, center.contiguous(), spread.contiguous())
    return found.weight, found.mean, found.var


_operator = torch.library.custom_op(
    "gbn::mixture_normalize", _forward_operator, mutates_args=(), tags=ANY_LAYOUT
)
_operator_backward = torch.library.custom_op(
    "gbn::mixture_normalize_backward", _backward_operator, mutates_args=(), tags=ANY_LAYOUT
)
_fit_operator = torch.library.custom_op("gbn::mixture_fit", _fit_of_tensors, mutates_args=())


@_operator.register_fake
def _(
    x: Tensor,
    weight: Any,
    bias: Any,
    shares: Tensor,
    mean: Tensor,
    var: Any,
    center: Any,
    eps: Any,
    relu: bool,
) -> Any:
    check_batch(x, weight=weight, bias=bias, center=center)
    check_mixture(x, Mixture(shares, mean, var))
    posteriors, mask, logits = _kernels().kept_sizes(x.shape, mean.shape[0], relu)
    new = partial(torch.empty, device=x.device, dtype=torch.float32)
    moments = [new(part.shape) for part in (shares, mean, mean, shares)]
    kept = (
        new(posteriors),
        new(mask, dtype=torch.int16),
        new(logits),
        new((4, *mean.shape), dtype=torch.float64),
    )
    return torch.empty_like(x), *moments, new((), dtype=torch.bool), *kept


@_operator_backward.register_fake
def _(g: Tensor, x: Tensor, weight: Any, *rest: Any) -> Any:
    check_batch(x, weight=weight)
    check_cotangent(g, x)
    check_device(x, *(part for part in rest if isinstance(part, Tensor)))
    return torch.empty_like(x), *(x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(2))


@_fit_operator.register_fake
def _(
    samples: Tensor,
    weight: Tensor,
    mean: Tensor,
    var: Tensor,
    steps: int,
    floor: Any,
    draws: Any,
    center: Any,
    spread: Any,
) -> Any:
    check_fit(samples, Mixture(weight, mean, var), floor, draws, mean=center, var=spread)
    return tuple(samples.new_empty(part.shape) for part in (weight, mean, var))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, *_, center, ctx.eps, ctx.relu = inputs
    ctx.save_for_backward(x, weight, *output[5:], center)
    ctx.dtypes = tuple(None if part is None else part.dtype for part in (weight, bias))


def _backward(ctx: Any, g: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    dx, *others_dx = _operator_backward(g, *ctx.saved_tensors, ctx.eps, ctx.relu)
    gradients = (None if kind is None else d.to(kind) for d, kind in zip(others_dx, ctx.dtypes, strict=True))
    return dx, *gradients, *[None] * 6


_operator.register_autograd(_backward, setup_context=_setup_context)
