"""The base class of all norm layers that use batch statistics: BatchNorm's arguments, parameters, buffers, averages.

It is written out rather than inherited because ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` silently turns every
subclass of ``_BatchNorm`` into plain BatchNorm (https://github.com/pytorch/pytorch/issues/187298), which would drop
the activation of one layer and the deviation of another.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gbn.kernels.activation import check_activation
from gbn.nn.arguments import check_arguments
from gbn.nn.function import BATCHNORM, Function, adopt, save_function
from gbn.nn.recomputing import in_backward
from gbn.nn.too_few import OneValue
from gbn.nn.torchscript import refuse_script, refuse_trace

__all__ = ["BatchStatisticsNorm", "kept_for_backward"]


def kept_for_backward(buffer: Tensor) -> Tensor:
    """Return a running average for use in evaluation mode: a copy if a backward pass may read it again.

    Training in between would change the buffer, which autograd detects for some operators but not for others.
    """
    # A trace is recorded with gradients and checked without, and its buffers never change.
    return buffer.clone() if torch.is_grad_enabled() and not torch.jit.is_tracing() else buffer


class BatchStatisticsNorm(nn.Module):
    """Base of the layers that compute per-channel statistics over the batch; takes BatchNorm's arguments.

    Args:
        num_features: C, the size of dimension 1.
        eps: see :mod:`gbn.kernels.epsilon`.
        momentum: weight of the new batch in the running averages; None for the plain average over all batches.
        affine: learn a gain ``weight`` (initially 1) and, if ``bias`` is True, a ``bias`` (initially 0).
        track_running_stats: keep running averages and use them in evaluation mode; without them, evaluation
            uses the statistics of its own batch, as in BatchNorm.
        device, dtype: of parameters and buffers.
        bias: False for an affine layer without ``bias``.
        act: activation applied to the result, None or a name in :data:`gbn.kernels.ACTIVATIONS`.

    Raises:
        ValueError: for an argument out of range, an input with the wrong number of dimensions or channels, and in
            training for a batch with one value per channel.
    """

    _version = 2  # state dict version: that of BatchNorm with num_batches_tracked
    _input_dims: ClassVar[tuple[int, ...]] = ()
    _buffer_names: tuple[str, ...] = ("running_mean", "running_var")
    noise: tuple[float, float] | None = None  # see :mod:`gbn.nn.noise`
    __prepare_scriptable__ = refuse_script
    calibrating: bool = False  # True inside :func:`gbn.nn.calibrate`

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
        act: str | None = None,
    ) -> None:
        super().__init__()
        check_arguments(
            num_features=num_features,
            eps=eps,
            momentum=momentum,
            affine=affine,
            track_running_stats=track_running_stats,
            bias=bias,
        )
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.act = check_activation(act)
        for name, learned in (("weight", affine), ("bias", affine and bias)):
            values = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype)) if learned else None
            self.register_parameter(name, values)
        for name in self._buffer_names:
            shape = self._buffer_shape(name)
            kept = torch.empty(shape, device=device, dtype=dtype) if track_running_stats else None
            self.register_buffer(name, kept)
        count = torch.tensor(0, dtype=torch.long, device=device) if track_running_stats else None
        self.num_batches_tracked: Tensor | None
        self.register_buffer("num_batches_tracked", count)
        self.weight: nn.Parameter | None
        self.bias: nn.Parameter | None
        self.reset_parameters()

    def _buffer_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a running average."""
        return (self.num_features,)

    def running(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the two running averages, (location, spread), or (None, None) if they are not tracked."""
        location, spread = self._buffer_names[:2]
        return self._buffers[location], self._buffers[spread]

    def reset_running_stats(self) -> None:
        """Set the running averages to 0 and 1 and the batch count to 0."""
        if self.track_running_stats:
            location, spread = self.running()
            for buffer, value in ((location, 0), (spread, 1), (self.num_batches_tracked, 0)):
                if buffer is not None:
                    buffer.fill_(value)

    def initial_affine(self) -> tuple[float, float]:
        """Return the initial gain and bias."""
        return 1.0, 0.0

    def reset_parameters(self) -> None:
        """Reset the running averages, and reset gain and bias to their initial values."""
        self.reset_running_stats()
        for parameter, value in zip((self.weight, self.bias), self.initial_affine(), strict=True):
            if parameter is not None:
                nn.init.constant_(parameter, value)

    def _check_input(self, x: Tensor) -> None:
        if x.dim() not in self._input_dims:
            allowed = "D or ".join(map(str, self._input_dims))
            raise ValueError(
                f"{type(self).__name__} expects {allowed}D input, got {x.dim()}D {tuple(x.shape)}"
            )
        # While tracing, sizes are tensors: comparing one would bake a number of the example into the trace.
        if not torch.jit.is_tracing() and x.shape[1] != self.num_features:
            raise ValueError(
                f"{type(self).__name__} has num_features={self.num_features}, got an input with {x.shape[1]} "
                f"channels: {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise ValueError(f"{type(self).__name__} expects floating point input, got {x.dtype}")

    def _uses_batch(self) -> bool:
        """Return whether this call normalizes by the batch's own statistics."""
        location, spread = (None, None) if self.training else self.running()
        return location is None and spread is None

    def _is_noisy(self) -> bool:
        """Return whether this call is part of training under the noise attack (:mod:`gbn.nn.noise`)."""
        return self.noise is not None and self.training and not self.calibrating

    def _noisy_affine(self, x: Tensor, gain: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the gain and bias that do to x_hat what these (None: 1 and 0) do to ``scale x_hat + shift``."""
        assert self.noise is not None
        scale, shift = self.noise
        if gain is None:
            wide = torch.promote_types(x.dtype, torch.float32)
            gain = torch.ones(self.num_features, dtype=wide, device=x.device)
        return gain * scale, gain * shift if bias is None else bias + gain * shift

    @property
    def function(self) -> Function:
        """The function that the layer computes, as recorded in its state dict."""
        return BATCHNORM

    def _kept(self) -> tuple[Tensor, Tensor]:
        """Return the running averages for a pass in evaluation mode; see :func:`kept_for_backward`."""
        location, spread = self.running()
        assert location is not None
        assert spread is not None
        return kept_for_backward(location), kept_for_backward(spread)

    def _check_batch(self, x: Tensor) -> None:
        refuse_trace(self)
        self._check_values(x)

    @staticmethod
    def _check_values(x: Tensor) -> None:
        if x.numel() == x.shape[1]:  # the check and the wording of torch.nn.functional.batch_norm
            raise OneValue(f"Expected more than 1 value per channel when training, got input size {x.size()}")

    def _count_batch(self) -> float | Tensor | None:
        """Count this batch and return its weight in the running averages, or None if there is nothing to average.

        A recomputed pass (:mod:`gbn.nn.recomputing`) does not count.
        """
        if not self.training or not self.track_running_stats or self.num_batches_tracked is None:
            return None
        if in_backward():
            return None
        self.num_batches_tracked.add_(1)
        if self.momentum is not None:
            return self.momentum
        _, spread = self.running()
        wide = torch.float32 if spread is None else torch.promote_types(spread.dtype, torch.float32)
        return self.num_batches_tracked.to(wide).reciprocal()

    def extra_repr(self) -> str:
        """Return BatchNorm's representation plus the activation."""
        text = (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )
        if self.weight is not None and self.bias is None:
            text += ", bias=False"
        return text if self.act is None else f"{text}, act={self.act!r}"

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        save_function(self.function, destination, prefix)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        adopt(self, state_dict, prefix, local_metadata)
        # Checkpoints older than num_batches_tracked lack it; BatchNorm fills it in, and so do we.
        key = prefix + "num_batches_tracked"
        if (local_metadata.get("version") or 1) < 2 and self.num_batches_tracked is not None:
            state_dict.setdefault(key, self.num_batches_tracked.clone())
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
