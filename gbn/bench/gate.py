"""The correctness gate: a kernel is only timed if it is right on the very tensor of the timing.

Forward, S, D and all gradients under a random cotangent are compared with the float64 reference on the same (rounded)
input; with instance enhancement, so are the gradients of its gate. Bounds hold for each element, and for the L2 norm
of y and dx. They come from two sources:

* one rounding of y and dx to their dtype: half a unit in the last place of each element; in the L2 norm 1.2
  times the error of rounding the exact result (a second rounding would make it 1.4);
* float32 sums over the n samples of a channel: in blocks or pairwise, as every kernel here sums, the error
  grows like log2(n) roundings of the magnitude of the terms. A few sums are chained, hence 4 log2(n) eps32 for an
  element, and log2(n) eps32 in the L2 norm, where errors partly cancel. The magnitude is that of the formula's terms:
  dx = w/D (g - S_k sum g - D_k sum g x_hat), with S_k and D_k from the functionals. A gate's errors are relative to
  1 + abs(gate_weight) times its row's magnitude, and the error that reaches dx through a row's mean is relative to
  that row's sum of g x_hat.

Samples where rounding may decide either way are excluded rather than given wider bounds: the cotangent is 0 where
the float64 pre-activation is within its bound of 0 (ReLU's kink), and samples within rounding of S, but not S itself,
are left out of dx (a few deviations have their kink at S). Samples within rounding of Huber's threshold may or may
not count among those that move the location; its derivative may be off by that much and no more. An S that is a
sample, as order statistics are, must match exactly.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gbn import kernels
from gbn.nn.pairs import Pair
from gbn.risk import Functional
from gbn.risk.huber import Huber

from .cases import DTYPES, Case, input_of

#: Share of elements that may be left out; more would mean a wrong bound.
LEFT_OUT = 0.01
EPS = 1e-5  # BatchNorm's
Results = tuple[Tensor, ...]
NAMES = ("y", "S", "D", "dx", "dweight", "dbias", "dgate_weight", "dgate_bias")
Leaves = dict[str, Tensor]
OVER, SHAPE = (0, 2, 3), (1, -1, 1, 1)


@dataclass(frozen=True)
class Bound:
    """The allowed error of a result: in each element, and in the L2 norm."""

    element: Tensor
    norm: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The largest error in units of its bound, and where it occurred."""

    worst: float
    where: str

    @property
    def passed(self) -> bool:
        """True if every error is within its bound."""
        return self.worst <= 1.0

    def __str__(self) -> str:
        return f"{self.where}: error {self.worst:.3g} times its bound"


def check(
    case: Case, pair: Pair, choice: str, device: torch.device, seed: int = 0, *, gated: bool = False
) -> Verdict:
    """Compare ``kernels.normalize(..., "relu")`` under ``choice`` with the float64 reference."""
    x, g = input_of(case, device, seed)
    make = torch.Generator().manual_seed(seed + 1)
    channels = case.shape[1]
    given = {
        "x": x,
        "weight": torch.rand(channels, generator=make) + 0.5,
        "bias": torch.randn(channels, generator=make) * 0.3 + pair.initial_bias,
    }
    if gated:
        given["gate_weight"], given["gate_bias"] = torch.randn(2, channels, generator=make)
    given = {name: value.to(device) for name, value in given.items()}
    exact, g, bounds = _exact(case, pair, given, g)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in given.items()}
    with kernels.using(choice):
        y, s, d = _normalized(leaves, pair, "relu")
        gradients = torch.autograd.grad(y, list(leaves.values()), g)
    return _judge((y.detach(), s, d, *gradients), exact, bounds)


def _normalized(leaves: Leaves, pair: Pair, act: str | None) -> tuple[Tensor, Tensor, Tensor]:
    gate = ((leaves["gate_weight"], leaves["gate_bias"]),) if "gate_weight" in leaves else ()
    return kernels.normalize(
        leaves["x"], leaves["weight"], leaves["bias"], pair.statistic, pair.deviation, EPS, act, *gate
    )


