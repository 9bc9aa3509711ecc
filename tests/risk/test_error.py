"""D is the minimum of the error and S the place of it, by direct numerical minimisation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gbn.risk import Quadrangle, compose, quadrangle

exact_only = pytest.mark.modes("exact")
ROWS = st.lists(st.integers(-16, 16).map(lambda k: k / 4), min_size=1, max_size=9).map(
    lambda v: torch.tensor(v, dtype=torch.float64)
)


def minimum(pair: Quadrangle, x: Tensor) -> tuple[float, float]:
    """Minimise c -> E(x - c), a convex function, by golden-section search over the samples' range."""
    low, high = x.min().item() - 1.0, x.max().item() + 1.0
    share = (math.sqrt(5.0) - 1.0) / 2.0
    for _ in range(90):
        left, right = high - share * (high - low), low + share * (high - low)
        values = pair.error(x - torch.tensor([[left], [right]], dtype=x.dtype), -1)
        low, high = (low, right) if values[0] <= values[1] else (left, high)
    place = 0.5 * (low + high)
    return place, pair.error(x - place).item()


@exact_only
@given(x=ROWS)
def test_deviation_is_the_least_error_and_statistic_its_place(pair: Quadrangle, x: Tensor) -> None:
    if not pair.has_error:
        return
    _, least = minimum(pair, x)
    deviation = pair.deviation(x).item()
    assert deviation == pytest.approx(least, abs=1e-6)
    assert pair.error(x - pair.statistic(x)).item() == pytest.approx(deviation, abs=1e-9)


@exact_only
@pytest.mark.parametrize("n", [5, 17, 40])
def test_statistic_is_found_by_minimising(pair: Quadrangle, n: int) -> None:
    """Continuous samples and n alpha no integer: the place is unique but for quantile sums, whose set has S."""
    if not pair.has_error:
        return
    x = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    place, least = minimum(pair, x)
    unique = pair.error(x - (place + 1e-3)) > least + 1e-9 and pair.error(x - (place - 1e-3)) > least + 1e-9
    if unique:
        assert pair.statistic(x).item() == pytest.approx(place, abs=1e-3)
    assert pair.error(x - pair.statistic(x)).item() == pytest.approx(least, abs=1e-9)


@exact_only
@given(x=ROWS)
def test_error_is_nought_at_nought_only(pair: Quadrangle, x: Tensor) -> None:
    if not pair.has_error:
        return
    assert pair.error(torch.zeros_like(x)).item() == pytest.approx(0.0, abs=1e-12)
    if bool((x != 0).any()):
        assert pair.error(x) > 0


def test_which_pairs_have_an_error(pair: Quadrangle) -> None:
    smoothed = pair.parameters.get("quantile_gradient") == "smoothed"
    elementary = pair.S.name == "mean"
    expected = elementary or (pair.name not in ("worst_case", "expectile_risk") and not smoothed)
    assert pair.has_error == expected
    if not expected:
        with pytest.raises(ValueError, match="no error is known"):
            pair.error(torch.ones(3))


def koenker_bassett(x: Tensor, alpha: float) -> Tensor:
    return (alpha / (1 - alpha) * x.clamp_min(0) + (-x).clamp_min(0)).mean(-1)


@given(x=ROWS, alpha=st.floats(0.5, 0.95))
def test_quantile_radius_error_is_the_reverting_theorems(x: Tensor, alpha: float) -> None:
    """min over B of [E(X + B) + E(B - X)] / 2: convex and piecewise linear, least at a break."""
    shifts = torch.cat([x, -x])[:, None]
    sums = 0.5 * (koenker_bassett(x + shifts, alpha) + koenker_bassett(shifts - x, alpha))
    error = quadrangle("quantile_radius", alpha=alpha, quantile_gradient="exact").error(x)
    assert error.item() == pytest.approx(sums.min().item(), abs=1e-9)


@given(x=ROWS, weight=st.floats(0.05, 0.95), low=st.floats(0.05, 0.95), high=st.floats(0.05, 0.95))
def test_mixed_error_is_its_definition(x: Tensor, weight: float, low: float, high: float) -> None:
    """min { w E_1(X - B_1) + (1 - w) E_2(X - B_2) : w B_1 + (1 - w) B_2 = 0 }: least at a break in B_1."""
    breaks = torch.cat([x, -(1 - weight) / weight * x])[:, None]
    other = -weight / (1 - weight) * breaks
    sums = weight * koenker_bassett(x - breaks, low) + (1 - weight) * koenker_bassett(x - other, high)
    pair = quadrangle(
        "mixed_cvar", weights=(weight, 1 - weight), alphas=(low, high), quantile_gradient="exact"
    )
    assert pair.error(x).item() == pytest.approx(sums.min().item(), abs=1e-8)


@exact_only
def test_error_has_a_gradient(pair: Quadrangle) -> None:
    if not pair.has_error:
        return
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 11, dtype=torch.float64, generator=generator).requires_grad_()
    cotangent = torch.randn(4, dtype=torch.float64, generator=generator)
    direction = torch.randn(4, 11, dtype=torch.float64, generator=generator)
    (gradient,) = torch.autograd.grad((pair.error(x, -1) * cotangent).sum(), x)
    step = 1e-6
    ahead, behind = pair.error(x + step * direction, -1), pair.error(x - step * direction, -1)
    slope = ((ahead - behind) / (2 * step) * cotangent).sum()
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-7)


def test_composition_with_the_mean_has_the_elementary_error() -> None:
    x = torch.tensor([0.0, 1.0, 5.0, 2.0])
    pair = compose("mean", {"name": "cvar", "alpha": 0.5})
    torch.testing.assert_close(pair.error(x), x.mean().abs() + pair.deviation(x))
    assert compose("quantile", "cvar").has_error
    assert not compose({"name": "quantile", "alpha": 0.6}, "cvar").has_error
