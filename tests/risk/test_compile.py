"""torch.compile traces statistics and deviations whole: the selection and the solvers are custom operators."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gbn.risk import compose

PAIRS = [("quantile", "cvar"), ("expectile", "huber"), ("midrange", "range"), ("mean", "entropic")]


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # torch's own: the compiler uses what torch deprecates
@pytest.mark.parametrize(("location", "scale"), PAIRS)
def test_fullgraph(location: str, scale: str) -> None:
    pair = compose(location, scale)
    # the code generator once (it costs seconds a graph), the tracing of every kind of pair
    backend = "inductor" if scale == "cvar" else "aot_eager"

    def normalized(x: Tensor) -> Tensor:
        return (x - pair.statistic(x, (0, 2), True)) / (pair.deviation(x, (0, 2), True) + 1e-3)

    x = torch.randn(4, 3, 50, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cotangent = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    results = []
    for function in (normalized, torch.compile(normalized, fullgraph=True, backend=backend)):
        y = function(x)
        results.append((y, *torch.autograd.grad((y * cotangent).sum(), x)))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_batch_sizes_compile_too() -> None:
    """The second size makes dynamo try symbolic shapes; ranks follow the size."""
    pair = compose("quantile", "cvar")

    @torch.compile(fullgraph=True, backend="aot_eager")
    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        return pair.statistic(x, 0), pair.deviation(x, 0)

    for n in (7, 20, 33):
        x = torch.randn(n, 3, generator=torch.Generator().manual_seed(n))
        torch.testing.assert_close(both(x), (pair.statistic(x, 0), pair.deviation(x, 0)))


def test_operators_keep_their_contract() -> None:
    x = torch.randn(3, 20)
    mean = x.mean(-1, keepdim=True)
    ops = torch.ops.gbn
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.select, (x, [1, 5, 20], [3, 9]), test_utils=checks)
    torch.library.opcheck(ops.expectile, (x, mean, 0.75), test_utils=checks)
    torch.library.opcheck(ops.huber_location, (x, mean, torch.ones(3, 1)), test_utils=checks)
