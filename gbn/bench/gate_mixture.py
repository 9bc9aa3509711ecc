"""The correctness gate of mixture normalization, on the very tensor of the timing.

Forward, the moments and all gradients under a random cotangent are compared with the float64 reference, given the
same mixture. The error of float32 depends on how far components overlap, so the bound is measured: the L2 norm of our
error may be at most eight times that of the eager kernels in float32, which sum in another order (and a few
roundings, since one of two float32 computations may be right by chance), plus one rounding to the tensor's dtype. The
cotangent is 0 where the two disagree on whether the ReLU is active, which rounding may decide; any other cause shows
in y.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gbn import kernels
from gbn.kernels.mixture import Mixture, normalize_by_batch
from gbn.nn import MixtureNorm2d

from .cases import DTYPES, Case, input_of, mixture_options
from .gate import EPS, LEFT_OUT, Verdict

NAMES = ("y", "l", "m", "q", "concentration", "dx", "dweight", "dbias")
#: How many times farther from float64 than eager float32 a result may be.
TIMES = 8.0


def check_mixture(case: Case, name: str, choice: str, device: torch.device, seed: int = 0) -> Verdict:
    """Compare ``normalize_by_batch(..., act="relu")`` under ``choice`` with the float64 reference."""
    x, g = input_of(case, device, seed)
    make = torch.Generator().manual_seed(seed + 1)
    weight = (torch.rand(case.shape[1], generator=make) + 0.5).to(device)
    bias = (torch.randn(case.shape[1], generator=make) * 0.3).to(device)
    layer = MixtureNorm2d(case.shape[1], **mixture_options(name), device=device)
    zero = torch.zeros((), dtype=torch.int64, device=device)
    with kernels.using("reference"):
        mixture, center = layer.fit(x.float(), EPS, zero, zero)
    given = x, mixture, weight, bias, center
    with kernels.using(choice):
        let_through = _results(given, g, DTYPES[case.dtype], "relu")[0] > 0
    with kernels.using("reference"):
        passed = [_results(given, g, kind, "relu")[0] > 0 for kind in (torch.float64, torch.float32)]
        unsure = (passed[0] != passed[1]) | (passed[0] != let_through)
        if (share := unsure.double().mean().item()) > LEFT_OUT:
            raise AssertionError(f"the gate of {case} would leave out {share:.1%} of the samples")
        g = g.masked_fill(unsure, 0.0)
        exact = _results(given, g, torch.float64, "relu")
        eager = _results(given, g, torch.float32, "relu")
    with kernels.using(choice):
        ours = _results(given, g, DTYPES[case.dtype], "relu")
    return _judge(ours, eager, exact, DTYPES[case.dtype])


def _results(
    given: tuple[Tensor, Mixture, Tensor, Tensor, Tensor], g: Tensor, dtype: torch.dtype, act: str | None
) -> tuple[Tensor, ...]:
    x, mixture, weight, bias, center = given
    wide = torch.promote_types(dtype, torch.float32)
    leaves = [x.to(dtype), weight.to(wide), bias.to(wide)]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    constants = Mixture(*(part.to(wide) for part in mixture))
    y, moments = normalize_by_batch(
        leaves[0], constants, leaves[1], leaves[2], EPS, center=center.to(wide), act=act
    )
    gradients = torch.autograd.grad(y, leaves, g.to(y.dtype))
    return tuple(result.detach().double() for result in (y, *moments, *gradients))


def _judge(
    ours: tuple[Tensor, ...], eager: tuple[Tensor, ...], exact: tuple[Tensor, ...], dtype: torch.dtype
) -> Verdict:
    """Return the worst comparison in units of its bound; a non-finite result is infinitely wrong."""
    worst, where = 0.0, "nothing"
    for name, got, other, want in zip(NAMES, ours, eager, exact, strict=True):
        rounding = 1.2 * (want.to(dtype).double() - want).norm() if name in ("y", "dx") else 0.0
        few = TIMES * torch.finfo(torch.float32).eps * want.norm()  # for when eager happens to be exact
        bound = TIMES * (other - want).norm() + few + rounding
        error = (got - want).norm()
        units = (error / bound).item() if error > 0 else (0.0 if error == 0 else torch.inf)
        if units > worst:
            worst, where = units, f"{name} (L2)"
    return Verdict(worst, where)
