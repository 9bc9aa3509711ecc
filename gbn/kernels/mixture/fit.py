"""Fitting a mixture to samples: k-means++ seeds, then expectation-maximization steps, all without gradient.

Nothing here waits for a number from the device: the same operations run whatever the data, empty components included.
"""

import torch
from torch import Tensor

from gbn.kernels.checks import check_batch, check_not_empty
from gbn.kernels.mixture import autograd
from gbn.kernels.mixture.checks import check_draws, check_fit
from gbn.kernels.mixture.gaussians import Mixture, channel_moments, quadratic

__all__ = ["fitted", "log_likelihood", "seeded"]


def seeded(samples: Tensor, components: int, draws: Tensor, form: str) -> Mixture:
    """Return the clusters of the samples nearest to k-means++ seeds (Arthur and Vassilvitskii 2007), as components.

    Distances are measured in units of each channel's standard deviation.

    Args:
        samples: (S, C).
        components: K.
        draws: uniform numbers in [0, 1): (K,) for a joint mixture, (K * C,) for one per channel.
        form: ``joint`` or ``per_channel``.

    Raises:
        ValueError: there are no samples.
        RuntimeError: the samples are not strided and floating point; there are too few draws, or too many.
    """
    check_batch(samples)
    check_not_empty(samples)
    check_draws(samples, draws, components if form == "joint" else components * samples.shape[1])
    count = samples.shape[0]
    mean, var = channel_moments(samples)
    scaled = samples * _inverse_deviation(var)
    draws = draws.view(components, -1)
    chosen = (draws[0] * count).long().clamp(max=count - 1)
    seeds, distances = [_at(samples, chosen)], [_distance(scaled, _at(scaled, chosen), form)]
    nearest = distances[0]
    for k in range(1, components):
        chosen = _drawn(nearest, draws[k])
        seeds.append(_at(samples, chosen))
        distances.append(_distance(scaled, _at(scaled, chosen), form))
        nearest = torch.minimum(nearest, distances[k])
    kinds = torch.arange(components, device=samples.device).view(-1, 1, 1)
    # each sample belongs to its nearest seed; one step of maximization on these hard posteriors gives the clusters
    belongs = (torch.stack(distances).argmin(0, keepdim=True) == kinds).to(samples.dtype)
    every = Mixture(belongs.mean(1), torch.stack(seeds), var.expand(components, -1))
    centered = samples - mean
    return _maximized(centered, centered.square(), belongs, every, mean, torch.zeros_like(var))


def fitted(
    samples: Tensor, start: Mixture, steps: int, floor: Tensor, draws: Tensor | None = None
) -> Mixture:
    """Return the mixture after a few steps of expectation-maximization.

    Args:
        samples: (S, C), in float32 or wider.
        start: the initial mixture.
        steps: number of steps; 0 gives ``start`` with its variances raised to the floor.
        floor: (C,): the smallest variance.
        draws: uniform numbers as in :func:`seeded`: a component with less than one sample is restarted, with the
            variance of all samples, at a sample drawn by its distance from the other components. None: it stays.

    A component without samples keeps its mean and variance, and gets the weight of a millionth of a sample.

    Raises:
        ValueError: there are no samples.
        RuntimeError: the samples are not strided and floating point; something has another shape or device.
    """
    check_fit(samples, start, floor, draws)
    mean, var = channel_moments(samples)
    if start.weight.shape[1] == 1 and autograd.serves_fit(samples, start.mean.shape[0]):
        return autograd.fit(samples, start, steps, floor, draws, mean, var)
    mixture = Mixture(start.weight, start.mean, torch.maximum(start.var, floor))
    centered = samples - mean
    squares = centered.square()
    for step in range(steps):
        posterior = _posterior(centered, squares, mixture, mean)
        if step == 0 and draws is not None:
            mixture = _revived(samples, posterior, mixture, torch.maximum(var, floor), draws)
            posterior = _posterior(centered, squares, mixture, mean)
        mixture = _maximized(centered, squares, posterior, mixture, mean, floor)
    return mixture


def log_likelihood(samples: Tensor, mixture: Mixture) -> Tensor:
    """Return the mean log-likelihood of the samples, without the Gaussian constant: (1,) if joint, (C,) if per
    channel.
    """
    mean, _ = channel_moments(samples)
    centered = samples - mean
    return torch.logsumexp(_log_joint(centered, centered.square(), mixture, mean), 0).mean(0)


