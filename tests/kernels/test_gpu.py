"""The fused kernels on a real GPU, at realistic sizes, against the reference kernel in float64 on the same GPU.

Needs CUDA and Triton; tests/kernels/test_triton.py runs the same kernels on a CPU, under Triton's interpreter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gbn import kernels, risk
from gbn.kernels import reference
from gbn.risk.parameters import QUADRANGLE_PARAMETERS
from tests.kernels.fused import FUSED

pytestmark = pytest.mark.gpu

DEVICE = "cuda"
EPS = 1e-3  # large enough to be seen in every comparison
EPS32 = torch.finfo(torch.float32).eps
#: The pairs that these kernels serve; what is found by iteration takes the reference.
SERVED = [n for n in FUSED if "quantile_gradient" in QUADRANGLE_PARAMETERS[n] or n == "std"]
PAIRS = [
    pytest.param(name, mode, id=name if mode is None else f"{name}-{mode}")
    for name in SERVED
    for mode in (risk.GRADIENT_MODES if "quantile_gradient" in QUADRANGLE_PARAMETERS[name] else (None,))
]
FORMATS = {"planes": torch.contiguous_format, "columns": torch.channels_last}
#: One size for each way through the kernels: a program a channel; brackets with what the cache keeps; brackets with
#: windows found while y is written (over 32 MiB in float32).
SMALL, MIDDLE, LARGE = (32, 37, 14, 14), (32, 24, 40, 40), (48, 64, 56, 56)


def build(name: str, mode: str | None = None) -> risk.Quadrangle:
    return risk.quadrangle(name, **({} if mode is None else {"quantile_gradient": mode}))


def sample(
    *shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, layout: str = "planes"
) -> list[Tensor]:
    """x (skewed, channels of different scale and place), weight, bias and a random cotangent."""
    make = torch.Generator(DEVICE).manual_seed(seed)
    c = shape[1]
    per_channel = (1, c, *[1] * (len(shape) - 2))

    def spread(low: float, high: float) -> Tensor:
        return torch.linspace(low, high, c, device=DEVICE).view(per_channel)

    x = torch.randn(shape, generator=make, device=DEVICE).mul(0.7).exp() * spread(0.5, 3) + spread(-2, 5)
    g = torch.randn(shape, generator=make, device=DEVICE)
    weight = torch.rand(c, generator=make, device=DEVICE) + 0.5
    bias = torch.randn(c, generator=make, device=DEVICE)
    if len(shape) == 4:
        x, g = (t.to(memory_format=FORMATS[layout]) for t in (x, g))
    return [x.to(dtype), weight, bias, g.to(dtype)]


def run(
    pair: risk.Quadrangle, x: Tensor, weight: Tensor, bias: Tensor, g: Tensor, act: str | None
) -> list[Tensor]:
    """y, S, D, dx, dweight, dbias of the fused kernels."""
    assert kernels.implementation(x, pair.S, pair.D) == "triton"
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    y, s, d = kernels.normalize(*leaves, pair.S, pair.D, EPS, act)
    return [y.detach(), s, d, *torch.autograd.grad(y, leaves, g)]


def check(
    pair: risk.Quadrangle, x: Tensor, weight: Tensor, bias: Tensor, g: Tensor, act: str | None = "relu"
) -> None:
    """Compare with the reference in float64.

    A y within rounding of 0 may fall on either side of the ReLU; the reference takes the kernels' side of it.
    Tolerances: y and dx are rounded once to their dtype; S is rounded (half an eps of the largest sample), and x - S,
    the scale, the product, the sums with bias or f(x) and the record's coefficients are float32, 8 eps of the largest
    value; in sums of n terms the errors of partial sums add up as a random walk, sqrt(n) eps of the largest term,
    and D and dx inherit a mean's (1 / sqrt(n) of that: less than one of the 8).
    """
    ours = run(pair, x, weight, bias, g, act)
    wide = [t.double().requires_grad_() for t in (x, weight, bias)]
    y, s, d = reference.normalize(*wide, pair.S, pair.D, EPS)
    passed = g.double() * (ours[0] > 0) if act == "relu" else g.double()
    gradients = torch.autograd.grad(y, wide, passed)
    exact = [y.detach().relu() if act == "relu" else y.detach(), s, d, *gradients]
    largest, n = x.double().abs().max(), x.numel() // x.shape[1]
    for name, a, b in zip(("y", "S", "D", "dx", "dweight", "dbias"), ours, exact, strict=True):
        size = torch.maximum(b.abs().max(), largest if name in ("y", "S", "D") else torch.ones_like(largest))
        tolerance = (max(8.0, n**0.5) if name in ("dweight", "dbias") else 8.0) * EPS32
        tolerance += torch.finfo(x.dtype).eps if name in ("y", "dx") else 0.0
        assert (a.double() - b).abs().max() <= tolerance * size, name
    assert ours[0].stride() == ours[3].stride() == x.stride()
    assert (ours[0].dtype, ours[3].dtype) == (x.dtype, x.dtype)


@pytest.mark.parametrize("layout", list(FORMATS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_values_and_gradients(name: str, mode: str | None, dtype: torch.dtype, layout: str) -> None:
    for shape in (SMALL, MIDDLE):
        check(build(name, mode), *sample(*shape, dtype=dtype, layout=layout))


@pytest.mark.parametrize("layout", list(FORMATS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["cvar", "range", "std", "mixed_cvar", "worst_case"])
def test_inputs_beyond_the_cache(name: str, dtype: torch.dtype, layout: str) -> None:
    shape = LARGE if dtype == torch.float32 else (2 * LARGE[0], *LARGE[1:])
    check(build(name), *sample(*shape, dtype=dtype, layout=layout))


@pytest.mark.parametrize("act", [None, "relu", "silu"])
@pytest.mark.parametrize(
    "shape",
    [(500, 33), (100_000, 3), (7, 5, 333), (3, 4, 5, 6, 7), (2, 3, 301, 299), (1, 1, 257, 255), (40_000, 1)],
)
def test_odd_shapes(shape: tuple[int, ...], act: str | None) -> None:
    values = sample(*shape, dtype=torch.bfloat16)
    if act != "silu":
        check(build("cvar"), *values, act)
        return
    y = run(build("cvar"), *values, None)[0]
    want = nn.functional.silu(y)
    # the activation is torch's own, on a y that was rounded
    torch.testing.assert_close(run(build("cvar"), *values, act)[0], want, rtol=0, atol=0)


@pytest.mark.parametrize("layout", list(FORMATS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["cvar", "mad", "range", "std", "quantile_radius"])
def test_tied_samples(name: str, dtype: torch.dtype, layout: str) -> None:
    """Half of a channel at 0, as after a ReLU, a few distinct values, a constant: brackets of a single number."""
    for shape in (SMALL, MIDDLE):
        x, weight, bias, g = sample(*shape, dtype=dtype, layout=layout)
        x[:, 0] = (x[:, 0] - x[:, 0].median()).relu()
        x[:, 1] = x[:, 1].round()
        x[:, 2] = 0.75
        check(build(name), x, weight, bias, g)


@pytest.mark.parametrize("layout", list(FORMATS))
@pytest.mark.parametrize("how", ["below", "above", "no room"])
def test_missed_brackets(how: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gbn.kernels.triton import launch_forward

    misled: dict[str, Callable[[int, int, int], tuple[int, int]]] = {
        "below": lambda rank, n, m: (1, 2),
        "above": lambda rank, n, m: (m - 1, m),
        "no room": lambda rank, n, m: (0, m + 1),
    }
    monkeypatch.setattr(launch_forward, "sample_ranks", misled[how])
    monkeypatch.setattr(launch_forward, "_MORE", 64)
    monkeypatch.setattr(launch_forward, "_ROOM", 0.01)
    for name in ("cvar", "range"):
        check(build(name), *sample(*MIDDLE, dtype=torch.bfloat16, layout=layout))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("shape", [SMALL, MIDDLE])
def test_nan_and_inf_spoil_their_channel(shape: tuple[int, ...], bad: float) -> None:
    for name in ("std", "cvar", "mad", "range", "mixed_cvar"):
        values = sample(*shape, dtype=torch.bfloat16)
        clean = run(build(name), *values, "relu")
        values[0][1, 1, 2, 3] = bad
        spoilt = run(build(name), *values, "relu")
        for a, b in zip(spoilt, clean, strict=True):
            axis = 1 if a.dim() > 1 else 0
            others = [c for c in range(a.shape[axis]) if c != 1]
            assert torch.equal(a.unbind(axis)[0], b.unbind(axis)[0])
            assert a.movedim(axis, 0)[others].isfinite().all()
        for k in (0, 3):
            assert spoilt[k][:, 1].isnan().all()
        for k in (1, 2):
            assert spoilt[k][1].isnan()


def test_a_large_offset_does_not_cancel() -> None:
    """1e4 +- 1 in float32: S is a sample, so nothing but float32's arithmetic on x - S is lost."""
    x, weight, bias, g = sample(*MIDDLE)
    x = x + 1e4
    y, s, d, dx, *_ = run(build("cvar"), x, weight, bias, g, None)
    wide = x.double().requires_grad_()
    pair = build("cvar")
    want, exact_s, exact_d = reference.normalize(wide, weight.double(), bias.double(), pair.S, pair.D, EPS)
    (exact_dx,) = torch.autograd.grad(want, wide, g.double())
    assert torch.equal(s.double(), exact_s)
    assert ((d - exact_d).abs() <= 8 * EPS32 * (wide - exact_s.view(1, -1, 1, 1)).abs().max()).all()
    assert (y - want).abs().max() <= 8 * EPS32 * want.abs().max()
    assert (dx - exact_dx).abs().max() <= 8 * EPS32 * exact_dx.abs().max()


