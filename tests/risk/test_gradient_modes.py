"""What the gradient modes estimate, and how well.

X = U + theta V with (U, V) jointly normal: the population quantile at theta = 0 is z_alpha, its derivative by
theta is E[V | X = q] = rho z_alpha, and a mode's estimate of it is sum_k S_k V_k.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gbn.risk import GRADIENT_MODES, gaussian, statistic
from gbn.risk.ranks import window_weights

ALPHA, RHO, N, REPEATS = 0.75, 0.6, 1000, 1500


def estimates(name: str, mode: str, window: float, **parameters: float) -> Tensor:
    """REPEATS estimates of the derivative from N samples each; the samples are the same for every mode."""
    generator = torch.Generator().manual_seed(11)
    u = torch.randn(REPEATS, N, dtype=torch.float64, generator=generator)
    v = RHO * u + math.sqrt(1 - RHO**2) * torch.randn(u.shape, dtype=u.dtype, generator=generator)
    u.requires_grad_()
    value = statistic(name, quantile_gradient=mode, window=window, **parameters)(u, -1)
    if not value.requires_grad:
        return torch.zeros(REPEATS, dtype=u.dtype)
    (weights,) = torch.autograd.grad(value.sum(), u)
    return (weights * v).sum(-1)


EXPECTED = {
    "exact": RHO * gaussian.quantile(ALPHA),
    "window": RHO * gaussian.window_mean(ALPHA - 0.1, ALPHA + 0.1),
    "window_centred": RHO * gaussian.quantile(ALPHA),
    "smoothed": RHO * gaussian.window_mean(ALPHA - 0.1, ALPHA + 0.1),
    "mean": 0.0,  # E[V]: keeps the sum, knows nothing of the quantile
    "detached": 0.0,
}


@pytest.mark.parametrize("mode", GRADIENT_MODES)
def test_what_a_mode_estimates(mode: str) -> None:
    given = estimates("quantile", mode, 0.1, alpha=ALPHA)
    standard_error = given.std() / math.sqrt(REPEATS)
    # the ranks m +- window n and the quantile's own finite-sample bias are off by O(1 / n)
    assert (given.mean() - EXPECTED[mode]).abs() <= 4 * standard_error + 2.0 / N


@pytest.mark.parametrize("mode", ["window", "smoothed"])
def test_a_windows_bias_goes_with_its_width(mode: str) -> None:
    truth = RHO * gaussian.quantile(ALPHA)
    wide = estimates("quantile", mode, 0.2, alpha=ALPHA).mean() - truth
    narrow = estimates("quantile", mode, 0.02, alpha=ALPHA)
    assert wide.abs() > 0.02
    assert (narrow.mean() - truth).abs() < 4 * narrow.std() / math.sqrt(REPEATS) + 2.0 / N


@pytest.mark.parametrize("mode", ["window", "window_centred", "smoothed"])
def test_a_window_has_far_less_variance_than_the_exact_gradient(mode: str) -> None:
    exact = estimates("quantile", "exact", 0.1, alpha=ALPHA).var()
    # the part of V that X does not explain is averaged over the 2 * 0.1 * N samples of the window
    assert exact > 0.9 * (1 - RHO**2)
    assert estimates("quantile", mode, 0.1, alpha=ALPHA).var() < exact / 50


@pytest.mark.parametrize("mode", ["window", "window_centred", "smoothed"])
@pytest.mark.parametrize("name", ["maximum", "midrange"])
def test_extremes_gain_too(name: str, mode: str) -> None:
    exact = estimates(name, "exact", 0.1).var()
    assert estimates(name, mode, 0.1).var() < exact / 2


def test_modes_agree_where_the_window_holds_one_sample() -> None:
    x = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    exact, *others = (
        torch.autograd.grad(statistic("quantile", quantile_gradient=mode, window=0.04)(x, -1).sum(), x)[0]
        for mode in ("exact", "window", "window_centred", "smoothed")
    )
    for other in others:
        torch.testing.assert_close(other, exact)


def test_values_are_the_same_in_every_mode_but_smoothed() -> None:
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    values = {mode: statistic("quantile", quantile_gradient=mode)(x, -1) for mode in GRADIENT_MODES}
    for mode, value in values.items():
        if mode != "smoothed":
            torch.testing.assert_close(value, values["exact"], rtol=0, atol=0)
    ordered = x.sort(-1)[0]
    torch.testing.assert_close(values["smoothed"], ordered[:, 38 - 5 - 1 : 38 + 5].mean(-1))


@pytest.mark.parametrize(
    ("values", "lo", "hi", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], 2, 4, [0, 1 / 3, 1 / 3, 1 / 3, 0]),
        ([1.0, 1.0, 1.0, 4.0, 5.0], 2, 4, [2 / 9, 2 / 9, 2 / 9, 1 / 3, 0]),  # ranks 2, 3 shared by three
        ([1.0, 2.0, 3.0, 3.0, 3.0], 2, 3, [0, 1 / 2, 1 / 6, 1 / 6, 1 / 6]),
        ([1.0, 2.0, 2.0, 2.0, 5.0], 2, 3, [0, 1 / 3, 1 / 3, 1 / 3, 0]),  # one value at both edges
        ([1.0, 1.0, 2.0, 3.0, 3.0], 1, 5, [1 / 5] * 5),
        ([7.0, 7.0, 7.0, 7.0, 7.0], 2, 4, [1 / 5] * 5),
    ],
)
def test_window_weights_with_ties(values: list[float], lo: int, hi: int, expected: list[float]) -> None:
    x = torch.tensor([values], dtype=torch.float64)
    given = window_weights(x, x[:, lo - 1 : lo], x[:, hi - 1 : hi], lo, hi)
    torch.testing.assert_close(given, torch.tensor([expected], dtype=torch.float64))


def test_window_is_cut_off_at_the_extremes() -> None:
    x = torch.arange(1.0, 11.0, dtype=torch.float64).requires_grad_()
    maximum = statistic("maximum", quantile_gradient="smoothed", window=0.2)(x)
    assert maximum == 9.0  # 8, 9, 10
    high = statistic("quantile", alpha=0.95, quantile_gradient="smoothed", window=0.2)(x)
    assert high == 9.0
    low = statistic("quantile", alpha=0.1, quantile_gradient="smoothed", window=0.2)(x)
    assert low == 2.0  # 1, 2, 3