def _log_joint(centered: Tensor, squares: Tensor, mixture: Mixture, center: Tensor) -> Tensor:
    """Return log (weight * density): (K, S, 1) for a joint mixture, (K, S, C) for one per channel."""
    a, b, c = quadratic(mixture, center)
    # joint: matrix products sum over channels without an array of (K, S, C)
    if mixture.weight.shape[1] == 1:
        powers = torch.addmm(squares @ (-0.5 * a).T, centered, b.T).T.unsqueeze(2)
        return powers + (c.sum(1, keepdim=True) + mixture.weight.log()).unsqueeze(1)
    powers = centered * b.unsqueeze(1) - 0.5 * squares * a.unsqueeze(1)
    return powers + (c + mixture.weight.log()).unsqueeze(1)


def _posterior(centered: Tensor, squares: Tensor, mixture: Mixture, center: Tensor) -> Tensor:
    return torch.softmax(_log_joint(centered, squares, mixture, center), 0)


def _maximized(
    centered: Tensor, squares: Tensor, posterior: Tensor, last: Mixture, center: Tensor, floor: Tensor
) -> Mixture:
    total = posterior.sum(1)  # (K, 1) or (K, C)
    divisor = total.clamp(min=torch.finfo(total.dtype).tiny)
    if posterior.shape[2] == 1:
        first, second = (posterior.squeeze(2) @ values for values in (centered, squares))
    else:
        first, second = ((posterior * values).sum(1) for values in (centered, squares))
    # about the samples' mean, so that the difference below does not cancel a large common offset
    offset = first / divisor
    var = torch.maximum(second / divisor - offset.square(), floor)
    few = total < 1e-6  # samples: such a component has no mean of its own and keeps the last one
    weight = total.clamp(min=1e-6) / centered.shape[0]
    return Mixture(
        weight / weight.sum(0),
        torch.where(few, last.mean, center + offset),
        torch.where(few, last.var, var),
    )


def _revived(samples: Tensor, posterior: Tensor, mixture: Mixture, var: Tensor, draws: Tensor) -> Mixture:
    components = mixture.mean.shape[0]
    empty = posterior.sum(1) < 1.0
    form = "joint" if posterior.shape[2] == 1 else "per_channel"
    scale = _inverse_deviation(var)
    scaled, means = samples * scale, mixture.mean * scale
    nearest = samples.new_full((samples.shape[0], posterior.shape[2]), torch.inf)
    for k in range(components):
        distance = _distance(scaled, means[k], form)
        # empty components do not repel the new seeds
        nearest = torch.where(empty[k], nearest, torch.minimum(nearest, distance))
    draws = draws.view(components, -1)
    seeds = torch.stack([_at(samples, _drawn(nearest, draws[k])) for k in range(components)])
    weight = torch.where(empty, 1 / components, mixture.weight)
    return Mixture(
        weight / weight.sum(0), torch.where(empty, seeds, mixture.mean), torch.where(empty, var, mixture.var)
    )


def _inverse_deviation(var: Tensor) -> Tensor:
    """Return 1 / standard deviation; 0 for a constant channel, which does not tell samples apart."""
    return torch.where(var > 0, var.clamp(min=torch.finfo(var.dtype).tiny).rsqrt(), 0.0)


def _distance(scaled: Tensor, seed: Tensor, form: str) -> Tensor:
    """Return squared distances of (S, C) from (C,): (S, 1) over all channels, or (S, C)."""
    squares = (scaled - seed).square()
    return squares.sum(1, keepdim=True) if form == "joint" else squares


def _drawn(distances: Tensor, draw: Tensor) -> Tensor:
    """Return indices with probability proportional to the distance: (S, R) non-negative, (R,) uniform -> (R,).

    Where all distances are 0 (or none is finite) every sample is equally likely.
    """
    known = torch.where(distances.isfinite(), distances, 1.0)
    known = torch.where(known.sum(0) > 0, known, 1.0)
    # float64: a float32 sum over many samples would absorb the last ones
    sums = known.double().cumsum(0).T.contiguous()
    wanted = draw.double().unsqueeze(1) * sums[:, -1:]
    found = torch.searchsorted(sums, wanted, right=True).squeeze(1)
    return found.clamp(max=distances.shape[0] - 1)


def _at(samples: Tensor, chosen: Tensor) -> Tensor:
    """Return row (1,) of (S, C), or one row per channel (C,), as (C,)."""
    if chosen.shape[0] == 1:
        return samples.index_select(0, chosen).squeeze(0)
    return samples.gather(0, chosen.unsqueeze(0)).squeeze(0)
