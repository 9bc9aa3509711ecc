"""What every norm layer over a batch shares with torch's BatchNorm: arguments, parameters, buffers, averages.

Written out instead of inherited: ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` turns every subclass of
``_BatchNorm`` into plain BatchNorm and says nothing (https://github.com/pytorch/pytorch/issues/187298),
which would drop the activation of one layer and the deviation of another.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gbn.kernels.activation import check_activation
from gbn.nn.recomputing import in_backward

__all__ = ["BatchStatisticsNorm"]


class BatchStatisticsNorm(nn.Module):
    """Base of the layers that take statistics per channel over the batch; its arguments are BatchNorm's.

    Args:
        num_features: C, the size of dimension 1.
        eps: see :mod:`gbn.kernels.epsilon`.
        momentum: share of the new batch in the running averages; None for the plain average over all batches.
        affine: learn a gain ``weight`` (from 1) and a ``bias`` (from 0).
        track_running_stats: keep running averages and use them in evaluation mode; without them, evaluation
            uses the statistics of its own batch, as BatchNorm does.
        device, dtype: of parameters and buffers.
        act: activation applied to the result, None or a name in :data:`gbn.kernels.ACTIVATIONS`.

    Raises:
        ValueError: for an input of the wrong number of dimensions or channels, and in training for a batch
            with one value per channel.
    """

    _version = 2  # of the state dict: that of BatchNorm with num_batches_tracked
    _input_dims: ClassVar[tuple[int, ...]] = ()
    _buffer_names: tuple[str, ...] = ("running_mean", "running_var")
    noise: tuple[float, float] | None = None  # see :mod:`gbn.nn.noise`
    calibrating: bool = False  # within :func:`gbn.nn.calibrate`

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        act: str | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features={num_features}: at least 1 channel is needed")
        if eps < 0:
            raise ValueError(f"eps={eps}: it must be at least 0")
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.act = check_activation(act)
        for name in ("weight", "bias"):
            values = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype)) if affine else None
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
        """Shape of a running average."""
        return (self.num_features,)

    def running(self) -> tuple[Tensor | None, Tensor | None]:
        """The two running averages, (location, spread), or Nones when they are not tracked."""
        return getattr(self, self._buffer_names[0]), getattr(self, self._buffer_names[1])

    def reset_running_stats(self) -> None:
        """Set the running averages to 0 and 1 and the count of batches to 0."""
        if self.track_running_stats:
            location, spread = self.running()
            for buffer, value in ((location, 0), (spread, 1), (self.num_batches_tracked, 0)):
                if buffer is not None:
                    buffer.fill_(value)

    def initial_affine(self) -> tuple[float, float]:
        """Gain and bias that training starts from."""
        return 1.0, 0.0

    def reset_parameters(self) -> None:
        """Reset the running averages, and gain and bias to their starting values."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            gain, bias = self.initial_affine()
            nn.init.constant_(self.weight, gain)
            nn.init.constant_(self.bias, bias)

    def _check_input(self, x: Tensor) -> None:
        if x.dim() not in self._input_dims:
            allowed = "D or ".join(map(str, self._input_dims))
            raise ValueError(
                f"{type(self).__name__} expects {allowed}D input, got {x.dim()}D {tuple(x.shape)}"
            )
        if x.shape[1] != self.num_features:
            raise ValueError(
                f"{type(self).__name__} has num_features={self.num_features}, got an input with {x.shape[1]} "
                f"channels: {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise ValueError(f"{type(self).__name__} expects floating point input, got {x.dtype}")

    def _uses_batch(self) -> bool:
        """Whether this call normalises with the batch's own statistics."""
        return self.training or all(buffer is None for buffer in self.running())

    def _is_noisy(self) -> bool:
        """Whether this call is one of an attacked training (:mod:`gbn.nn.noise`)."""
        return self.noise is not None and self.training and not self.calibrating

    def _noisy_affine(self, x: Tensor, gain: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gain and bias that do to x_hat what these (None: 1 and 0) do to ``scale x_hat + shift``."""
        assert self.noise is not None
        scale, shift = self.noise
        if gain is None:
            wide = torch.promote_types(x.dtype, torch.float32)
            gain = torch.ones(self.num_features, dtype=wide, device=x.device)
        return gain * scale, gain * shift if bias is None else bias + gain * shift

    def _check_batch(self, x: Tensor) -> None:
        if x.numel() == x.shape[1]:  # the rule and the words of torch.nn.functional.batch_norm
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {x.size()}"
            )

    def _count_batch(self) -> float | Tensor | None:
        """Count this batch and return its share in the running averages; None: nothing to average.

        A pass that is made again (:mod:`gbn.nn.recomputing`) counts for nothing.
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
        """The arguments, as BatchNorm prints them, and the activation."""
        text = (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )
        return text if self.act is None else f"{text}, act={self.act!r}"

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        # Checkpoints older than num_batches_tracked lack it; BatchNorm fills it in, and so does this.
        key = prefix + "num_batches_tracked"
        if (local_metadata.get("version") or 1) < 2 and self.num_batches_tracked is not None:
            state_dict.setdefault(key, self.num_batches_tracked.clone())
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
