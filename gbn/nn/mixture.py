"""Mixture normalization: every sample is normalized by the mixture components that it belongs to.

    y_i = act(weight * sum_k t_ik / sqrt(l_k) * (x_i - m_k) / sqrt(q_k + eps) + bias)

(Kalayeh and Shah: Training Faster by Separating Modes of Variation in Batch-normalized Models, TPAMI 2019, arXiv
1806.02892. They published no code, so the formula is reconstructed; what they left open is an option here.) Samples
are the C-vectors at every position of every image; :mod:`gbn.kernels.mixture` defines t, l, m and q.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from gbn.kernels import activate
from gbn.kernels.mixture import Mixture, Moments, normalize_by_batch, normalize_by_mixture
from gbn.nn.arguments import refuse_components_as_eps
from gbn.nn.base import BatchStatisticsNorm
from gbn.nn.mixture_fit import MixtureFit, full_precision, overflowed
from gbn.nn.recomputing import FirstPasses, in_backward

__all__ = ["MixtureNorm1d", "MixtureNorm2d", "MixtureNorm3d"]


class _MixtureNorm(BatchStatisticsNorm):
    """Normalization by the components of a Gaussian mixture with diagonal variances.

    In training, a few steps of expectation-maximization (EM) fit a mixture to a subset of the batch's samples,
    without gradient, and all samples get posteriors from it; the means, variances and weights of the components are
    then those of the whole batch under these posteriors. Evaluation uses running averages of them. With one component
    this is batch normalization, running averages included. The mean of the result is 0 and its variance is at most K
    (equal to K where posteriors are 0 or 1): so the layer starts with a larger gain than batch normalization, and so
    do the controls of :mod:`gbn.nn.mixture_controls`.

    Args:
        num_features: C, the size of dimension 1.
        components: K; the paper uses 3 and 5.
        mixture: ``joint`` for one mixture of C-vectors, ``per_channel`` for one mixture of scalars per channel.
        em_steps: EM steps per batch. With 0 the posteriors come from the mixture of past batches (in the first batch,
            from the k-means++ seeds).
        subset: number of samples used by the EM steps, drawn anew for each batch.
        warm_start: if True, EM starts from the running mixture, so that components keep their identity from batch to
            batch, and a component left without samples restarts at one of them; the first batch starts from
            k-means++ seeds. If False, every batch starts from seeds. Its components then have no identity that an
            average could follow, so the running mixture is that of the last batch; :func:`gbn.nn.precise_statistics`
            and :func:`gbn.nn.calibrate` fit a new one, each of whose batches starts from the one before.
        posterior_gradient: whether gradients flow through the posteriors' dependence on the input; by default
            posteriors are constants, as the mixture is.
        variance_floor: in fitting, no component's variance is less than this fraction of the channel's plus eps.
        eps: added to the components' variances; also the smallest variance in fitting.
        momentum, affine, track_running_stats, device, dtype, bias: as in BatchNorm.
        act: activation applied to the result, None or a name in :data:`gbn.kernels.ACTIVATIONS`.

    Shapes:
        input and output ``(N, C)`` or ``(N, C, L)`` (1d), ``(N, C, H, W)`` (2d), ``(N, C, D, H, W)`` (3d).

    State: ``running_weight`` (K, 1), or (K, C) with ``per_channel``, ``running_mean`` and the unbiased
    ``running_var``, (K, C) each, ``num_batches_tracked``, and ``stream``. All draws are a function of ``stream`` and
    the batch count; no generator is used, so resumed training continues as if it had not been interrupted. Loading a
    checkpoint of BatchNorm takes gain and bias only and warns. Differentiable once in training. No operation
    synchronizes with a GPU.

    A batch whose squares overflow its precision is normalized in float64 (on the CPU, in eager mode). Under
    activation checkpointing each batch counts once; with ``DistributedDataParallel`` each process has its own
    mixture, and the running mixture is the first process's: its buffers are broadcast, like BatchNorm's.

    Raises:
        ValueError: for an option out of range, an input of the wrong shape, and in training for a batch with one
            value per channel or with fewer samples than components.
    """

    _buffer_names: tuple[str, ...] = ("running_weight", "running_mean", "running_var")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        components: int = 3,
        mixture: str = "joint",
        em_steps: int = 3,
        subset: int = 1024,
        warm_start: bool = True,
        posterior_gradient: bool = False,
        variance_floor: float = 1e-3,
        act: str | None = None,
    ) -> None:
        refuse_components_as_eps(eps)
        self.fit = MixtureFit(components, mixture, em_steps, subset, variance_floor)
        self.warm_start, self.posterior_gradient = warm_start, posterior_gradient
        self._first_passes = FirstPasses()  # `began` also says whether there is a mixture to start from
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias, act=act
        )
        self.stream: Tensor
        self.register_buffer("stream", torch.zeros((), dtype=torch.int64, device=device))

    def _buffer_shape(self, name: str) -> tuple[int, ...]:
        last = self.fit.weights(self.num_features) if name == "running_weight" else self.num_features
        return (self.fit.components, last)

    def seed_stream(self, seed: int) -> None:
        """Set the random stream of this layer's draws; initially 0."""
        self.stream.fill_(seed)

    def running_mixture(self) -> Mixture | None:
        """Return the running averages, or None if they are not tracked."""
        parts = [getattr(self, name) for name in self._buffer_names]
        return None if parts[0] is None else Mixture(*parts)

    def running(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the mean and variance of the whole running mixture, (C,) each, or Nones if it is not tracked."""
        kept = self.running_mixture()
        if kept is None:
            return None, None
        mean = (kept.weight * kept.mean).sum(0)
        var = (kept.weight * (kept.var + (kept.mean - mean).square())).sum(0)
        return mean, var.clamp(max=torch.finfo(var.dtype).max)

    def reset_running_stats(self) -> None:
        """Forget the mixture: the next training batch starts from k-means++ seeds. Until then the first component is
        a standard Gaussian with all the weight, so that evaluation does what a fresh BatchNorm does.
        """
        self._first_passes.began = False
        kept = self.running_mixture()
        if kept is not None and self.num_batches_tracked is not None:
            kept.weight.zero_()
            kept.weight[0].fill_(1.0)
            kept.mean.zero_()
            kept.var.fill_(1.0)
            self.num_batches_tracked.zero_()

    def restart_running_stats(self) -> None:
        """Restart the averages; with a warm start, the next batch still starts from the present components."""
        if not self.warm_start:
            self.reset_running_stats()
        elif self.num_batches_tracked is not None:
            self.num_batches_tracked.zero_()

    def buffers_changed(self) -> None:
        """Check again whether there is a running mixture to start from; call this after setting buffers by hand."""
        count = self.num_batches_tracked
        self._first_passes.began = count is not None and count.device.type != "meta" and bool(count > 0)

    def reset_parameters(self) -> None:
        """Reset the running averages and the stream, and reset gain and bias to their initial values."""
        super().reset_parameters()
        if "stream" in self._buffers:  # False while the base class's constructor runs
            self.stream.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` normalized; in training by its own components, which are added to the running averages."""
        self._check_input(x)
        gain, bias = (
            self._noisy_affine(x, self.weight, self.bias) if self._is_noisy() else (self.weight, self.bias)
        )
        with full_precision(x):
            kept = self.running_mixture()
            if not self._uses_batch() and kept is not None:
                _, var = self.running()
                assert var is not None
                floor = self.fit.floor(var, self.eps)  # as in fitting: a constant channel's variance is 0
                return activate(normalize_by_mixture(x, kept, gain, bias, self.eps, floor), self.act)
            self._check_batch(x)
            self.fit.check_samples(x, type(self).__name__)
            share = self._count_batch()
            if x.numel() == 0:
                # As in BatchNorm: an empty result, zero gradients, running averages unchanged.
                y = x * 1 if gain is None else (x * gain[0]).to(x.dtype)
                return y if bias is None else (y + bias[0]).to(x.dtype)
            start = kept if self._first_passes.began and self._follows() else None
            y, moments, share = self._normalized(x, start, share, gain, bias)
            if overflowed(x, moments, start):
                y, moments, share = self._normalized(x.double(), start, share, gain, bias)
            if share is not None and kept is not None:
                self._average(kept, moments, share, x.numel() // self.num_features)
            return y.to(x.dtype)

    def _normalized(
        self,
        x: Tensor,
        start: Mixture | None,
        share: float | Tensor | None,
        gain: Tensor | None,
        bias: Tensor | None,
    ) -> tuple[Tensor, Moments, float | Tensor | None]:
        """Return the normalized batch, its moments, and their weight in the running averages."""
        mixture, center = self.fit(x.detach(), self.eps, self.stream, self._count(), start)
        if start is None and self.fit.components > 1:
            share = None if share is None else 1.0  # new components, not the running ones updated
        if share is not None or in_backward():
            (*parts, center), first = self._first_passes(x, *mixture, center, seen=not self.calibrating)
            mixture = Mixture(*parts)
            if first is not None and share is not None:
                share = share * first
                self._count().sub_(1 - first)
        y, moments = normalize_by_batch(
            x, mixture, gain, bias, self.eps, self.posterior_gradient, center, self.act
        )
        return y, moments, share

    def _uses_batch(self) -> bool:
        return self.training or self.running_mixture() is None

    def _follows(self) -> bool:
        """Return whether EM starts from the previous batch's mixture; during calibration it always does."""
        return self.warm_start or self.calibrating

    def _count(self) -> Tensor:
        return torch.zeros_like(self.stream) if self.num_batches_tracked is None else self.num_batches_tracked

    @torch.no_grad()
    def _average(self, kept: Mixture, moments: Moments, share: float | Tensor, samples: int) -> None:
        """Add this batch's components to the running averages.

        A component with less than one sample moves proportionally less. The unbiased variance uses the correction for
        weighted samples (BatchNorm's n / (n - 1) for one component), with at least two samples per component.
        """
        present = (moments.weight * samples).clamp(max=1.0)
        unbiased = moments.var / (1.0 - moments.concentration).clamp(min=0.5)
        most = min(torch.finfo(part.dtype).max for part in (kept.var, unbiased))
        unbiased = unbiased.clamp(max=most)  # an infinite value would stay in the average forever
        for part, new, step in (
            (kept.weight, moments.weight, torch.ones_like(present)),
            (kept.mean, moments.mean, present),
            (kept.var, unbiased, present),
        ):
            part.lerp_(new.to(part.dtype), (step * share).to(part.dtype).expand_as(part))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        foreign = prefix + "running_weight" not in state_dict and prefix + "weight" in state_dict
        if foreign and self.running_mixture() is not None:
            for name in (*self._buffer_names, "num_batches_tracked", "stream"):
                state_dict[prefix + name] = getattr(self, name).clone()
            where = f"layer {prefix[:-1]!r}" if prefix else "this layer"
            warnings.warn(
                f"{where} normalizes by a mixture, its checkpoint holds none: gain and bias are loaded, the mixture "
                "is not and needs calibration (gbn.nn.precise_statistics, or training) before evaluation mode",
                stacklevel=2,
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
        self.buffers_changed()

    def extra_repr(self) -> str:
        """Return BatchNorm's representation plus the mixture's options."""
        return (
            f"{super().extra_repr()}, {self.fit!r}, warm_start={self.warm_start}, "
            f"posterior_gradient={self.posterior_gradient}"
        )


class MixtureNorm1d(_MixtureNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MixtureNorm.__doc__
    _input_dims = (2, 3)


class MixtureNorm2d(_MixtureNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MixtureNorm.__doc__
    _input_dims = (4,)


class MixtureNorm3d(_MixtureNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MixtureNorm.__doc__
    _input_dims = (5,)
