"""Eager measuring of a plan against the functionals themselves: S, D, and their derivatives, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gbn import risk
from gbn.kernels.describe import describe
from gbn.kernels.plan import HEAD, POINT, Plan, lower
from gbn.risk.order import OrderStatistics
from gbn.risk.parameters import DEVIATION_PARAMETERS, QUADRANGLE_PARAMETERS

MIXED = {"weights": (0.2, 0.3, 0.5), "alphas": (0.1, 0.5, 0.9)}
OTHERS: dict[str, list[dict[str, Any]]] = {
    "cvar": [{}, {"alpha": 0.2}],
    "mixed_cvar": [{}, MIXED],
    "quantile_radius": [{}, {"alpha": 0.5}],
    "expectile": [{}, {"tau": 0.1}],
    "huber": [{}, {"b": 0.3}, {"scaled": False}, {"b": 0.3, "scaled": False}],
}


def cases() -> list[Any]:
    found = []
    for name in risk.QUADRANGLES:
        for other in OTHERS.get(name, [{}]):
            modes = risk.GRADIENT_MODES if "quantile_gradient" in QUADRANGLE_PARAMETERS[name] else (None,)
            for mode in modes:
                parameters = other if mode is None else {**other, "quantile_gradient": mode}
                label = "-".join([name, *(str(value) for value in parameters.values())])
                found.append(pytest.param(name, parameters, id=label.replace(" ", "")))
    return found


def rows_of(kind: str, n: int) -> Tensor:
    make = torch.Generator().manual_seed(n)
    rows = torch.randn(5, n, generator=make, dtype=torch.float64).exp() * 2 + 1
    if kind == "ties":
        rows = rows.round()
        rows[1] = rows[1].clamp_min(rows[1].median())
    if kind == "constant":
        rows[:] = torch.tensor([0.7, 0.0, -3.0, 1e4 + 0.1, 5.0], dtype=torch.float64)[:, None]
    if kind == "two values":
        rows = (rows > 2.5).double() * 3 - 1
    return rows


def evaluated(record: Tensor, rows: Tensor, s: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """f_S and f_D of every sample, as plan.py says a record is to be read."""
    u, found = rows - s[:, None], []
    places = (range(plan.statistic.points), range(plan.statistic.points, plan.points))
    for which, points in enumerate(places):
        f = record[:, [2 * which]] + record[:, [2 * which + 1]] * u
        if (record[:, 5 + which] != 0).any():
            f = f + record[:, [5 + which]] * (rows - record[:, [4]]).exp()
        for j in points:
            b, at, rise, bend, span = (record[:, [HEAD + POINT * j + i]] for i in range(POINT))
            f = f + torch.where(rows == b, at, 0.0) + torch.where(rows > b, rise, 0.0)
            f = f + bend * torch.minimum((rows - b).clamp_min(0.0), span)
        found.append(f)
    return found[0], found[1]


def expected(rows: Tensor, functional: Any) -> tuple[Tensor, Tensor]:
    value, saved = functional.evaluate(rows, OrderStatistics(rows, functional))
    return value[:, 0], functional.gradient(rows, saved)


@pytest.mark.parametrize("kind", ["plain", "ties", "constant", "two values"])
@pytest.mark.parametrize(("name", "parameters"), cases())
def test_equals_the_functionals(name: str, parameters: dict[str, Any], kind: str) -> None:
    pair = risk.quadrangle(name, **parameters)
    for n in (1, 2, 3, 7, 100):
        plan, rows = lower(pair.S, pair.D, n), rows_of(kind, n)
        s, d, record = describe(rows, plan)
        assert record.shape == (5, plan.record)
        f_s, f_d = evaluated(record, rows, s, plan)
        # the reference's own rounding where it computes in float64: a mean of 1e4's last bit, and sqrt of it
        near = {"rtol": 1e-9, "atol": 1e-9}
        for ours, (value, gradient), got in (
            (s, expected(rows, pair.S), f_s),
            (d, expected(rows, pair.D), f_d),
        ):
            torch.testing.assert_close(ours, value, **near)
            if (
                kind == "constant"
                and n > 1
                and name in ("std", "expectile", "huber")
                and value.abs().max() > 0
            ):
                continue  # 0 / 0 of a reference that rounds its mean
            torch.testing.assert_close(got, gradient.expand_as(rows), **near)


@pytest.mark.parametrize("mode", risk.GRADIENT_MODES)
@pytest.mark.parametrize("deviation", list(risk.DEVIATIONS))
@pytest.mark.parametrize("statistic", ["mean", "median", "midrange", "huber", "entropic", "expectile"])
def test_free_pairs(statistic: str, deviation: str, mode: str) -> None:
    """The deviation's derivative is written about S, whichever statistic that is."""
    make = risk.statistic
    ranked = statistic in ("median", "midrange")
    if mode != "exact" and not ranked and "quantile_gradient" not in DEVIATION_PARAMETERS[deviation]:
        pytest.skip("no gradient mode in this pair")
    s_of = make(statistic, **({"quantile_gradient": mode} if ranked else {}))
    windowed = "quantile_gradient" in DEVIATION_PARAMETERS[deviation]
    d_of = risk.deviation(deviation, **({"quantile_gradient": mode} if windowed else {}))
    plan, rows = lower(s_of, d_of, 60), rows_of("plain", 60)
    s, d, record = describe(rows, plan)
    f_s, f_d = evaluated(record, rows, s, plan)
    for ours, got, functional in ((s, f_s, s_of), (d, f_d, d_of)):
        value, gradient = expected(rows, functional)
        torch.testing.assert_close(ours, value, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(got, gradient.expand_as(rows), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "parameters"), cases())
def test_float32_with_a_large_offset(name: str, parameters: dict[str, Any]) -> None:
    """The record belongs to the rounded S: in float32 it sums as in float64 (sums of 300 terms, 1e4 +- 1)."""
    if name == "entropic" or parameters.get("scaled") is False:
        pytest.skip("not homogeneous: compared above")
    pair = risk.quadrangle(name, **parameters)
    rows = (torch.randn(3, 300, generator=torch.Generator().manual_seed(3)) + 1e4).float()
    plan = lower(pair.S, pair.D, 300)
    s, d, record = describe(rows, plan)
    wide = describe(rows.double(), plan)
    assert (s - wide[0]).abs().max() <= 1e4 * torch.finfo(torch.float32).eps / 2 * 1.01
    torch.testing.assert_close(d.double(), wide[1], rtol=1e-6, atol=0)
    ours = evaluated(record, rows, s, plan)
    exact = evaluated(wide[2], rows.double(), wide[0], plan)
    for got, want in zip(ours, exact, strict=True):
        # a breakpoint that is no sample is rounded too, and may pass one: not so with this seed
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize(("name", "parameters"), cases())
def test_nan_and_inf_spoil_their_row(name: str, parameters: dict[str, Any]) -> None:
    pair = risk.quadrangle(name, **parameters)
    rows = rows_of("plain", 30)
    plan = lower(pair.S, pair.D, 30)
    clean = describe(rows, plan)
    for bad in (float("nan"), float("inf"), float("-inf")):
        spoilt = rows.clone()
        spoilt[1, 7] = bad
        found = describe(spoilt, plan)
        assert all(t[1].isnan().all() for t in found)
        for ours, want in zip(found, clean, strict=True):
            torch.testing.assert_close(ours[[0, 2, 3, 4]], want[[0, 2, 3, 4]], rtol=0, atol=0)