def _exact(case: Case, pair: Pair, given: Leaves, g: Tensor) -> tuple[Results, Tensor, list[Bound]]:
    """Return float64 results, the cotangent without ReLU's kink, and the bounds of each result's error."""
    wide = {name: value.detach().double().requires_grad_() for name, value in given.items()}
    with kernels.using("reference"):
        before, s, d = _normalized(wide, pair, None)
    sums = math.log2(max(case.samples, 2)) * torch.finfo(torch.float32).eps
    x64, pre = wide["x"].detach(), before.detach()
    w, b = wide["weight"].detach().view(SHAPE), wide["bias"].detach().view(SHAPE)
    divisor = d.view(SHAPE) + EPS
    delta, unsure = _gate(wide)
    rms = x64.square().mean(OVER, keepdim=True).sqrt()
    # Errors of S and D are relative to the samples' magnitude, so those of x_hat relative to this.
    magnitude = (rms / divisor).clamp_min(1.0)
    near = pre.abs() <= 8 * sums * (w * delta * magnitude + b.abs()) * unsure
    g = g.masked_fill(near, 0.0)
    passed = g.double() * (pre > 0)
    gradients = torch.autograd.grad(before, list(wide.values()), passed)

    x_hat = (pre - b) / (w * delta)
    y, dx = pre.relu(), gradients[0]
    y_scale = (w * delta * magnitude * (1 + x_hat.abs()) + b.abs()) * unsure
    distance = (x64 - s.view(SHAPE)).abs()
    beside = (distance > 0) & (distance <= 8 * sums * rms)
    for what in (near, beside):
        if (share := what.double().mean().item()) > LEFT_OUT:
            raise AssertionError(
                f"the gate of {case} would leave out {share:.1%} of the samples: its bound is wrong"
            )
    s_k, d_k = (
        _slopes(functional, wide["x"], magnitude / case.samples, sums, rms)
        for functional in (pair.statistic, pair.deviation)
    )
    weighed = passed * delta * unsure
    sum_g, sum_gx = _sums(weighed, x_hat, magnitude, OVER)
    dx_scale = w / divisor * magnitude * (weighed.abs() + s_k * sum_g + d_k * sum_gx)
    of_gate = []
    if "gate_weight" in wide:
        pulls = w * delta * (1 - delta) * unsure * _sums(passed, x_hat, magnitude, (2, 3))[1]
        dx_scale = dx_scale + wide["gate_weight"].detach().abs().view(SHAPE) * pulls / (
            case.samples / case.shape[0]
        )
        row_rms = x64.square().mean((2, 3), keepdim=True).sqrt()
        of_gate = [Bound(4 * sums * (pulls * size).sum(OVER)) for size in (row_rms, 1.0)]
    dx_scale.masked_fill_(beside, torch.inf)
    is_sample = (distance == 0).any(3).any(2).any(0) & (s.float().double() == s)
    bounds = [
        Bound(_rounding(y, case) + 4 * sums * y_scale, _norm_bound(y, y_scale, sums, case)),
        Bound(torch.where(is_sample, 0.0, 4 * sums * rms.flatten())),
        Bound(4 * sums * rms.flatten()),
        Bound(_rounding(dx, case) + 4 * sums * dx_scale, _norm_bound(dx, dx_scale, sums, case)),
        Bound(4 * sums * sum_gx.flatten()),
        Bound(4 * sums * _sums(passed, x_hat, magnitude, OVER)[0].flatten()),
        *of_gate,
    ]
    return (y, s, d, *gradients), g, bounds


def _gate(wide: Leaves) -> tuple[Tensor, Tensor]:
    """Return the gate of each row, and the scale of its relative error; 1 without a gate."""
    x = wide["x"].detach()
    if "gate_weight" not in wide:
        return x.new_ones(()), x.new_ones(())
    slope, offset = (wide[name].detach().view(SHAPE) for name in ("gate_weight", "gate_bias"))
    delta = torch.sigmoid(slope * x.mean((2, 3), keepdim=True) + offset)
    return delta, 1 + slope.abs() * x.square().mean((2, 3), keepdim=True).sqrt()


def _sums(g: Tensor, x_hat: Tensor, magnitude: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the scales of the errors of the sums of g and g x_hat.

    They combine the sum of independent terms, the result, and x_hat's own error.
    """

    def size(terms: Tensor) -> Tensor:
        return terms.square().sum(over, keepdim=True).sqrt() + terms.sum(over, keepdim=True).abs()

    sum_g = size(g)
    return sum_g, size(g * x_hat) + magnitude * sum_g


def _slopes(functional: Functional, x: Tensor, even: Tensor, sums: float, rms: Tensor) -> Tensor:
    """Return the scale of the errors of S_k or D_k: its size, and that of its summands.

    An exact order statistic's derivative is 0 or a count. Others are lines in x, whose parts may cancel at one
    sample and not at another; ``even`` is the share of each sample in a mean.
    """
    slopes = torch.autograd.grad(functional(x, OVER).sum(), x)[0].abs_()
    exact = functional.parameters.get("quantile_gradient") == "exact"
    scale = slopes + even + (0.0 if exact else slopes.amax(OVER, keepdim=True))
    if isinstance(functional, Huber):
        x = x.detach()
        reach = functional.b * (x.std(OVER, correction=0, keepdim=True) if functional.scaled else 1.0)
        away = (x - functional(x, OVER, True)).abs()
        unsure = ((away - reach).abs() <= 8 * sums * rms).double()
        share = unsure.sum(OVER, keepdim=True) / (away < reach).sum(OVER, keepdim=True)
        scale = scale + (share + unsure) * slopes.amax(OVER, keepdim=True) / (4 * sums)
    return scale


def _rounding(exact: Tensor, case: Case) -> Tensor:
    """Return half a unit in the last place of each element, at least the dtype's smallest numbers."""
    narrow = torch.finfo(DTYPES[case.dtype])
    return narrow.eps / 2 * exact.abs() + narrow.tiny * narrow.eps


def _norm_bound(exact: Tensor, scale: Tensor, sums: float, case: Case) -> float:
    """Return the bound on the L2 norm of the error over the elements whose scale is finite."""
    counted = scale.isfinite()
    rounded = (exact.to(DTYPES[case.dtype]).double() - exact) * counted
    return (1.2 * rounded.norm() + sums * scale.where(counted, 0.0).norm()).item()


def _judge(ours: Results, exact: Results, bounds: list[Bound]) -> Verdict:
    """Return the worst of all comparisons; a non-finite result is infinitely wrong."""
    worst, where = 0.0, "nothing"
    for name, got, want, bound in zip(NAMES[: len(ours)], ours, exact, bounds, strict=True):
        error = (got.double() - want).abs()
        found = {name: torch.where(error == 0, 0.0, error / bound.element).max().item()}
        if bound.norm is not None:
            total = error.where(bound.element.isfinite() | error.isnan(), 0.0).norm().item()
            found[f"{name} (L2)"] = total / bound.norm if total else 0.0
        for key, units in found.items():
            units = units if math.isfinite(units) else math.inf
            if units > worst:
                worst, where = units, key
    return Verdict(worst, where)