@pytest.mark.parametrize("layout", list(FORMATS))
@pytest.mark.parametrize("shape", [SMALL, MIDDLE, LARGE])
def test_is_deterministic(shape: tuple[int, ...], layout: str) -> None:
    """Collected samples come in any order; no result depends on it."""
    values = sample(*shape, layout=layout)
    values[0][:, 0].relu_()
    first, *others = (run(build("cvar"), *values, "relu") for _ in range(5))
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@contextlib.contextmanager
def no_synchronization() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", list(risk.QUADRANGLES))
@pytest.mark.parametrize("shape", [SMALL, MIDDLE, LARGE])
def test_nothing_waits_for_the_device(name: str, shape: tuple[int, ...]) -> None:
    pair, values = build(name), sample(*shape, dtype=torch.bfloat16)
    run(pair, *values, "relu")  # compiles, and brings a plan's numbers to the device
    with no_synchronization():
        run(pair, *values, "relu")


@pytest.mark.parametrize("shape", [SMALL, MIDDLE, LARGE])
def test_cuda_graph(shape: tuple[int, ...]) -> None:
    pair, values = build("cvar"), sample(*shape, dtype=torch.bfloat16)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        expected = run(pair, *values, "relu")
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(pair, *values, "relu")
    for _ in range(2):
        graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


