"""The noise of a statistic's gradient on its own, and its dependence on the batch size.

The part of a normalizer's weight gradient that goes through its statistic S is, channel by channel (the backward pass
of :mod:`gbn.kernels`, written for the weight w that makes the channel),

    through_S = - gain / D * (sum_i g_i) * dS/dw,      dS/dw = sum_k S_k dx_k/dw

where g_i is the gradient of the loss with respect to the normalizer's output before its activation, so that sum_i g_i
is the gradient of its bias. dS/dw estimates the derivative of the population's statistic. An average over n samples
has a variance of order 1/n; the exact derivative of an order statistic is one sample, whatever n is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from gbn.kernels.epsilon import denominator
from gbn.models.interface import ConvNorm, LinearNorm
from gbn.nn import GeneralizedBatchNorm1d, GeneralizedBatchNorm2d, GeneralizedBatchNorm3d
from gbn.risk.base import Statistic
from gbn.studies.gradient_variance.moments import GROUPS, GradientSums, Reading, readings
from gbn.tasks.evaluation import restored_modes

__all__ = ["measure_statistic", "normalized_layers", "statistics_at"]

_PAIRED = (GeneralizedBatchNorm1d, GeneralizedBatchNorm2d, GeneralizedBatchNorm3d)


def normalized_layers(model: nn.Module) -> list[str]:
    """Return the paths of the blocks made of a convolution or linear layer followed by a generalized normalizer."""
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, ConvNorm | LinearNorm) and isinstance(module.norm, _PAIRED)
    ]


def statistics_at(models: Mapping[str, nn.Module], layer: str) -> dict[str, Statistic]:
    """Return the statistic of each arm that has one at this layer and lets a gradient through it.

    Raises:
        ValueError: no arm has a generalized normalizer there.
    """
    having = {arm: model for arm, model in models.items() if layer in normalized_layers(model)}
    if not having:
        _require(next(iter(models.values())), layer)
    found: dict[str, Statistic] = {}
    for arm, model in having.items():
        norm = model.get_submodule(layer).norm
        assert isinstance(norm, _PAIRED)
        statistic = norm.pair.statistic
        if statistic.parameters.get("quantile_gradient") != "detached":
            found[arm] = statistic
    return found


def _require(model: nn.Module, layer: str) -> None:
    if layer not in (known := normalized_layers(model)):
        raise ValueError(f"no generalized normalizer at {layer!r}; there are {', '.join(known) or 'none'}")


def measure_statistic(
    model: nn.Module,
    layer: str,
    statistics: Mapping[str, Statistic],
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    groups: int = GROUPS,
) -> list[Reading]:
    """Return the variance over batches of dS/dw (``statistic_variance``) and through_S (``through_variance``).

    Both are measured at one layer. Every statistic sees the same pre-activations and the same gradient from above,
    those of `model`. Parameters and buffers are left unchanged.

    Args:
        model: in any mode; it is run in training mode.
        layer: one of :func:`normalized_layers`.
        statistics: by arm, see :func:`statistics_at`.
        batches: images and labels; all of one size.
        loss: of (the model's output, labels), a scalar.
        groups: see :class:`gbn.studies.gradient_variance.moments.GradientSums`.

    Raises:
        ValueError: the layer is not one of those, or there is no batch.
    """
    _require(model, layer)
    block = model.get_submodule(layer)
    weight: nn.Parameter = (block.conv if isinstance(block, ConvNorm) else block.linear).weight  # type: ignore
    sizes = {layer: weight.numel()}
    sums = [GradientSums(list(statistics), sizes, groups=groups) for _ in range(2)]
    with restored_modes(model):
        model.train()
        for images, labels in batches:
            derivatives, factor = _at_batch(model, block, weight, statistics, images, labels, loss)
            sums[0].add(derivatives.flatten(1))
            sums[1].add((derivatives * factor[:, None]).flatten(1))
    names = ("statistic_variance", "through_variance")
    return [
        Reading(row.arm, layer, name, "", row.value, row.error)
        for name, sum_ in zip(names, sums, strict=True)
        for row in readings(sum_)
        if row.quantity == "variance" and row.layer == layer
    ]


def _at_batch(
    model: nn.Module,
    block: nn.Module,
    weight: nn.Parameter,
    statistics: Mapping[str, Statistic],
    images: Tensor,
    labels: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return dS/dw of each arm (arms, channels, weights per channel), and each channel's factor -gain / D * sum g."""
    norm = block.norm
    assert isinstance(norm, _PAIRED)
    assert norm.bias is not None
    kept: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    try:
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        value = loss(torch.func.functional_call(model, buffers, (images,)), labels)
    finally:
        handle.remove()
    (x,) = kept
    (to_bias,) = torch.autograd.grad(value, norm.bias, retain_graph=True)
    dims = [0, *range(2, x.ndim)]
    rows = []
    for statistic in statistics.values():
        # A channel's weights affect only that channel, so the sum's gradient holds every channel's.
        (row,) = torch.autograd.grad(statistic(x, dims).sum(), weight, retain_graph=True)
        rows.append(row.flatten(1))
    with torch.no_grad():
        gain, eps = norm._scaled(x)
        divisor = denominator(norm.pair.deviation, norm.pair.deviation(x, dims), eps)
        factor = -to_bias / divisor if gain is None else -gain * to_bias / divisor
    return torch.stack(rows).double(), factor.double()
