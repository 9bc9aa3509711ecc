"""The Triton kernels under Triton's interpreter, on CPU tensors, against the float64 reference kernel.

The interpreter runs the kernels' own code on numpy arrays, program after program: it shows that the arithmetic is
right, and nothing of layouts, races or speed (tests/kernels/test_gpu.py does, where a GPU is). It is slow, so shapes
are small, and the sizes at which the kernels change their ways are made small as well.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import pytest
import torch
from torch import Tensor

if importlib.util.find_spec("triton") is None:
    pytest.skip("needs triton (it need not be the GPU's): pip install triton", allow_module_level=True)
if tuple(map(int, version("triton").split(".")[:2])) < (3, 9) and tuple(
    map(int, version("numpy").split(".")[:2])
) >= (2, 4):
    pytest.skip("the interpreter of Triton before 3.9 needs numpy < 2.4", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") != "1":
    if torch.cuda.is_available():
        pytest.skip("a GPU is here: tests/kernels/test_gpu.py runs what is compiled", allow_module_level=True)
    if "triton.language" in sys.modules:
        pytest.skip("triton was imported to compile: set TRITON_INTERPRET=1", allow_module_level=True)
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton and the kernels are imported

from torch._subclasses.fake_tensor import FakeTensorMode
from triton import runtime
from triton.runtime.driver import DriverConfig

from gbn import kernels, risk
from gbn.kernels import autograd, reference
from gbn.kernels import triton as gpu
from gbn.kernels.backend import Arguments
from gbn.kernels.plan import HEAD, POINT, Plan, lower
from gbn.kernels.triton import bracket, geometry, launch_forward
from gbn.kernels.triton.schedule import has_kernels, schedule
from gbn.risk.parameters import QUADRANGLE_PARAMETERS
from tests.kernels.fused import FUSED

# a GPU computes with infinities and NaN silently, numpy tells of them
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:divide by zero encountered:RuntimeWarning"),
]

EPS = 1e-3  # large enough to be seen in every comparison
EPS32 = torch.finfo(torch.float32).eps
SERVED = [n for n in FUSED if "quantile_gradient" in QUADRANGLE_PARAMETERS[n] or n == "std"]
PAIRS = [
    pytest.param(name, mode, id=name if mode is None else f"{name}-{mode}")
    for name in SERVED
    for mode in (risk.GRADIENT_MODES if "quantile_gradient" in QUADRANGLE_PARAMETERS[name] else (None,))
]


def build(name: str, mode: str | None = None) -> risk.Quadrangle:
    return risk.quadrangle(name, **({} if mode is None else {"quantile_gradient": mode}))


@pytest.fixture(autouse=True)
def fresh_cuts() -> Iterator[None]:
    """How an input is cut is remembered; tests change it."""
    geometry._cut.cache_clear()
    yield
    geometry._cut.cache_clear()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Take the way of large inputs, with a sample of m values a channel and this many programs."""

    def choose(m: int = 32, programs: int = 4, cached: int = 0) -> None:
        monkeypatch.setattr(launch_forward, "_SMALL", 0)
        monkeypatch.setattr(launch_forward, "_CACHED", cached)
        monkeypatch.setattr(launch_forward, "sample_size", lambda n: m)
        monkeypatch.setattr(geometry, "_PROGRAMS", programs)
        geometry._cut.cache_clear()

    return choose


