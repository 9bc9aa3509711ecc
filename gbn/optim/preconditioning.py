"""Batch normalization preconditioning (BNP): gradients that know the statistics of a layer's inputs.

Lange, Helfrich, Ye, Batch Normalization Preconditioning for Neural Network Training, JMLR 23(72), 2022,
arXiv 2108.01110. No layer is added to the network. For a layer ``a = W h + b`` whose inputs have the mean mu[j] and
the variance s2[j] in column j, the gradients are rewritten before the optimizer's step::

    G_W'[i,j] = (G_W[i,j] - mu[j] G_b[i]) / s2[j]
    G_b'[i]   = G_b[i] - sum_j mu[j] G_W'[i,j]

That is a gradient step on V and c of ``a = V (h - mu) / s + c``, batch normalization of the inputs with statistics
held fixed, seen from W = V / s and b = c - W mu; an affine change of the inputs changes nothing.

The formulas are derived, and tested against that parametrisation. The safeguards are recalled from the paper, not
read in it, and each is an option: running moments (``rho``), the floor of the variance (``eps_relative``, ``eps``)
and the division of both gradients by max(m / N, 1) (``fan_in_scale``). Ours: the running moments are averages of
raw first and second moments, since variances within a batch are 0 for ever at batch 1 and half the truth at batch
2; they are debiased at the start, as in Adam; N of a convolution counts positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gbn.optim.input_moments import STATISTICS
from gbn.optim.preconditioned_layers import MISSING_BIAS, find_layers
from gbn.suggest import did_you_mean

__all__ = ["FAN_IN_SCALES", "BatchNormPreconditioner"]

FAN_IN_SCALES = ("rows", "images", "none")


@dataclass(frozen=True)
class _Counts:
    """What the sums of a step are made of.

    Attributes:
        rows: (columns,), terms of each sum, 1 where there is none.
        seen: (columns,), whether there is one; None: everywhere.
        shrink: a number a layer, one over max(m / N, 1).
        shrink_columns: the same by column; None: 1 everywhere.
    """

    rows: Tensor
    seen: Tensor | None
    shrink: Sequence[float] | Tensor
    shrink_columns: Tensor | None


class BatchNormPreconditioner:
    """Rewrites the gradients of a model's linear layers and convolutions by the statistics of their inputs.

    Hooks collect what the layers get in training, as long as gradients are recorded; evaluation is untouched and
    the model keeps no trace of it. Call :meth:`precondition` between ``backward()`` (and ``scaler.unscale_``) and the
    optimizer's step, and before gradients are clipped::

        preconditioner = BatchNormPreconditioner(model)
        for images, labels in batches:
            optimizer.zero_grad()
            loss(model(images), labels).backward()
            preconditioner.precondition()
            optimizer.step()
        preconditioner.remove()

    Works with any optimizer (Adam undoes part of it), at any batch size, with gradient accumulation (all forward
    passes since the last call count), automatic mixed precision (moments are float32 sums, float64 from there on),
    groups, ``channels_last``, tied weights and layers that are called several times, and a compiled model, if the
    preconditioner is made before its first call. Where ``torch.distributed`` runs, sums are added up over the
    processes, so that every process must call the same layers; sharded parameters are not supported. Layers that
    were not called as modules since the last step, transposed convolutions, frozen layers and layers without a
    gradient keep the gradients that they have. Nothing here waits for a GPU. A recomputed forward pass
    (activation checkpointing) is counted twice.

    Args:
        model: with ``nn.Linear`` or ``nn.Conv1d/2d/3d`` layers that have biases.
        rho: weight of the past in the running moments, in [0, 1); 0 uses each step's inputs alone.
        eps, eps_relative: the variance used is ``s2 + eps_relative * max(s2) + eps``, the maximum over the layer.
        fan_in_scale: N of the divisor max(m / N, 1), m being the layer's inputs (the taps of a kernel counted):
            ``rows``, the terms of each average, which for a convolution are images x positions; ``images``; or
            ``none``, no division.
        statistics: of a convolution, ``channel``: one mean and variance a channel; ``patch``: exact ones for each
            tap of the kernel (see :mod:`gbn.optim.input_moments`).
        missing_bias: what a trainable layer without a trainable bias is: an ``error``, or something to ``skip``.
        exclude: module paths (fnmatch patterns) that are left alone.
        synchronize: whether to add up over the processes of ``torch.distributed``, if it is initialised.
        process_group: over which; None is the default group.

    Raises:
        ValueError: an option that is not allowed, a pattern without a match, nothing to precondition, a layer that
            cannot be (no bias; a weight that is computed or shared with another kind of layer), or a model that
            has a preconditioner already.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        rho: float = 0.99,
        eps: float = 1e-4,
        eps_relative: float = 1e-2,
        fan_in_scale: str = "rows",
        statistics: str = "channel",
        missing_bias: str = "error",
        exclude: Sequence[str] = (),
        synchronize: bool = True,
        process_group: Any = None,
    ) -> None:
        if not 0 <= rho < 1:
            raise ValueError(f"rho={rho} is the weight of the past: 0 <= rho < 1 is needed")
        if not (eps >= 0 and eps_relative >= 0):
            raise ValueError(f"eps={eps} and eps_relative={eps_relative} must not be negative")
        for name, value, allowed in (
            ("fan_in_scale", fan_in_scale, FAN_IN_SCALES),
            ("statistics", statistics, STATISTICS),
            ("missing_bias", missing_bias, MISSING_BIAS),
        ):
            if value not in allowed:
                raise ValueError(
                    f"{name}={value!r}{did_you_mean(value, allowed)}: allowed are {', '.join(allowed)}"
                )
        self.rho, self.eps, self.eps_relative = rho, eps, eps_relative
        self.fan_in_scale, self.statistics = fan_in_scale, statistics
        self._group = process_group
        self._synchronize = synchronize
        self._layers = find_layers(model, statistics, missing_bias, exclude)
        self._sizes = columns = [layer.columns for layer in self._layers]
        # Rows: mean, second moment, and the sum of weights that debiases both. The layers stand side by side, so
        # that a step costs a handful of operations on one vector and three on each layer's gradients.
        self._running = torch.zeros(3, sum(columns), dtype=torch.float64)
        self._ones = torch.ones(1, sum(columns), dtype=torch.float64)
        self._layer_of = torch.repeat_interleave(torch.arange(len(columns)), torch.tensor(columns))
        self._fan_in = torch.tensor([layer.fan_in for layer in self._layers], dtype=torch.float64)
        self._counts: dict[tuple[tuple[int, int], ...], _Counts] = {}
        self._handles = [handle for layer in self._layers for handle in layer.attach()]

    @torch.no_grad()
    def precondition(self) -> None:
        """Take up the moments that were collected since the last call, and rewrite ``.grad`` in place."""
        called = [layer for layer in self._layers if layer.rows]
        if not called:
            return
        counts = self._absorb(called[0].weight.device)
        mean, inverse = self._mean_and_inverse()
        if counts.shrink_columns is not None:
            inverse = inverse * counts.shrink_columns
        factors = torch.stack((mean, inverse))
        parts: dict[torch.dtype, tuple[Tensor, ...]] = {}
        for place, layer in enumerate(self._layers):
            gradients = layer.gradients() if layer.rows else None
            if gradients is not None:
                # In the precision of the gradients, float32 at least.
                dtype = torch.float64 if gradients[0].dtype == torch.float64 else torch.float32
                if dtype not in parts:
                    parts[dtype] = factors.to(dtype).split(self._sizes, dim=1)
                layer.rewrite(gradients, parts[dtype][place], counts.shrink[place])
            layer.forget()

    def _absorb(self, device: torch.device) -> _Counts:
        """Move the running moments towards this step's."""
        self._move(device)
        sums = torch.cat([layer.sums_on(device) for layer in self._layers], dim=1).double()
        if self._synchronize and dist.is_available() and dist.is_initialized():
            numbers = self._numbers(device)
            packed = torch.cat((sums.flatten(), numbers.flatten()))
            dist.all_reduce(packed, group=self._group)
            sums, numbers = packed[: sums.numel()].view_as(sums), packed[sums.numel() :].view_as(numbers)
            counts = self._counted(*numbers)
        else:
            counts = self._counts_on(device)
        batch = sums / counts.rows
        # An overflow in half precision makes the scaler skip the step: it must not stay in the running moments.
        known = batch.isfinite().all(0)
        if counts.seen is not None:
            known &= counts.seen
        target = torch.cat((batch, self._ones))
        self._running.lerp_(torch.where(known, target, self._running), 1 - self.rho)
        return counts

    def _move(self, device: torch.device) -> None:
        if self._running.device != device:
            self._counts.clear()
            for name in ("_running", "_ones", "_layer_of", "_fan_in"):
                setattr(self, name, getattr(self, name).to(device))

    def _numbers(self, device: torch.device) -> Tensor:
        """(2, layers): rows, and N of the fan-in scale."""
        return torch.tensor(self._key(), dtype=torch.float64, device=device).T.contiguous()

    def _key(self) -> tuple[tuple[int, int], ...]:
        by_rows = self.fan_in_scale == "rows"
        return tuple((layer.rows, layer.rows if by_rows else layer.images) for layer in self._layers)

    def _counts_on(self, device: torch.device) -> _Counts:
        """Made once for each combination of numbers: they come from the host, and copies make a GPU wait."""
        key = self._key()
        if key not in self._counts:
            if len(self._counts) > 16:
                self._counts.clear()
            counts = self._counted(*self._numbers(device))
            if all(rows for rows, _ in key):
                counts = replace(counts, seen=None)
            if counts.shrink_columns is not None:
                shrink = [float(one) for one in counts.shrink]
                everywhere_one = all(one == 1 for one in shrink)
                counts = replace(
                    counts, shrink=shrink, shrink_columns=None if everywhere_one else counts.shrink_columns
                )
            self._counts[key] = counts
        return self._counts[key]

    def _counted(self, rows: Tensor, terms: Tensor) -> _Counts:
        by_column = rows[self._layer_of]
        seen, divisor = by_column > 0, by_column.clamp(min=1)
        if self.fan_in_scale == "none":
            return _Counts(divisor, seen, [1.0] * len(self._layers), None)
        shrink = (terms / self._fan_in).clamp(max=1)
        return _Counts(divisor, seen, shrink, shrink[self._layer_of])

    def _mean_and_inverse(self) -> tuple[Tensor, Tensor]:
        """The debiased means, and one over the floored variances (0 where that is 0), each (columns,)."""
        mean, variance = self._mean_and_variance()
        largest = variance.new_zeros(len(self._layers)).scatter_reduce(0, self._layer_of, variance, "amax")
        floored = torch.add(variance + self.eps, largest[self._layer_of], alpha=self.eps_relative)
        if self.eps > 0:
            return mean, floored.reciprocal()
        return mean, torch.where(floored > 0, floored.reciprocal(), 0.0)

    def _mean_and_variance(self) -> tuple[Tensor, Tensor]:
        mean, second = self._running[:2] / self._running[2].clamp(min=torch.finfo(torch.float64).tiny)
        return mean, torch.addcmul(second, mean, mean, value=-1).clamp_(min=0)

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Module path -> (mean, variance) of its inputs' columns as they stand, in float64.

        A layer that was never called has zeros. Columns: inputs of a linear layer; channels of a convolution, or
        (channel, tap) pairs.
        """
        parts = [part.split(self._sizes) for part in self._mean_and_variance()]
        return {layer.name: (parts[0][i], parts[1][i]) for i, layer in enumerate(self._layers)}

    def state_dict(self) -> dict[str, Any]:
        """The running moments, as tensors and plain containers; nothing of a step that is under way."""
        return {
            "layers": {layer.name: layer.columns for layer in self._layers},
            "running": self._running.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave; training goes on as if it had never stopped.

        Raises:
            ValueError: the state belongs to other layers or to other statistics.
        """
        own = {layer.name: layer.columns for layer in self._layers}
        if state["layers"] != own:
            wrong = [name for name in own | state["layers"] if own.get(name) != state["layers"].get(name)]
            raise ValueError(
                f"the state is of other layers or statistics: {', '.join(wrong)} differ; make the "
                "preconditioner with the model and the options that the state was saved with"
            )
        self._running = state["running"].to(self._running.device, torch.float64, copy=True)
        for layer in self._layers:
            layer.forget()

    def remove(self) -> None:
        """Take the hooks off the model; calling it again does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for layer in self._layers:
            layer.forget()

    def __enter__(self) -> BatchNormPreconditioner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self._layers)} layers, rho={self.rho}, eps={self.eps}, eps_relative="
            f"{self.eps_relative}, fan_in_scale={self.fan_in_scale!r}, statistics={self.statistics!r})"
        )
