"""Values on the normal, uniform and exponential laws, and the Gaussian constants k and c."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gbn.risk import Quadrangle, deviation, gaussian, quadrangle, statistic

E = math.e
N = 100_000


def law(quantile_function: str) -> Tensor:
    """N samples that stand for a law: its quantiles at (i - 1/2) / N."""
    u = (torch.arange(N, dtype=torch.float64) + 0.5) / N
    if quantile_function == "normal":
        return torch.special.ndtri(u)
    return u if quantile_function == "uniform" else -torch.log1p(-u)


def needs_n(pair: Quadrangle) -> bool:
    return pair.name in ("range", "worst_case", "upper_range", "lower_range")


def test_gaussian_constants(pair: Quadrangle) -> None:
    """k and c against the functional itself, on mu = 2, sigma = 3 where the pair is homogeneous."""
    smoothed = pair.parameters.get("quantile_gradient") == "smoothed"
    if needs_n(pair) and not smoothed:
        return  # below
    k, c = pair.gaussian()
    mu, sigma = (2.0, 3.0) if pair.homogeneous else (2.0, 1.0)
    x = mu + sigma * law("normal")
    assert pair.statistic(x).item() == pytest.approx(mu + sigma * k, abs=1e-3)
    assert pair.deviation(x).item() == pytest.approx(sigma * c, abs=1e-3)


@pytest.mark.modes("exact", "window_centred")
def test_extremes_need_the_sample_size(pair: Quadrangle) -> None:
    if not needs_n(pair):
        assert pair.gaussian() == pair.gaussian(64)
        return
    with pytest.raises(ValueError, match="give n"):
        pair.gaussian()
    n, rows = 64, 20_000
    x = torch.randn(rows, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    k, c = pair.gaussian(n)
    for constant, values in ((k, pair.statistic(x, -1)), (c, pair.deviation(x, -1))):
        assert (values.mean() - constant).abs() < 4 * values.std() / math.sqrt(rows)


def test_expected_maximum() -> None:
    assert gaussian.expected_maximum(1) == pytest.approx(0.0, abs=1e-9)
    assert gaussian.expected_maximum(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-9)
    assert gaussian.expected_maximum(3) == pytest.approx(1.5 / math.sqrt(math.pi), abs=1e-9)
    # scipy's adaptive quadrature of n z phi(z) Phi(z)^(n-1); Gumbel's limit law would say 3.469 and 4.459
    assert gaussian.expected_maximum(2048) == pytest.approx(3.4417991, abs=1e-6)
    assert gaussian.expected_maximum(131_072) == pytest.approx(4.4430390, abs=1e-6)
    with pytest.raises(ValueError, match="at least 1"):
        gaussian.expected_maximum(0)


@pytest.mark.parametrize(
    ("alpha", "k", "c"),
    [(0.5, 0, 0.7979), (0.6, 0.2533, 0.9659), (0.75, 0.6745, 1.2711), (0.9, 1.2816, 1.7550)],
)
def test_table_of_the_quantile_pair(alpha: float, k: float, c: float) -> None:
    assert quadrangle("cvar", alpha=alpha).gaussian() == pytest.approx((k, c), abs=5e-5)


ROOT = math.sqrt(0.75) / (math.sqrt(0.75) + math.sqrt(0.25))  # the uniform law's expectile at 3/4
UNIFORM = {
    ("statistic", "mean"): 0.5,
    ("statistic", "quantile"): 0.75,
    ("statistic", "median"): 0.5,
    ("statistic", "mixed_quantile"): 0.625,
    ("statistic", "quantile_midpoint"): 0.5,
    ("statistic", "midrange"): 0.5,
    ("statistic", "maximum"): 1.0,
    ("statistic", "expectile"): ROOT,
    ("statistic", "huber"): 0.5,
    ("statistic", "entropic"): math.log(E - 1),
    ("deviation", "std"): math.sqrt(1 / 12),
    ("deviation", "mad"): 0.25,
    ("deviation", "cvar"): 0.375,
    ("deviation", "mixed_cvar"): 0.3125,
    ("deviation", "quantile_radius"): 0.375,
    ("deviation", "range"): 0.5,
    ("deviation", "worst_case"): 0.5,
    ("deviation", "upper_range"): 0.5,
    ("deviation", "lower_range"): 0.5,
    ("deviation", "upper_semideviation"): math.sqrt(1 / 24),
    ("deviation", "lower_semideviation"): math.sqrt(1 / 24),
    ("deviation", "mean_mad"): 0.25,
    ("deviation", "expectile"): math.sqrt((0.75 * (1 - ROOT) ** 3 + 0.25 * ROOT**3) / 3),
    ("deviation", "expectile_risk"): ROOT - 0.5,
    ("deviation", "entropic"): math.log(E - 1) - 0.5,
}
EXPONENTIAL = {
    ("statistic", "mean"): 1.0,
    ("statistic", "quantile"): math.log(4),
    ("statistic", "median"): math.log(2),
    ("statistic", "mixed_quantile"): 0.5 * (math.log(2) + math.log(4)),
    ("statistic", "quantile_midpoint"): 0.5 * (math.log(4) + math.log(4 / 3)),
    ("deviation", "std"): 1.0,
    ("deviation", "mad"): math.log(2),
    ("deviation", "cvar"): math.log(4),
    ("deviation", "mixed_cvar"): 0.5 * (math.log(2) + math.log(4)),
    # the lower tail's mean is 1 - 3 log(4 / 3)
    ("deviation", "quantile_radius"): 0.5 * (math.log(4) + 3 * math.log(4 / 3)),
    ("deviation", "lower_range"): 1.0,
    ("deviation", "upper_semideviation"): math.sqrt(2 / E),
    ("deviation", "lower_semideviation"): math.sqrt(1 - 2 / E),
    ("deviation", "mean_mad"): 2 / E,
}


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [("uniform", *item) for item in UNIFORM.items()]
    + [("exponential", *item) for item in EXPONENTIAL.items()],
)
def test_closed_forms(name: str, key: tuple[str, str], expected: float) -> None:
    kind, functional = key
    value = (statistic if kind == "statistic" else deviation)(functional)(law(name))
    assert value.item() == pytest.approx(expected, abs=2e-4)


def test_huber_with_a_fixed_threshold_on_the_uniform_law() -> None:
    # about 1/2, b = 1/4: int z^2 / (2 b) inside, z - b / 2 outside
    inside, outside = (0.25**3 / 3) / 0.25, 2 * ((0.5**2 - 0.25**2) / 2 - 0.125 * 0.25)
    pair = quadrangle("huber", b=0.25, scaled=False)
    assert pair.deviation(law("uniform")).item() == pytest.approx(inside + outside, abs=1e-4)


def test_exponentials_expectile_solves_its_equation() -> None:
    e = statistic("expectile", tau=0.9)(law("exponential")).item()
    above, below = math.exp(-e), e - 1 + math.exp(-e)  # E[X - e]_+ and E[e - X]_+
    assert 0.9 * above == pytest.approx(0.1 * below, abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 5, 10, 101])
def test_cvar_at_one_half_is_mad(n: int) -> None:
    x = torch.randn(7, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n)).requires_grad_()
    half, mad = deviation("cvar", alpha=0.5)(x, -1), deviation("mad")(x, -1)
    torch.testing.assert_close(half, mad, rtol=1e-14, atol=1e-14)
    first, second = (torch.autograd.grad(value.sum(), x)[0] for value in (half, mad))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(statistic("quantile", alpha=0.5)(x, -1), statistic("median")(x, -1))


def test_limits() -> None:
    x = torch.randn(5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def same(
        given: tuple[str, dict[str, float]], wanted: tuple[str, dict[str, float]], tolerance: float
    ) -> None:
        one, two = deviation(given[0], **given[1])(x, -1), deviation(wanted[0], **wanted[1])(x, -1)
        torch.testing.assert_close(one, two, rtol=0, atol=tolerance)

    assert deviation("cvar", alpha=1e-6)(x, -1).max() < 1e-5
    same(("cvar", {"alpha": 1 - 1e-6}), ("worst_case", {}), 1e-12)
    same(("quantile_radius", {"alpha": 0.5}), ("mad", {}), 1e-12)
    same(("quantile_radius", {"alpha": 1 - 1e-6}), ("range", {}), 1e-12)
    same(("mixed_cvar", {"weights": (1.0,), "alphas": (0.6,)}), ("cvar", {"alpha": 0.6}), 1e-12)
    same(("huber", {"b": 1e-6, "scaled": False}), ("mad", {}), 1e-5)
    std = deviation("std")(x, -1)
    wide = deviation("huber", b=1e3, scaled=False)(x, -1)
    torch.testing.assert_close(wide, std.square() / 2e3, rtol=1e-9, atol=0)
    torch.testing.assert_close(deviation("expectile", tau=0.5)(x, -1), std / math.sqrt(2), rtol=1e-9, atol=0)
    torch.testing.assert_close(statistic("expectile", tau=0.5)(x, -1), x.mean(-1))
    torch.testing.assert_close(statistic("huber", b=1e3)(x, -1), x.mean(-1))
    small = 1e-4
    entropic = deviation("entropic")(small * x, -1) / small**2
    torch.testing.assert_close(entropic, std.square() / 2, rtol=1e-3, atol=0)
