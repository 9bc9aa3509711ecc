"""From torch tensors to the compiled parts of preconditioning (:mod:`.precondition`)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gbn.kernels.checks import in_memory

from . import objects
from .launch import run_entry
from .precondition import Layer, Step, Sums

__all__ = ["ENTRIES", "CompiledStep", "CompiledSums", "Shape"]

#: Values that are worth a thread, and values that a thread rewrites per claim.
_EACH, _BLOCK = 1 << 15, 1 << 13

#: The entry points of a step.
ENTRIES = tuple(
    f"gbn.kernels.numba.precondition:{name}" for name in ("column_sums", "plane_sums", "absorb", "rewrite")
)


def _entry(name: str) -> objects.Entry:
    return objects.entry(f"gbn.kernels.numba.precondition:{name}")


def _run(entry: Any, table: int, values: int) -> None:
    """Call an entry point from as many threads as ``values`` are worth, and wait."""
    run_entry(entry, table, max(1, min(torch.get_num_threads(), values // _EACH)))


class CompiledSums:
    """Sums of the inputs of one layer and of their squares, in float64, over any number of calls.

    Args:
        columns: inputs of a linear layer, or channels of a convolution.
        dimensions: 2 for matrices (rows, columns); else the dimensions of a convolution's batch (N, C, *spatial).

    Attributes:
        sums: (2, columns) in float64, as :meth:`add` left them.
    """

    def __init__(self, columns: int, dimensions: int) -> None:
        self._columns, self._dimensions = columns, dimensions
        stride = columns + -columns % 32
        buffer = torch.zeros(4, stride, dtype=torch.float64, device="cpu")
        self.sums = buffer[:2, :columns]
        sums, fresh = buffer.data_ptr(), buffer[2:].data_ptr()
        self._table = Sums(columns=columns, stride=stride, sums=sums, fresh=fresh)
        self._address = ctypes.addressof(self._table)
        self._entry = _entry("column_sums" if dimensions == 2 else "plane_sums")

    def add(self, x: Tensor, more: bool) -> int:
        """Sum x; with ``more``, add to the present sums.

        Returns:
            The number of terms per sum; 0, and nothing is done, if the kernels do not take x: they take contiguous
            float32 on the CPU.
        """
        if not _taken(x):
            return 0
        shape, columns = x.shape, self._columns
        if len(shape) != self._dimensions or shape[1] != columns:
            return 0
        values = x.numel()
        rows, images = values // columns, shape[0]
        table = self._table
        table.next, table.images, table.length = 0, images, rows // (images or 1)
        table.more, table.x = more, x.data_ptr()
        _run(self._entry, self._address, values)
        return rows


@dataclass(frozen=True)
class Shape:
    """The shape of a layer: its gradient is ``groups`` blocks of rows, together (rows, width).

    Attributes:
        columns: factors of the layer; ``columns * taps == groups * width``.
        taps: adjacent columns of the gradient that share a factor.
        fan_in: m of the divisor max(m / N, 1).
    """

    columns: int
    taps: int
    groups: int
    rows: int
    width: int
    fan_in: int


class CompiledStep:
    """A step of all layers.

    Args:
        shapes: of the layers, whose columns are concatenated.
        weight: weight of this step's inputs in the running moments.
        eps, eps_relative: floor of the variance.

    Attributes:
        factors: float64 (2, columns of all layers), for layers that were called: means, and inverse variances
            divided by max(m / N, 1).
    """

    def __init__(self, shapes: Sequence[Shape], weight: float, eps: float, eps_relative: float) -> None:
        total, spread = sum(one.columns for one in shapes), sum(one.columns * one.taps for one in shapes)
        self.factors = torch.zeros(2, total, dtype=torch.float64, device="cpu")
        self._narrow = torch.zeros(2, spread, dtype=torch.float32, device="cpu")
        self._layers = (Layer * len(shapes))()
        self._table = Step(
            number=len(shapes),
            layers=ctypes.addressof(self._layers),
            columns=total,
            spread=spread,
            factors=self.factors.data_ptr(),
            narrow=self._narrow.data_ptr(),
            weight=weight,
            eps=eps,
            eps_relative=eps_relative,
        )
        self._address = ctypes.addressof(self._table)
        self._sizes = [(one.rows * one.width, one.rows) for one in shapes]
        first = place = 0
        for layer, one in zip(self._layers, shapes, strict=True):
            layer.fan_in, layer.columns, layer.taps, layer.groups = (
                one.fan_in,
                one.columns,
                one.taps,
                one.groups,
            )
            layer.out, layer.width, layer.block = one.rows, one.width, max(1, _BLOCK // max(1, one.width))
            layer.first, layer.place = first, place
            first, place = first + one.columns, place + one.columns * one.taps
        self._absorb, self._rewrite = _entry("absorb"), _entry("rewrite")

    def absorb(self, running: Tensor, taken: Sequence[tuple[Tensor | None, int, int]]) -> None:
        """Update the running moments and compute the factors.

        Args:
            running: (3, columns of all layers), contiguous float64 on the CPU, changed in place.
            taken: per layer its sums, (2, columns) on the CPU with adjacent columns, its terms per sum, and N of
                max(m / N, 1); None, 0, 0 if it was not called.

        Raises:
            RuntimeError: sums or running moments have another shape, or are not in this process's memory.
        """
        kept = []
        shape = (3, self.factors.shape[1])
        if running.shape != shape or not (running.dtype is torch.float64 and _readable(running)):
            raise RuntimeError(
                f"running moments should be {shape}, contiguous float64 on the CPU, got {tuple(running.shape)}, "
                f"{running.dtype} on {running.device}"
            )
        for (sums, rows, terms), layer in zip(taken, self._layers, strict=True):
            if sums is None:
                layer.sums = 0
            else:
                if sums.dtype is not torch.float64 or sums.stride(1) != 1:
                    sums = sums.double().contiguous()
                    kept.append(sums)
                if sums.shape != (2, layer.columns) or not (sums.is_cpu and in_memory(sums)):
                    raise RuntimeError(
                        f"sums of a layer's inputs should be (2, {layer.columns}) on the CPU, got "
                        f"{tuple(sums.shape)} on {sums.device}"
                    )
                layer.sums, layer.stride, layer.rows, layer.terms = (
                    sums.data_ptr(),
                    sums.stride(0),
                    rows,
                    terms,
                )
        self._table.running = running.data_ptr()
        self._absorb.ctypes(self._address)

    def rewrite(self, gradients: Sequence[tuple[Tensor, Tensor] | None]) -> list[int]:
        """Rewrite the gradients of weights and biases in place by the factors; None is skipped.

        Returns:
            The layers that are left to do: kernels take contiguous float32 on the CPU, outside a graph, of the sizes
            that the layers had.
        """
        left, values = [], 0
        for index, (pair, layer) in enumerate(zip(gradients, self._layers, strict=True)):
            layer.weight = 0
            if pair is not None:
                served = all(
                    _taken(one) and not one.requires_grad and one.numel() == size
                    for one, size in zip(pair, self._sizes[index], strict=True)
                )
                if served:
                    layer.weight, layer.bias = pair[0].data_ptr(), pair[1].data_ptr()
                    values += self._sizes[index][0]
                else:
                    left.append(index)
        if values:
            self._table.next = 0
            _run(self._rewrite, self._address, values)
        return left


def _taken(x: Tensor) -> bool:
    """Return whether kernels can read x: everything else goes through torch operations."""
    return x.dtype is torch.float32 and type(x) is Tensor and _readable(x)


def _readable(x: Tensor) -> bool:
    return x.is_cpu and x.is_contiguous() and in_memory(x)