def sample(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """x (skewed, channels of different scale and place), weight, bias and a random cotangent."""
    make = torch.Generator().manual_seed(seed)
    c = shape[1]
    per_channel = (1, c, *[1] * (len(shape) - 2))
    x = torch.randn(shape, generator=make).exp()
    x = x * torch.linspace(0.5, 3, c).view(per_channel) + torch.linspace(-2, 5, c).view(per_channel)
    weight, bias = torch.rand(c, generator=make) + 0.5, torch.randn(c, generator=make)
    return x.to(dtype), weight, bias, torch.randn(shape, generator=make).to(dtype)


def run(
    pair: risk.Quadrangle, x: Tensor, weight: Tensor | None, bias: Tensor | None, g: Tensor, relu: bool = True
) -> tuple[list[Tensor], Tensor]:
    """y, S, D, dx, dweight, dbias of the kernels, and the record."""
    plan = lower(pair.S, pair.D, x.numel() // x.shape[1])
    of = Arguments(x, weight, bias, None, plan, EPS, relu)
    y, kept = gpu.forward(of)
    s, d, record, _ = kept
    assert record.shape == (x.shape[1], plan.record)
    assert record.dtype == s.dtype == d.dtype == torch.float32
    dx, dweight, dbias, *_ = gpu.backward(g, of, kept, True)
    assert dx is not None
    assert y.dtype == dx.dtype == x.dtype
    assert y.stride() == dx.stride() == torch.empty_like(x).stride()
    return [y, s, d, dx, dweight, dbias], record


def wanted(
    pair: risk.Quadrangle, x: Tensor, weight: Tensor | None, bias: Tensor | None, g: Tensor, relu: bool = True
) -> list[Tensor]:
    """The same of the reference, in float64."""
    wide = x.double().requires_grad_()
    gain = (torch.ones(x.shape[1]) if weight is None else weight).double().requires_grad_()
    shift = (torch.zeros(x.shape[1]) if bias is None else bias).double().requires_grad_()
    y, s, d = reference.normalize(wide, gain, shift, pair.S, pair.D, EPS, "relu" if relu else None)
    return [y.detach(), s, d, *torch.autograd.grad(y, (wide, gain, shift), g.double())]


def check(pair: risk.Quadrangle, x: Tensor, *others: Any) -> Tensor:
    """Compare both; return the kernels' record."""
    ours, record = run(pair, x, *others)
    assert_close(ours, wanted(pair, x, *others), x)
    return record


def assert_close(ours: list[Tensor], exact: list[Tensor], x: Tensor) -> None:
    """Within one rounding to x's dtype (y, dx), and those of the float32 numbers that they are made of.

    Those are S (half an eps of the largest sample), x - S, the scale, the product, the sum with the bias or with
    f(x), the record's coefficients: 8 eps of the largest value. dweight and dbias are sums of n terms: the errors of
    their partial sums add up as a random walk, sqrt(n) eps of the largest gradient.
    """
    largest, n = x.double().nan_to_num(0, 0, 0).abs().max(), x.numel() // x.shape[1]
    for name, a, b in zip(("y", "S", "D", "dx", "dweight", "dbias"), ours, exact, strict=True):
        size = torch.maximum(b.abs().max(), largest if name in ("y", "S", "D") else torch.tensor(1.0))
        tolerance = (max(8.0, n**0.5) if name in ("dweight", "dbias") else 8.0) * EPS32
        tolerance += torch.finfo(x.dtype).eps if name in ("y", "dx") else 0.0
        assert (a.double() - b).abs().max() <= tolerance * size, name


def read(record: Tensor, rows: Tensor, s: Tensor, plan: Plan) -> list[Tensor]:
    """f_S and f_D of every sample, as gbn.kernels.plan says, in float64."""
    record, rows, s = record.double(), rows.double(), s.double()
    found = []
    for which, points in enumerate((range(plan.statistic.points), range(plan.statistic.points, plan.points))):
        f = record[:, [2 * which]] + record[:, [2 * which + 1]] * (rows - s[:, None])
        for i in points:
            b, at, rise, bend, span = (record[:, [HEAD + POINT * i + k]] for k in range(POINT))
            f = f + torch.where(rows == b, at, 0.0) + torch.where(rows > b, rise, 0.0)
            f = f + bend * torch.minimum((rows - b).clamp_min(0.0), span)
        found.append(f)
    return found


def assert_record(record: Tensor, x: Tensor, pair: risk.Quadrangle) -> None:
    """What the record says of every sample, against the functionals' own derivatives in float64."""
    rows = x.transpose(0, 1).flatten(1)
    plan, wide = lower(pair.S, pair.D, rows.shape[1]), rows.double().requires_grad_()
    exact = [torch.autograd.grad(part(wide, -1).sum(), wide)[0] for part in (pair.S, pair.D)]
    # each coefficient is rounded, and the tilt in a narrow window inherits 8 roundings of the window's variance
    for got, want in zip(read(record, rows, pair.S(wide, -1).detach(), plan), exact, strict=True):
        assert (got - want).abs().max() <= 32 * EPS32 * want.abs().max().clamp_min(1 / plan.n)


@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_small_inputs(name: str, mode: str | None) -> None:
    pair = build(name, mode)
    x, weight, bias, g = sample(3, 1, 3, 5)
    assert_record(check(pair, x, weight, bias, g), x, pair)


@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_large_inputs(name: str, mode: str | None, large: Callable[..., None]) -> None:
    """In bfloat16, which has ties in every bracket; counts, sums and the record in float32 all the same."""
    large()
    pair = build(name, mode)
    x, weight, bias, g = sample(4, 1, 5, 5, dtype=torch.bfloat16)
    assert_record(check(pair, x, weight, bias, g), x, pair)


@pytest.mark.parametrize("way", ["small", "large"])
@pytest.mark.parametrize(
    ("statistic", "deviation"),
    [
        ("median", "std"),
        ("mean", "cvar"),
        ("maximum", "mad"),
        ("mean", "upper_range"),
        ("quantile", "range"),
        ("midrange", "quantile_radius"),
    ],
)
def test_free_pairs(statistic: str, deviation: str, way: str, large: Callable[..., None]) -> None:
    """The record is written about S, whichever statistic that is."""
    if way == "large":
        large(m=16)
    pair = risk.compose(risk.statistic(statistic), risk.deviation(deviation))
    x, weight, bias, g = sample(3, 1, 5, 5, dtype=torch.bfloat16)
    assert_record(check(pair, x, weight, bias, g), x, pair)


@pytest.mark.parametrize("name", ["cvar", "range", "mixed_cvar"])
@pytest.mark.parametrize("mode", ["window_centred", "window"])
def test_large_inputs_that_the_cache_keeps(name: str, mode: str, large: Callable[..., None]) -> None:
    """One pass finds all."""
    large(cached=1 << 25)
    pair = build(name, mode)
    x, weight, bias, g = sample(4, 1, 5, 5, dtype=torch.bfloat16)
    assert_record(check(pair, x, weight, bias, g), x, pair)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the scans of a test leave, in turn."""
    found: list[Any] = []
    whole = launch_forward._Scan

    class Watched(whole):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            found.append(self)

    monkeypatch.setattr(launch_forward, "_Scan", Watched)
    return found


@pytest.mark.parametrize(
    ("name", "memory_format", "cached"),
    [
        ("cvar", torch.contiguous_format, 0),
        ("cvar", torch.contiguous_format, 1 << 25),
        ("cvar", torch.channels_last, 0),
        ("range", torch.channels_last, 0),
        ("std", torch.channels_last, 0),
        ("mixed_cvar", torch.contiguous_format, 0),
    ],
)
def test_several_tiles_and_programs(
    name: str, memory_format: torch.memory_format, cached: int, large: Callable[..., None], scans: list[Any]
) -> None:
    """Each program has several tiles, the last one not full; brackets are narrow, and none is missed."""
    large(m=512, programs=3, cached=cached)
    x, weight, bias, g = sample(5, 2, 29, 31)
    x, g = x.to(memory_format=memory_format), g.to(memory_format=memory_format)
    pair = build(name)
    check(pair, x, weight, bias, g)
    rows, planned = x.transpose(0, 1).flatten(1), schedule(lower(pair.S, pair.D, 4495))
    stages = [planned.joint] if cached else [planned.first, planned.second]
    for left, stage in zip(scans, [stage for stage in stages if stage is not None], strict=True):
        for i, rank in enumerate(stage.ranks):
            low, high = left.brackets[i, :, :, None]
            below, inside = left.counts[:, i].sum(-1)
            assert torch.equal(below, (rows < low).sum(1))
            assert torch.equal(inside, ((rows >= low) & (rows <= high)).sum(1))
            assert ((below < rank) & (rank <= below + inside)).all()
            assert (inside < 4495 / 3).all()
        assert not stage.ranks or (left.kept <= left.capacity).all()


@pytest.mark.parametrize("way", ["small", "large"])
@pytest.mark.parametrize(
    ("shape", "memory_format", "dtype"),
    [
        ((4, 5, 6, 3), torch.channels_last, torch.float16),
        ((4, 3, 6, 3), torch.contiguous_format, torch.float16),
        ((2, 3, 3, 2, 4), torch.channels_last_3d, torch.bfloat16),
        ((37, 5), torch.contiguous_format, torch.bfloat16),
        ((4, 2, 7), torch.contiguous_format, torch.float32),
        ((1, 2, 5, 5), torch.contiguous_format, torch.bfloat16),
        ((5, 1, 5, 3), torch.channels_last, torch.bfloat16),
        ((6, 3, 1, 1), torch.channels_last, torch.bfloat16),
    ],
)
def test_memory_formats(
    shape: tuple[int, ...],
    memory_format: torch.memory_format,
    dtype: torch.dtype,
    way: str,
    large: Callable[..., None],
) -> None:
    if way == "large":
        large(m=16)
    x, weight, bias, g = sample(*shape, dtype=dtype)
    x = x.to(memory_format=memory_format)
    check(build("cvar"), x, weight, bias, g)


def test_inputs_that_lie_in_no_known_format() -> None:
    """Strided views are copied; a dense permutation comes back in its own strides."""
    x, weight, bias, g = sample(4, 4, 5, 8, dtype=torch.bfloat16)
    pair = build("cvar", "exact")
    check(pair, x[:, ::2, :, 1::3], weight[::2], bias[::2], g[:, ::2, :, 1::3])
    check(pair, x.permute(3, 1, 2, 0), weight, bias, g.permute(3, 1, 2, 0))
    check(pair, x, weight, bias, torch.ones(()).expand(x.shape))  # the cotangent of a sum


@pytest.mark.parametrize("way", ["small", "large"])
@pytest.mark.parametrize("name", ["cvar", "mad", "range", "std", "quantile_radius"])
def test_tied_samples(name: str, way: str, large: Callable[..., None]) -> None:
    """Few distinct values, half of a channel at its lowest, as after a ReLU; the last channel is constant.

    Brackets are single numbers then, whose samples are counted and not collected.
    """
    if way == "large":
        large(m=64)
    x, weight, bias, g = sample(6, 3, 5, 7, seed=1, dtype=torch.bfloat16)
    x = x.round()
    x[:, 1] = (x[:, 1] - x[:, 1].median()).relu()
    x[0, 1] = torch.where(x[0, 1] == 0, -0.0, x[0, 1])  # equals 0
    x[:, 2] = 0.7
    pair = build(name)
    assert_record(check(pair, x, weight, bias, g), x, pair)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("name", ["cvar", "range", "std", "quantile_radius"])
def test_few_samples(name: str, n: int) -> None:
    x, weight, bias, g = sample(n, 2)
    check(build(name), x, weight, bias, g)


_MISLED: dict[str, Callable[[int, int, int], tuple[int, int]]] = {
    "below": lambda rank, n, m: (1, 2),
    "above": lambda rank, n, m: (m - 1, m),
    "no room": lambda rank, n, m: (0, m + 1),
}


@pytest.mark.parametrize(("name", "mode"), [("cvar", "window_centred"), ("range", "smoothed")])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("how", list(_MISLED))
def test_missed_brackets(
    how: str,
    memory_format: torch.memory_format,
    name: str,
    mode: str,
    large: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rank outside its bracket, or no room for what is inside: the channel is selected from x, exactly."""
    large(m=16)
    monkeypatch.setattr(launch_forward, "sample_ranks", _MISLED[how])
    if how == "no room":
        monkeypatch.setattr(launch_forward, "_MORE", 0)
        monkeypatch.setattr(launch_forward, "_ROOM", 0.01)
    pair = build(name, mode)
    x, weight, bias, g = sample(3, 2, 4, 5, dtype=torch.bfloat16)
    x = x.to(memory_format=memory_format)
    assert_record(check(pair, x, weight, bias, g), x, pair)


def test_a_sample_that_misleads(large: Callable[..., None], scans: list[Any]) -> None:
    """Data that hides from the sample: what is drawn is 0, the rest is not; one channel is honest."""
    large(m=32)
    x, weight, bias, g = sample(8, 2, 5, 5)
    rows = torch.zeros(200)
    drawn = torch.arange(32) * 200 // 32
    width = (torch.arange(1, 33) * 200 // 32 - drawn).clamp_min(1)
    drawn = drawn + ((torch.arange(32) * 2654435761) >> 7) % width  # as bracket.draw does
    rows[:] = torch.randn(200, generator=torch.Generator().manual_seed(0)).abs() + 1
    rows[drawn] = 0.0
    x[:, 0] = rows.view(8, 5, 5)
    check(build("mad"), x, weight, bias, g)
    below, inside = scans[0].counts.sum(-1)[:, 0]
    assert below[0] + inside[0] < 100  # the rank lies beyond the misled channel's bracket
    assert below[1] < 100 <= below[1] + inside[1]


_BAD = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("way", ["small", "large"])
@pytest.mark.parametrize(
    ("name", "bad"),
    [(name, _BAD[0]) for name in ("range", "quantile_radius")]
    + [(name, bad) for name in ("std", "cvar", "mad") for bad in _BAD]
    + [("worst_case", bad) for bad in _BAD[1:]],
)
def test_nan_and_inf_spoil_in_their_channel(
    name: str, bad: float, way: str, large: Callable[..., None]
) -> None:
    if way == "large":
        large(m=16)
    pair = build(name)
    x, weight, bias, g = sample(4, 2, 5, 2, dtype=torch.bfloat16)
    exact = wanted(pair, x, weight, bias, g)
    x[1, 0, 2, 0] = bad
    ours, _ = run(pair, x, weight, bias, g)
    assert_close(_second(ours), _second(exact), x[:, 1:])
    for k in (0, 3):  # y, as the ReLU lets a NaN pass, and dx
        assert ours[k][:, 0].isnan().all()
    for k in (1, 2, 4):
        assert ours[k][0].isnan()
    total = g[:, 0].double().sum()
    torch.testing.assert_close(
        ours[5][0].double(), total, rtol=1e-5, atol=1e-5
    )  # reads no x, as in BatchNorm


@pytest.mark.parametrize("way", ["small", "large"])
@pytest.mark.parametrize("name", ["std", "cvar", "upper_range"])
def test_values_whose_squares_float32_does_not_hold(name: str, way: str, large: Callable[..., None]) -> None:
    if way == "large":
        large(m=16)
    x, weight, bias, g = sample(4, 2, 5, 2)
    x, weight = x * 1e29, weight * 1e29
    for ours, exact in zip(
        run(build(name), x, weight, bias, g)[0], wanted(build(name), x, weight, bias, g), strict=True
    ):
        assert (ours.double() - exact).abs().max() <= 1e-5 * exact.abs().max()


def _second(results: list[Tensor]) -> list[Tensor]:
    return [t[:, 1:] if t.dim() > 1 else t[1:] for t in results]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("missing", ["weight", "bias", "both"])
def test_gain_and_bias_may_be_missing(missing: str, relu: bool) -> None:
    x, weight, bias, g = sample(4, 2, 5, 2, dtype=torch.float16)
    gain = None if missing in ("weight", "both") else weight
    shift = None if missing in ("bias", "both") else bias
    check(build("cvar", "exact"), x, gain, shift, g, relu)


def test_gain_in_half_precision() -> None:
    x, weight, bias, g = sample(4, 3, 5, 2, dtype=torch.float16)
    check(build("cvar", "exact"), x, weight.half(), bias.half(), g)


def test_gradients_of_parameters_only() -> None:
    x, weight, bias, g = sample(4, 3, 5, 2)
    pair = build("cvar")
    plan = lower(pair.S, pair.D, 40)
    of = Arguments(x, weight, bias, None, plan, EPS, True)
    _, kept = gpu.forward(of)
    dx, *parts = gpu.backward(g, of, kept, False)
    assert dx is None
    for part, same in zip(parts[:2], gpu.backward(g, of, kept, True)[1:3], strict=True):
        assert torch.equal(part, same)


@pytest.mark.parametrize("way", ["small", "large"])
def test_a_large_offset_does_not_cancel(way: str, large: Callable[..., None]) -> None:
    """1e4 +- 1 in float32: what S's own rounding costs is known, and nothing else is lost."""
    if way == "large":
        large(m=64)
    for name in ("cvar", "std", "range"):
        pair = build(name)
        x, weight, bias, g = sample(4, 2, 8, 8)
        x = x + 1e4
        plan = lower(pair.S, pair.D, 256)
        of = Arguments(x, weight, bias, None, plan, EPS, False)
        y, kept = gpu.forward(of)
        s, d, _, _ = kept
        dx = gpu.backward(g, of, kept, True).x
        wide = x.double().requires_grad_()
        want, exact_s, exact_d = reference.normalize(
            wide, weight.double(), bias.double(), pair.S, pair.D, EPS
        )
        (exact_dx,) = torch.autograd.grad(want, wide, g.double())
        rounding = 0.5 * EPS32 * 16384  # of a number between 8192 and 16384
        assert (s - exact_s).abs().max() <= rounding
        assert ((d - exact_d).abs() <= 8 * EPS32 * (wide - 1e4).abs().max()).all()
        off = rounding * (weight / exact_d).max() if name != "cvar" else 0.0  # its S is a sample
        assert (y - want).abs().max() <= off + 8 * EPS32 * want.abs().max()
        assert dx is not None
        assert (dx - exact_dx).abs().max() <= (16 * EPS32 + off) * exact_dx.abs().max()


def test_the_sample_at_s_gives_the_bias() -> None:
    x, weight, bias, _ = sample(4, 3, 5, 5)
    pair = build("cvar")
    y, (s, *_) = gpu.forward(Arguments(x, weight, bias, None, lower(pair.S, pair.D, 100), EPS, False))
    at = x == s.view(1, 3, 1, 1)
    assert at.sum() == 3
    assert torch.equal(y[at].sort()[0], bias.sort()[0])


def test_is_deterministic(large: Callable[..., None]) -> None:
    large(m=128)
    x, weight, bias, g = sample(8, 2, 9, 9, dtype=torch.bfloat16)
    pair = build("cvar")
    runs = [run(pair, x, weight, bias, g)[0] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("act", [None, "relu", "silu"])
def test_through_autograd(act: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a layer calls, with these kernels in the place of the CPU's."""
    monkeypatch.setattr(autograd, "backend", lambda device_type: gpu)
    monkeypatch.setattr(gpu, "serves", lambda x: True)
    x, weight, bias, g = sample(4, 3, 5, 2)
    pair = build("cvar")
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    with kernels.using("auto"):
        y, _, _ = kernels.normalize(*leaves, pair.S, pair.D, EPS, act)
    wide = [t.double().requires_grad_() for t in (x, weight, bias)]
    with kernels.using("reference"):
        want, _, _ = kernels.normalize(*wide, pair.S, pair.D, EPS, act)
    got = [y, *torch.autograd.grad(y, leaves, g)]
    for ours, exact in zip(got, [want, *torch.autograd.grad(want, wide, g.double())], strict=True):
        assert (ours - exact).abs().max() <= 16 * EPS32 * exact.abs().max().clamp_min(1.0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("act", [None, "relu"])
def test_instance_enhancement(
    act: str | None, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate of torch's operations around these kernels; its rounding and theirs."""
    monkeypatch.setattr(autograd, "backend", lambda device_type: gpu)
    monkeypatch.setattr(gpu, "serves", lambda x: True)
    x, weight, bias, g = sample(4, 3, 5, 2)
    gate = torch.linspace(-1, 1, 3), torch.linspace(0, -2, 3)
    pair, results = build("cvar"), []
    for choice, wide in (("auto", False), ("reference", True)):
        given = (x.contiguous(memory_format=memory_format), weight, bias, *gate)
        leaves = [(t.double() if wide else t.clone()).requires_grad_() for t in given]
        with kernels.using(choice):
            y, s, d = kernels.normalize(*leaves[:3], pair.S, pair.D, EPS, act, tuple(leaves[3:]))
        results.append([y, s, d, *torch.autograd.grad(y, leaves, g.to(y.dtype))])
    for ours, exact in zip(*results, strict=True):
        assert (ours - exact).abs().max() <= 32 * EPS32 * exact.abs().max().clamp_min(1.0)


def test_serves_cuda_tensors_only() -> None:
    assert not gpu.serves(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("shape", "served"),
    [
        ((2, 2**22), True),
        ((2, 2**22 + 1), False),
        ((1016, 2**21), True),
        ((1017, 2**21), False),
        ((0, 3), False),
        ((3,), False),
    ],
)
def test_serves_what_32_bits_number(shape: tuple[int, ...], served: bool) -> None:
    with FakeTensorMode():
        assert gpu.serves(torch.empty(shape, device="cuda")) == served


def test_what_iterates_is_left_to_torch() -> None:
    x, weight, bias, _ = sample(4, 2, 5, 3)
    for name in FUSED:
        pair = build(name)
        assert gpu.ready(x, False, pair.S, pair.D) == (name in SERVED)
    of = Arguments(x, weight, bias, None, lower(pair.S, pair.D, 60), EPS, True)
    with pytest.raises(RuntimeError, match="compile under GBN_KERNELS=reference"):
        gpu.forward(of)


def test_many_order_statistics_are_left_to_torch() -> None:
    """Sixteen live in registers; a mixture of eight superquantiles has three times eight."""
    x = sample(4, 2, 5, 3)[0]
    for number, found in ((5, True), (8, False)):
        pair = risk.quadrangle(
            "mixed_cvar",
            weights=[1 / number] * number,
            alphas=[(i + 0.5) / number for i in range(number)],
            quantile_gradient="window_centred",
        )
        plan = lower(pair.S, pair.D, 50_000)
        assert schedule(plan).joint.ranks
        assert has_kernels(plan) == gpu.ready(x, False, pair.S, pair.D) == found


def test_without_a_c_compiler_the_reference_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Triton builds its part of a launch with one: an error at the first launch would end the training."""

    class Broken(DriverConfig):  # type: ignore[misc]
        @property
        def active(self) -> Any:
            raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(runtime, "driver", Broken())
    monkeypatch.setattr(autograd, "_WORKS", {})
    assert kernels.selected("cuda") == "reference"
    assert "triton does not work here (RuntimeError: Failed to find C compiler.)" in caplog.text


def test_brackets_hold_what_they_promise() -> None:
    """Bounds of the target ranks, and how often a rank leaves its bracket: seldom, by a binomial count."""
    for n, m in ((20_000, 2048), (800_000, 16_384)):
        for rank in (1, 2, n // 10, n // 2, n - 1, n):
            low, high = bracket.sample_ranks(rank, n, m)
            assert 0 <= low < high <= m + 1
            # samples below the rank's value: within low and high - 1, by 4 standard deviations and more
            share = torch.distributions.Binomial(m, torch.tensor((rank - 1) / n if rank > 1 else 1e-9))
            torch.manual_seed(0)
            drawn = share.sample((20_000,))
            assert ((drawn < low) | (drawn >= high)).double().mean() <= 5e-4
    assert bracket.sample_size(20_000) == 2048
    assert bracket.sample_size(10**8) == 16_384
