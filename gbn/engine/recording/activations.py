"""Per-channel statistics of a normalizer's input and output: the activation half of a recording.

Moments, S and D are computed from all values of a channel over the recording batch; the shape of the distribution
(skewness, kurtosis, tail) is estimated from at most :data:`SAMPLE` of them.
"""

import math

import torch
from torch import Tensor, nn

from gbn import kernels
from gbn.kernels.activation import keeps_upper_tail_only
from gbn.nn.base import BatchStatisticsNorm
from gbn.nn.controls import _ReparametrizedBatchNorm
from gbn.nn.custom import NormThenActivation
from gbn.nn.generalized import _GeneralizedBatchNorm

#: The most values of a channel from which its shape is estimated.
SAMPLE = 1 << 14

#: Share of a channel's values that counts as its upper tail, and how many values a tail needs.
TAIL, FEWEST_IN_TAIL = 0.05, 10


def norm_of(layer: nn.Module) -> nn.Module:
    """Return the normalizer itself, without the activation that follows a third-party one."""
    return layer.norm if isinstance(layer, NormThenActivation) else layer


def describe_input(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return statistics of a normalizer's input in training mode, each of shape (C,); NaN where undefined.

    With the mean and std (dividing by n) of a channel over batch and space:

    * ``skewness``, ``kurtosis`` (excess: 0 for a Gaussian), ``tail_index`` (:func:`hill`);
    * ``statistic`` = (S - mean) / std and ``deviation`` = D / std, S and D being what the layer subtracts and
      divides by: (0, 1) for BatchNorm and ``bn_matched``, its own (k, c) for
      ``bn_reparam`` and ``bn_measured_reparam``;
    * ``gap_statistic`` = \\|running S - S\\| / std and ``gap_deviation`` = running D / D, of the averages that
      the layer keeps (these two keep mean and variance);
    * ``slope`` = gain std / D and ``level`` = bias + gain (mean - S) / D: the layer before its activation as a
      function of (x - mean) / std, comparable across arms (gain and bias are not, since D differs between arms).

    Layers that compute no statistic over the batch (layer, group, instance, none) only have the first three.

    Args:
        layer: a normalizer, in training mode.
        x: its input, (N, C, *spatial).
    """
    x = x.detach().float()
    dims = [0, *range(2, x.ndim)]
    variance, mean = torch.var_mean(x, dims, correction=0)
    std = variance.sqrt()
    found = _shape(x)
    pair = _pair(norm_of(layer), x, mean, std)
    if pair is None:
        return found
    layer = norm_of(layer)
    kept_s, kept_d = pair
    s, d = _used(layer, kept_s, kept_d)
    found |= {"statistic": (s - mean) / std, "deviation": d / std}
    running_s, running_d = _running(layer)
    if running_s is not None and running_d is not None:
        found |= {"gap_statistic": (running_s - kept_s).abs() / std, "gap_deviation": running_d / kept_d}
    gain, bias = (getattr(layer, name, None) for name in ("weight", "bias"))
    gain = torch.ones_like(std) if gain is None else gain.detach().float()
    bias = torch.zeros_like(std) if bias is None else bias.detach().float()
    return found | {"slope": gain * std / d, "level": bias + gain * (mean - s) / d}


def describe_output(act: str | None, y: Tensor) -> dict[str, Tensor]:
    """Return ``active``: the share of a channel's values that a ReLU (or ReLU6) inside the layer passes, (C,).

    Empty if the activation is another one or is elsewhere, for example after the sum of a residual block.
    """
    if not keeps_upper_tail_only(act):
        return {}
    return {"active": (y.detach() > 0).float().mean([0, *range(2, y.ndim)])}


def hill(rows: Tensor) -> Tensor:
    """Return Hill's estimate of the upper tail index (Annals of Statistics 3, 1975), (C, n) -> (C,).

    It is 1 / mean log(z_i / z_0) over the k = 5 % largest z, with z the distance above the row's mean and z_0 the
    (k+1)-th largest: alpha of a tail P(z > t) ~ t^-alpha. Smaller is heavier; a Gaussian, whose tail is not a power
    law, has 4.7 here. Use it to compare arms: for a skewed sample the mean is not a natural zero, so alpha is biased.

    NaN if the tail is not above the mean or has fewer than :data:`FEWEST_IN_TAIL` values.
    """
    k = round(TAIL * rows.shape[1])
    if k < FEWEST_IN_TAIL:
        return torch.full_like(rows[:, 0], math.nan)
    largest = rows.topk(k + 1, dim=1).values - rows.mean(1, keepdim=True)
    edge = largest[:, -1:]
    index = (largest[:, :-1] / edge).log().mean(1).reciprocal()
    return torch.where(edge[:, 0] > 0, index, math.nan)


def sample_rows(x: Tensor, most: int = SAMPLE) -> Tensor:
    """Return at most ``most`` values of each channel as rows: (N, C, *spatial) -> (C, n).

    Every image contributes the same evenly spaced positions. The step shares no divisor with the image width, so
    that positions don't cluster in a few columns, perhaps at the border.
    """
    flat = x.flatten(2) if x.ndim > 2 else x[:, :, None]
    step = max(1, math.ceil(x.shape[0] * flat.shape[2] / most))
    while step > 1 and math.gcd(step, x.shape[-1]) > 1:
        step += 1
    return flat[:, :, ::step].transpose(0, 1).flatten(1)


def _shape(x: Tensor) -> dict[str, Tensor]:
    rows = sample_rows(x)
    variance, mean = torch.var_mean(rows, 1, correction=0, keepdim=True)
    z = (rows - mean) / variance.sqrt()
    cubes = z.square().mul_(z)
    return {
        "skewness": cubes.mean(1),
        "kurtosis": cubes.mul_(z).mean(1) - 3.0,
        "tail_index": hill(rows),
    }


def _pair(layer: nn.Module, x: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the batch's S and D as kept in the running averages; None if the layer computes none over the batch."""
    if isinstance(layer, _GeneralizedBatchNorm):
        if layer.pair.is_mean_and_std:
            return mean, std
        _, s, d = kernels.normalize(x, None, None, layer.pair.statistic, layer.pair.deviation, layer.eps)
        return s, d
    if isinstance(layer, BatchStatisticsNorm | nn.modules.batchnorm._BatchNorm):
        return mean, std
    return None


def _used(layer: nn.Module, s: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the layer subtracts and divides by, given the S and D that it keeps."""
    if isinstance(layer, _GeneralizedBatchNorm):
        return s, d / layer._scale
    if isinstance(layer, _ReparametrizedBatchNorm):
        return s + layer._shift * d, layer._scale * d
    return s, d


def _running(layer: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Return the layer's running S and D, each None if it has none."""
    if isinstance(layer, BatchStatisticsNorm):
        s, d = layer.running()
    else:
        s, d = getattr(layer, "running_mean", None), getattr(layer, "running_var", None)
    if d is not None and not (isinstance(layer, _GeneralizedBatchNorm) and not layer.pair.is_mean_and_std):
        d = d.sqrt()
    return s, d
