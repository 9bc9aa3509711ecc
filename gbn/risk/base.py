"""The definitions of a statistic, a deviation and a quadrangle.

A functional works on *rows* (..., n): n samples along the last dimension, one value per row, shape (..., 1). It is
evaluated without autograd and provides its own subgradient, so that a normalization kernel can use both directly;
called on a tensor it is an ordinary differentiable function over any set of dimensions.

Functionals are frozen dataclasses of their parameters: hashable, comparable, safe as constants of a compiled
graph. Their parameters are validated at construction (``gbn.risk.parameters``).
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .order import OrderStatistics, Window
from .parameters import Kind, validate

Dim = int | tuple[int, ...] | list[int] | None
Saved = tuple[Tensor, ...]


def to_rows(x: Tensor, dim: Dim) -> tuple[Tensor, tuple[int, ...]]:
    """Return x as rows (kept dimensions..., n) in float32 or wider, and the reduced dimensions, sorted.

    Raises:
        TypeError: x is not a real floating-point tensor.
        ValueError: a dimension is given twice, or there are no samples.
        IndexError: x has no such dimension.
    """
    if not x.is_floating_point():
        raise TypeError(
            f"a tensor of {x.dtype} was given; statistics and deviations need a floating-point tensor"
        )
    given = range(x.dim()) if dim is None else (dim,) if isinstance(dim, int) else dim
    for d in given:
        if not -x.dim() <= d < x.dim():
            raise IndexError(
                f"dim {d} of a tensor of shape {tuple(x.shape)}; give {-x.dim()} to {x.dim() - 1}"
            )
    dims = tuple(sorted(d % x.dim() for d in given))
    if len(set(dims)) != len(dims):
        raise ValueError(
            f"dim={dim!r} names a dimension of a tensor of shape {tuple(x.shape)} twice; give each once"
        )
    kept = [d for d in range(x.dim()) if d not in dims]
    rows = x.permute(*kept, *dims) if dims else x.unsqueeze(-1)
    n = 1
    for d in dims:
        n *= x.shape[d]
    if n == 0:
        raise ValueError(
            f"no samples over dim={dim!r} of a tensor of shape {tuple(x.shape)}; give at least one"
        )
    rows = rows.reshape(*[x.shape[d] for d in kept], n)
    return (rows if rows.dtype in (torch.float32, torch.float64) else rows.float()), dims


def from_rows(value: Tensor, x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """Undo :func:`to_rows` for a value with one entry per row (..., 1), in x's dtype."""
    shape = [1 if d in dims else size for d, size in enumerate(x.shape)]
    shape = shape if keepdim else [size for d, size in enumerate(x.shape) if d not in dims]
    return value.reshape(shape).to(x.dtype)


