"""Selection against a sort."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gbn.risk import order, quadrangle
from gbn.risk.order import OrderStatistics, rank

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 60))


@pytest.fixture(params=["numpy", "torch"])
def selection(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to select: numpy is no dependency of the layers."""
    if request.param == "torch":
        monkeypatch.setattr(order, "np", None)
    return request.param


def ordered(x: Tensor) -> Tensor:
    return x.sort(-1)[0]


class Needs:
    def __init__(self, ranks: tuple[int, ...], windows: tuple[tuple[int, int], ...]) -> None:
        self.ranks, self.windows = ranks, windows

    def needs(self, n: int) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        return self.ranks, self.windows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000])
def test_every_rank(selection: str, n: int, dtype: torch.dtype) -> None:
    x = torch.randn(3, n, dtype=dtype, generator=torch.Generator().manual_seed(n))
    before = x.clone()
    for k in {1, 2, n // 2, n - 1, n} & set(range(1, n + 1)):
        given_value = OrderStatistics(x).kth(k)
        assert given_value.dtype == dtype
        torch.testing.assert_close(given_value, ordered(x)[:, k - 1 : k], rtol=0, atol=0)
    torch.testing.assert_close(x, before, rtol=0, atol=0)  # the samples are not reordered in place


@given(data=st.data(), size=SIZES)
def test_many_ranks_and_windows_at_once(data: st.DataObject, size: tuple[int, int]) -> None:
    rows, n = size
    values = st.lists(st.integers(-5, 5), min_size=rows * n, max_size=rows * n)
    x = torch.tensor(data.draw(values), dtype=torch.float64).reshape(rows, n)
    ranks = tuple(data.draw(st.lists(st.integers(1, n), max_size=5)))
    edges = data.draw(st.lists(st.tuples(st.integers(1, n), st.integers(1, n)), max_size=3))
    windows = tuple((min(edge), max(edge)) for edge in edges)
    orders = OrderStatistics(x, Needs(ranks, windows))
    for k in ranks:
        torch.testing.assert_close(orders.kth(k), ordered(x)[:, k - 1 : k], rtol=0, atol=0)
    for lo, hi in windows:
        inside = ordered(x)[:, lo - 1 : hi]
        mean, variance = orders.moments(lo, hi)
        torch.testing.assert_close(mean, inside.mean(-1, keepdim=True))
        torch.testing.assert_close(variance, inside.var(-1, correction=0, keepdim=True))


@pytest.mark.parametrize("shape", [(0, 5), (2, 3, 7), (7,)])
def test_shapes(selection: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    orders = OrderStatistics(x, Needs((2,), ((1, 3),)))
    assert orders.kth(2).shape == (*shape[:-1], 1)
    assert orders.moments(1, 3)[1].shape == (*shape[:-1], 1)
    torch.testing.assert_close(orders.kth(2), ordered(x)[..., 1:2])


def test_rows_need_not_be_contiguous(selection: str) -> None:
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).T
    orders = OrderStatistics(x, Needs((5,), ((3, 6),)))
    torch.testing.assert_close(orders.kth(5), ordered(x)[:, 4:5], rtol=0, atol=0)


@pytest.mark.parametrize(
    "needs", [((3,), ()), ((1,), ()), ((5,), ()), ((1, 5), ()), ((3,), ((2, 4),)), ((), ((1, 5),))]
)
def test_nan_reaches_every_result(
    selection: str, needs: tuple[tuple[int, ...], tuple[tuple[int, int], ...]]
) -> None:
    x = torch.tensor([[1.0, 2, 3, 4, 5], [1, 2, float("nan"), 4, 5]])
    orders = OrderStatistics(x, Needs(*needs))
    results = [orders.kth(k) for k in needs[0]] + [
        part for window in needs[1] for part in orders.moments(*window)
    ]
    for result in results:
        assert result[0].isfinite().all()
        assert result[1].isnan().all()


def test_infinite_samples_keep_their_rank(selection: str) -> None:
    x = torch.tensor([[float("-inf"), 2.0, 1.0, 3.0, float("inf")]])
    orders = OrderStatistics(x, Needs((1, 3, 5), ((2, 4),)))
    assert [orders.kth(k).item() for k in (1, 3, 5)] == [float("-inf"), 2.0, float("inf")]
    assert orders.moments(2, 4)[0].item() == 2.0


def test_both_selections_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).relu_().requires_grad_()
    pair = quadrangle("cvar", alpha=0.6)

    def gradient() -> Tensor:
        return torch.autograd.grad((pair.statistic(x, 1) + pair.deviation(x, 1)).sum(), x)[0]

    with_numpy = gradient()
    monkeypatch.setattr(order, "np", None)
    torch.testing.assert_close(gradient(), with_numpy)


@pytest.mark.parametrize("alpha", [0.07, 0.29, 0.5, 0.57, 0.75, 0.9, 1e-9, 1 - 1e-12])
def test_rank_is_the_ceiling_of_the_real_product(alpha: float) -> None:
    for n in (1, 2, 3, 7, 100, 200, 2048, 131_072):
        scaled = round(alpha * 10**12)
        assert rank(n, alpha) == min(n, max(1, -(-n * scaled // 10**12)))


def test_pair_selects_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = quadrangle("cvar", alpha=0.75)
    x = torch.randn(2, 30)
    calls = []
    select = order._select
    monkeypatch.setattr(order, "_select", lambda *args: calls.append(args) or select(*args))
    orders = OrderStatistics(x, pair.S, pair.D)
    pair.S.evaluate(x, orders)
    pair.D.evaluate(x, orders)
    assert len(calls) == 1


def test_eager_use_leaves_the_compiler_alone() -> None:
    """An operator's first call imports torch's compiler: over a second, and it needs numpy."""
    code = """
import sys, torch
sys.modules["numpy"] = None  # as where it is not installed
from gbn.risk import QUADRANGLES
x = torch.randn(3, 20, requires_grad=True)
for build in QUADRANGLES.values():
    pair = build()
    (pair.statistic(x, 1) + pair.deviation(x, 1)).sum().backward()
assert "torch._dynamo" not in sys.modules, "torch's compiler was imported"
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stderr


def test_refusals() -> None:
    with pytest.raises(ValueError, match="rank 4 of 3 samples; ranks go from 1 to 3"):
        OrderStatistics(torch.zeros(2, 3)).kth(4)
    with pytest.raises(ValueError, match="at least one sample"):
        OrderStatistics(torch.zeros(2, 0))