@pytest.mark.parametrize("name", ["cvar", "std", "huber"])
def test_compiled_without_a_graph_break(name: str) -> None:
    pair, values = build(name), sample(*MIDDLE, dtype=torch.bfloat16)

    def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return kernels.normalize(x * 1.0, weight, bias, pair.S, pair.D, EPS, "relu")[0] * 1.0

    results: list[Any] = []
    for function in (layer, torch.compile(layer, fullgraph=True)):
        leaves = [t.detach().requires_grad_() for t in values[:3]]
        y = function(*leaves)
        results.append([y, *torch.autograd.grad(y, leaves, values[3])])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("layout", list(FORMATS))
def test_keeps_no_more_memory_than_batchnorm_and_relu(layout: str) -> None:
    """What a layer's output and its graph hold between forward and backward."""
    x = sample(*LARGE, layout=layout)[0].requires_grad_()
    pair, parameters = build("cvar"), sample(*LARGE)[1:3]
    batchnorm = nn.BatchNorm2d(LARGE[1]).to(DEVICE)

    def ours() -> Tensor:
        return kernels.normalize(x, *parameters, pair.S, pair.D, EPS, "relu")[0]

    def theirs() -> Tensor:
        return batchnorm(x).relu()

    kept = []
    for layer in (ours, theirs):
        layer().sum().backward()
        x.grad = None
        before = torch.cuda.memory_allocated()
        y = layer()
        kept.append(torch.cuda.memory_allocated() - before)
        del y
    assert kept[0] <= kept[1]


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["std", "cvar"])
def test_instance_enhancement(name: str, dtype: torch.dtype, layout: str) -> None:
    """The gate of torch's operations around the kernels, against the same in float64; in half precision x_hat is
    rounded before it, and in the L2 norm that is one rounding more.
    """
    pair = build(name)
    x, weight, bias, g = sample(*SMALL, dtype=dtype, layout=layout)
    gate = [torch.linspace(*ends, SMALL[1], device=DEVICE) for ends in ((-1, 1), (0, -2))]
    results = []
    for leaves in (
        [t.detach().requires_grad_() for t in (x, weight, bias, *gate)],
        [t.detach().double().requires_grad_() for t in (x, weight, bias, *gate)],
    ):
        y, s, d = kernels.normalize(*leaves[:3], pair.S, pair.D, EPS, None, tuple(leaves[3:]))
        results.append([y, s, d, *torch.autograd.grad(y, leaves, g.to(y.dtype))])
    for ours, exact in zip(*results, strict=True):
        error = torch.linalg.vector_norm(ours.double() - exact)
        assert error <= (2 * torch.finfo(dtype).eps + 1e-4) * torch.linalg.vector_norm(exact)