class _Evaluation(torch.autograd.Function):
    """A functional's value; its backward pass is cotangent * subgradient (differentiable once)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, functional: Functional) -> Tensor:
        value, saved = functional.evaluate(rows, OrderStatistics(rows, functional))
        ctx.functional = functional
        ctx.save_for_backward(rows, *saved)
        return value.clone()  # must not be the same tensor as a saved one

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # torch's once_differentiable would let a constant cotangent through, with a second derivative of 0
            raise RuntimeError(
                f"the {ctx.functional.kind} {ctx.functional.name!r} is differentiable once; create_graph=True "
                "(a gradient penalty, a Hessian) is not supported through it"
            )
        rows, *saved = ctx.saved_tensors
        return cotangents[0] * ctx.functional.gradient(rows, tuple(saved)), None


@dataclass(frozen=True)
class Functional(ABC):
    """One number computed from a sample, with its subgradient: a :class:`Statistic` or a :class:`Deviation`."""

    kind: ClassVar[Kind]
    name: ClassVar[str]
    text: ClassVar[
        str
    ]  # of each instance: name and parameters, as JSON (read by gbn.risk.quadrangles.from_text)

    def __post_init__(self) -> None:
        for key, value in validate(self.kind, self.name, self.parameters).items():
            object.__setattr__(self, key, value)
        # an attribute, not a property: a tracer can read it without running the code that computes it
        object.__setattr__(self, "text", json.dumps({"name": self.name, **self.parameters}))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def homogeneous(self) -> bool:
        """True if f(k x) = k f(x) for every k > 0."""
        return True

    def needs(self, n: int) -> tuple[tuple[int, ...], tuple[Window, ...]]:
        """Return the ranks and rank windows that ``evaluate`` requests from its order statistics."""
        return (), ()

    @abstractmethod
    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """Return the value (..., 1) of rows (..., n), and what ``gradient`` needs, each (..., 1)."""

    @abstractmethod
    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """Return the subgradient: d value / d rows, shape (..., n); may be an expanded (read-only) tensor."""

    @abstractmethod
    def gaussian(self, n: int | None = None) -> float:
        """Return the value for the standard normal distribution: k of a statistic, c of a deviation.

        Args:
            n: samples per row; exact extremes depend on it (their expected value), nothing else does.

        Raises:
            ValueError: an exact extreme without n.
        """

    def __call__(self, x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
        """Return the value over ``dim`` (an int, several, or None for all) of x: differentiable, x's dtype.

        Half precision is computed in float32. A NaN gives NaN. Raises as :func:`to_rows` does.
        """
        rows, dims = to_rows(x, dim)
        return from_rows(_Evaluation.apply(rows, self), x, dims, keepdim)


@dataclass(frozen=True)
class Statistic(Functional):
    """A location S with S(x + c) = S(x) + c."""

    kind: ClassVar[Kind] = "statistic"


@dataclass(frozen=True)
class Deviation(Functional):
    """A deviation measure D: D(x + c) = D(x), D >= 0, zero on constants only, and convex."""

    kind: ClassVar[Kind] = "deviation"

    @property
    @abstractmethod
    def about(self) -> Statistic:
        """The statistic that this deviation is naturally paired with."""

    def error(self, rows: Tensor) -> Tensor | None:
        """Return the error E (..., 1) that makes (``about``, this) a pair, or None if none is known.

        Deviations about the mean need not define one: |mean| + D, the elementary error, serves them all.
        """
        return None

    @property
    def has_error(self) -> bool:
        """True if ``error`` returns one."""
        return type(self).error is not Deviation.error


Error = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Quadrangle:
    """A statistic, a deviation and, where one is known, the error that makes them a pair.

    The error E determines the pair: D(X) = min_c E(X - c), S(X) = argmin_c E(X - c) (Rockafellar, Uryasev
    2013, "The fundamental risk quadrangle in risk management, optimization and statistical estimation").

    Attributes:
        name: the registered name, or "statistic+deviation" for a free composition.
        S: the statistic.
        D: the deviation.
        parameters: complete and normalized.
    """

    name: str
    S: Statistic
    D: Deviation
    parameters: Mapping[str, Any] = dataclasses.field(hash=False, default_factory=dict)
    error_of_rows: Error | None = dataclasses.field(repr=False, compare=False, default=None)

    def statistic(self, x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
        """Return S over ``dim`` of x, differentiable."""
        return self.S(x, dim, keepdim)

    def deviation(self, x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
        """Return D over ``dim`` of x, differentiable."""
        return self.D(x, dim, keepdim)

    @property
    def has_error(self) -> bool:
        """True if ``error`` is defined."""
        return self.error_of_rows is not None

    def error(self, x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
        """Return E over ``dim`` of x, differentiable.

        Raises:
            ValueError: no error is known for this pair (see ``has_error``).
        """
        if self.error_of_rows is None:
            raise ValueError(f"no error is known for the pair {self.name!r}; check has_error first")
        rows, dims = to_rows(x, dim)
        return from_rows(self.error_of_rows(rows), x, dims, keepdim)

    @property
    def homogeneous(self) -> bool:
        """True if both S and D are positively homogeneous, so that normalizing ignores the input's scale."""
        return self.S.homogeneous and self.D.homogeneous

    def gaussian(self, n: int | None = None) -> tuple[float, float]:
        """Return (k, c) for the standard normal distribution: S = mu + k sigma and D = c sigma on a Gaussian.

        This holds for homogeneous pairs only. ``n`` (samples per row) is needed by exact extremes.
        """
        return self.S.gaussian(n), self.D.gaussian(n)
