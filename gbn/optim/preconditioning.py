"""Batch normalization preconditioning (BNP): gradients rescaled by the statistics of a layer's inputs.

Lange, Helfrich, Ye, Batch Normalization Preconditioning for Neural Network Training, JMLR 23(72), 2022,
arXiv 2108.01110. No layer is added to the network. For a layer ``a = W h + b`` whose inputs have mean mu[j] and
variance s2[j] in column j, the gradients are rewritten before the optimizer's step::

    G_W'[i,j] = (G_W[i,j] - mu[j] G_b[i]) / s2[j]
    G_b'[i]   = G_b[i] - sum_j mu[j] G_W'[i,j]

This is a gradient step on V and c of ``a = V (h - mu) / s + c``, batch normalization of the inputs with statistics
held fixed, expressed in W = V / s and b = c - W mu; it is invariant under affine changes of the inputs.

The formulas are derived, and tested against that parametrization. The safeguards are recalled from the paper, not
read in it, and each is an option: running moments (``rho``), the floor of the variance (``eps_relative``, ``eps``)
and the division of both gradients by max(m / N, 1) (``fan_in_scale``). Our choices: the running moments are averages
of raw first and second moments, since variances within a batch are always 0 at batch size 1 and half the true value
at batch size 2; they are debiased at the start, as in Adam; N of a convolution counts positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gbn.optim.input_moments import STATISTICS
from gbn.optim.preconditioned_layers import MISSING_BIAS, PreconditionedLayer, compile_layers, find_layers
from gbn.optim.running_moments import Factors, RunningMoments
from gbn.suggest import did_you_mean

__all__ = ["FAN_IN_SCALES", "BatchNormPreconditioner"]

FAN_IN_SCALES = ("rows", "images", "none")


class BatchNormPreconditioner:
    """Rewrites the gradients of a model's linear layers and convolutions using the statistics of their inputs.

    Hooks collect statistics in training while gradients are recorded; evaluation is unaffected, and nothing is added
    to the model. Call :meth:`precondition` between ``backward()`` (and ``scaler.unscale_``) and the optimizer's step,
    and before gradients are clipped::

        preconditioner = BatchNormPreconditioner(model)
        for images, labels in batches:
            optimizer.zero_grad()
            loss(model(images), labels).backward()
            preconditioner.precondition()
            optimizer.step()
        preconditioner.remove()

    It works with any optimizer (Adam undoes part of it), at any batch size, with gradient accumulation (all forward
    passes since the last call count), automatic mixed precision (moments are float64), groups, ``channels_last``,
    tied weights and layers that are called several times, and with a compiled model if the preconditioner is created
    before its first call. Under ``torch.distributed`` sums are added up over the processes, so every process must
    call the same layers; sharded parameters are not supported. Layers that were not called as modules since the last
    step, transposed convolutions, frozen layers and layers without a gradient keep their gradients. Nothing here
    synchronizes with a GPU. A recomputed forward pass (activation checkpointing) is counted twice.

    On the CPU in float32, compiled code does the work; it is selected when the preconditioner is created
    (:func:`gbn.kernels.selected`). Its results equal those of torch's operations up to rounding.

    Args:
        model: with ``nn.Linear`` or ``nn.Conv1d/2d/3d`` layers that have biases.
        rho: weight of the past in the running moments, in [0, 1); 0 uses only the inputs of the current step.
        eps, eps_relative: the variance used is ``s2 + eps_relative * max(s2) + eps``; the maximum is over the layer.
        fan_in_scale: N of the divisor max(m / N, 1), where m is the layer's number of inputs (including the taps of a
            kernel): ``rows``, the terms of each average, which for a convolution are images x positions; ``images``;
            or ``none`` for no division.
        statistics: for a convolution, ``channel`` for one mean and variance per channel, ``patch`` for exact ones
            per tap of the kernel (see :mod:`gbn.optim.input_moments`).
        missing_bias: how to treat a trainable layer without a trainable bias: as an ``error``, or ``skip`` it.
        exclude: module paths (fnmatch patterns) that are left alone.
        synchronize: whether to add up over the processes of ``torch.distributed``, if it is initialized.
        process_group: the group of these processes; None for the default group.

    Raises:
        ValueError: an option that is not allowed, a pattern without a match, nothing to precondition, a layer that
            cannot be preconditioned (no bias; a weight that is computed or shared with another kind of layer), or a
            model that already has a preconditioner.
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
        self._sizes = [layer.columns for layer in self._layers]
        fan_in = [layer.fan_in for layer in self._layers]
        self._moments = RunningMoments(self._sizes, fan_in, rho, eps, eps_relative)
        self._compiled = compile_layers(self._layers, rho, eps, eps_relative)
        self._handles = [handle for layer in self._layers for handle in layer.attach()]

    @torch.no_grad()
    def precondition(self) -> None:
        """Update the running moments with the sums collected since the last call, and rewrite ``.grad`` in place."""
        layers = self._layers
        called = [layer for layer in layers if layer.rows]
        if not called:
            return
        gradients = [layer.gradients() if layer.rows else None for layer in layers]
        if self._compiled is not None and self._runs_compiled(called):
            terms = [self._terms(layer) for layer in layers]
            taken = [(layer.sums, layer.rows, n) for layer, n in zip(layers, terms, strict=True)]
            self._compiled.absorb(self._moments.running, taken)
            left = self._compiled.rewrite(gradients)
            if left:
                shrink = [min(1.0, n / layer.fan_in) for layer, n in zip(layers, terms, strict=True)]
                self._rewrite(left, gradients, Factors(self._compiled.factors, shrink))
        else:
            left = [place for place, pair in enumerate(gradients) if pair is not None]
            self._rewrite(left, gradients, self._absorb(called[0].weight.device))
        for layer in called:
            layer.forget()

    def _runs_compiled(self, called: Sequence[PreconditionedLayer]) -> bool:
        """Return whether all moments and sums are on the CPU of this process."""
        return (
            not self._distributed()
            and self._moments.running.is_cpu
            and all(layer.sums is not None and layer.sums.is_cpu for layer in called)
        )

    def _distributed(self) -> bool:
        return self._synchronize and dist.is_available() and dist.is_initialized()

    def _terms(self, layer: PreconditionedLayer) -> int:
        """Return N of the fan-in scale."""
        if self.fan_in_scale == "rows":
            return layer.rows
        return layer.images if self.fan_in_scale == "images" else layer.fan_in

    def _absorb(self, device: torch.device) -> Factors:
        self._moments.to(device)
        sums = torch.cat([layer.sums_on(device) for layer in self._layers], dim=1)
        counted = tuple((layer.rows, self._terms(layer)) for layer in self._layers)
        add_up: Callable[[Tensor], None] | None = None
        if self._distributed():
            add_up = partial(dist.all_reduce, group=self._group)
        return self._moments.absorb(sums, counted, add_up)

    def _rewrite(
        self, places: Sequence[int], gradients: Sequence[tuple[Tensor, Tensor] | None], factors: Factors
    ) -> None:
        parts: dict[torch.dtype, tuple[Tensor, ...]] = {}
        for place in places:
            pair = gradients[place]
            assert pair is not None
            # In the precision of the gradients, at least float32.
            dtype = torch.float64 if pair[0].dtype == torch.float64 else torch.float32
            if dtype not in parts:
                parts[dtype] = factors.columns.to(dtype).split(self._sizes, dim=1)
            self._layers[place].rewrite(pair, parts[dtype][place], factors.shrink[place])

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return module path -> current (mean, variance) of its inputs' columns, in float64.

        A layer that was never called has zeros. Columns are the inputs of a linear layer, and the channels or
        (channel, tap) pairs of a convolution.
        """
        parts = [part.split(self._sizes) for part in self._moments.mean_and_variance()]
        return {layer.name: (parts[0][i], parts[1][i]) for i, layer in enumerate(self._layers)}

    def state_dict(self) -> dict[str, Any]:
        """Return the running moments as tensors and plain containers; a step in progress is not included."""
        return {
            "layers": {layer.name: layer.columns for layer in self._layers},
            "running": self._moments.running.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`; training continues as if it had never stopped.

        Raises:
            ValueError: the state belongs to other layers or to other statistics.
        """
        own = {layer.name: layer.columns for layer in self._layers}
        if state["layers"] != own:
            wrong = [name for name in own | state["layers"] if own.get(name) != state["layers"].get(name)]
            raise ValueError(
                f"the state belongs to other layers or statistics: {', '.join(wrong)} differ; create the "
                "preconditioner with the model and the options that the state was saved with"
            )
        self._moments.running.copy_(state["running"])
        for layer in self._layers:
            layer.forget()

    def remove(self) -> None:
        """Remove the hooks from the model; calling it again does nothing."""
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
