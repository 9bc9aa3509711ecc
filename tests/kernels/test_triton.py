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
from typing import Any

import pytest
import torch
from torch import Tensor

if importlib.util.find_spec("triton") is None:
    pytest.skip("needs triton (it need not be the GPU's): pip install triton", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") != "1":
    if torch.cuda.is_available():
        pytest.skip("a GPU is here: tests/kernels/test_gpu.py runs what is compiled", allow_module_level=True)
    if "triton.language" in sys.modules:
        pytest.skip("triton was imported to compile: set TRITON_INTERPRET=1", allow_module_level=True)
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton and the kernels are imported

from gbn import kernels, risk
from gbn.kernels import fused, gpu, reference
from gbn.kernels.describe import describe
from gbn.kernels.gpu import bracket, geometry, launch_forward
from gbn.kernels.plan import HEAD, POINT, Plan, lower
from gbn.risk.parameters import QUADRANGLE_PARAMETERS

# a GPU computes with infinities and NaN silently, numpy tells of them
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:divide by zero encountered:RuntimeWarning"),
]

EPS = 1e-3  # large enough to be seen in every comparison
EPS32 = torch.finfo(torch.float32).eps
FAST = [n for n in risk.QUADRANGLES if "quantile_gradient" in QUADRANGLE_PARAMETERS[n] or n == "std"]
PAIRS = [
    pytest.param(name, mode, id=name if mode is None else f"{name}-{mode}")
    for name in risk.QUADRANGLES
    for mode in (risk.GRADIENT_MODES if "quantile_gradient" in QUADRANGLE_PARAMETERS[name] else (None,))
]
FAST_PAIRS = [case for case in PAIRS if case.values[0] in FAST]


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

    def choose(m: int = 32, programs: int = 4) -> None:
        monkeypatch.setattr(launch_forward, "_SMALL", 0)
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


def both(
    pair: risk.Quadrangle,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    g: Tensor,
    relu: bool = True,
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """y, S, D, dx, dweight, dbias of the kernels, and of the reference in float64."""
    plan = lower(pair.S, pair.D, x.numel() // x.shape[1])
    y, s, d, record = gpu.forward(x, weight, bias, plan, EPS, relu)
    assert record.shape == (x.shape[1], plan.record)
    assert record.dtype == s.dtype == d.dtype == torch.float32
    assert (y.dtype, y.stride()) == (x.dtype, torch.empty_like(x).stride())
    ours = [y, s, d, *gpu.backward(g, x, weight, bias, s, d, record, plan, EPS, relu, True)]
    assert ours[3] is not None
    assert (ours[3].dtype, ours[3].stride()) == (x.dtype, y.stride())
    channels = x.shape[1]
    wide = x.double().requires_grad_()
    gain = (torch.ones(channels) if weight is None else weight).double().requires_grad_()
    shift = (torch.zeros(channels) if bias is None else bias).double().requires_grad_()
    y, s, d = reference.normalize(wide, gain, shift, pair.S, pair.D, EPS, "relu" if relu else None)
    return ours, [y.detach(), s, d, *torch.autograd.grad(y, (wide, gain, shift), g.double())]


def assert_close(
    ours: list[Tensor | None], exact: list[Tensor | None], x: Tensor, *, rounds: int = 8
) -> None:
    """Within one rounding to x's dtype (y, dx), and float32's of the numbers that they are made of.

    The latter: S is rounded (half an eps of the largest sample), x - S, the scale, the product, the sum with the
    bias or with f(x), and the sums, whose float32 parts are at most 32 terms long and joined in float64: 8 eps of
    the largest value of each.
    """
    largest = x.double().nan_to_num(0, 0, 0).abs().max()
    for place, (a, b) in enumerate(zip(ours, exact, strict=True)):
        assert a is not None
        assert b is not None
        size = torch.maximum(b.abs().max(), largest if place in (0, 1, 2) else torch.tensor(1.0))
        tolerance = rounds * EPS32 + (torch.finfo(x.dtype).eps if place in (0, 3) else 0.0)
        assert (a.double() - b).abs().max() <= tolerance * size, ("y", "S", "D", "dx", "dweight", "dbias")[
            place
        ]


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


def assert_measures(x: Tensor, plan: Plan) -> None:
    """S, D and what the record says of every sample, against the eager measuring in float64."""
    _, s, d, record = gpu.forward(x, None, None, plan, EPS, False)
    rows = x.transpose(0, 1).flatten(1)
    exact_s, exact_d, exact_record = describe(rows.double(), plan)
    # S: rounded once; D: 8 roundings of float32 sums, of the size of the samples' distance from their middle
    assert (s - exact_s).abs().max() <= EPS32 * rows.double().abs().max()
    assert (d - exact_d).abs().max() <= 8 * EPS32 * (rows.double() - exact_s[:, None]).abs().max()
    # each coefficient is rounded, and in a narrow window the tilt inherits 8 roundings of the window's variance
    for got, want in zip(read(record, rows, s, plan), read(exact_record, rows, exact_s, plan), strict=True):
        assert (got - want).abs().max() <= 32 * EPS32 * want.abs().max().clamp_min(1 / plan.n)


@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_small_inputs(name: str, mode: str | None) -> None:
    x, weight, bias, g = sample(3, 2, 3, 5)
    assert_close(*both(build(name, mode), x, weight, bias, g), x)


@pytest.mark.parametrize(("name", "mode"), FAST_PAIRS)
def test_large_inputs(name: str, mode: str | None, large: Callable[..., None]) -> None:
    """In bfloat16, which has ties in every bracket; counts, sums and the record in float32 all the same."""
    large()
    x, weight, bias, g = sample(4, 2, 5, 5, dtype=torch.bfloat16)
    pair = build(name, mode)
    assert_close(*both(pair, x, weight, bias, g), x)
    assert_measures(x, lower(pair.S, pair.D, 100))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["cvar", "range", "std", "mixed_cvar"])
def test_several_tiles_and_programs(
    name: str, memory_format: torch.memory_format, large: Callable[..., None]
) -> None:
    """Each program has several tiles, the last one not full; brackets are narrow and hold a few samples."""
    large(m=512, programs=3)
    x, weight, bias, g = sample(5, 3, 29, 31)
    x, g = x.to(memory_format=memory_format), g.to(memory_format=memory_format)
    assert_close(*both(build(name), x, weight, bias, g), x)


@pytest.mark.parametrize("way", ["small", "large"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("shape", "memory_format"),
    [
        ((4, 5, 6, 3), torch.channels_last),
        ((4, 5, 6, 3), torch.contiguous_format),
        ((2, 3, 3, 2, 4), torch.channels_last_3d),
        ((37, 5), torch.contiguous_format),
        ((4, 3, 7), torch.contiguous_format),
        ((1, 3, 5, 5), torch.contiguous_format),
        ((5, 1, 5, 3), torch.channels_last),
        ((6, 3, 1, 1), torch.channels_last),
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
    if dtype == torch.float32 and way == "large" and shape != (4, 5, 6, 3):
        pytest.skip("covered by the other dtypes")  # the interpreter's time
    x, weight, bias, g = sample(*shape, dtype=dtype)
    x = x.to(memory_format=memory_format)
    assert_close(*both(build("cvar"), x, weight, bias, g), x)


def test_inputs_that_lie_in_no_known_format() -> None:
    """Strided views are copied; a dense permutation comes back in its own strides."""
    x, weight, bias, g = sample(4, 6, 5, 8)
    view = x[:, ::2, :, 1::3]
    assert_close(*both(build("cvar"), view, weight[::2], bias[::2], g[:, ::2, :, 1::3]), view)
    turned = x.permute(3, 1, 2, 0)
    assert_close(*both(build("cvar"), turned, weight, bias, g.permute(3, 1, 2, 0)), turned)
    expanded = torch.ones(()).expand(x.shape)  # the cotangent of a sum
    assert_close(*both(build("cvar"), x, weight, bias, expanded), x)


@pytest.mark.parametrize("way", ["small", "large"])
@pytest.mark.parametrize("name", ["cvar", "mad", "range", "std", "quantile_radius"])
def test_tied_samples(name: str, way: str, large: Callable[..., None]) -> None:
    """Few distinct values, half of a channel at its lowest, as after a ReLU; the last channel is constant.

    Brackets are single numbers then, whose samples are counted and not collected.
    """
    if way == "large":
        large(m=64)
    x, weight, bias, g = sample(6, 3, 5, 7, seed=1)
    x = x.round()
    x[:, 1] = x[:, 1].clamp_min(x[:, 1].median())
    x[:, 2] = 0.7
    x[0, 0, 0] = -0.0  # equals 0
    assert_close(*both(build(name), x, weight, bias, g), x)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("name", ["cvar", "range", "std", "quantile_radius", "expectile", "huber"])
def test_few_samples(name: str, n: int) -> None:
    x, weight, bias, g = sample(n, 2)
    assert_close(*both(build(name), x, weight, bias, g), x)


class _Misled:
    """Bracket ranks that miss: what every kind of failure would look like."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __call__(self, rank: int, n: int, m: int) -> tuple[int, int]:
        low, high = bracket.sample_ranks(rank, n, m)
        if self.how == "below":
            return 1, 2
        if self.how == "above":
            return m - 1, m
        return 0, m + 1  # everything is inside, and there is no room


@pytest.mark.parametrize("how", ["below", "above", "no room"])
@pytest.mark.parametrize("mode", ["window_centred", "smoothed"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_missed_brackets(
    how: str,
    mode: str,
    memory_format: torch.memory_format,
    large: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rank outside its bracket, or no room for what is inside: the channel is selected from x, exactly."""
    large(m=32)
    monkeypatch.setattr(launch_forward, "sample_ranks", _Misled(how))
    if how == "no room":
        monkeypatch.setattr(launch_forward, "_MORE", 0)
        monkeypatch.setattr(launch_forward, "_ROOM", 0.01)
    x, weight, bias, g = sample(4, 2, 6, 7, dtype=torch.bfloat16)
    x = x.to(memory_format=memory_format)
    assert_close(*both(build("cvar", mode), x, weight, bias, g), x)
    pair = build("range", mode)
    assert_measures(x, lower(pair.S, pair.D, 168))


def test_a_sample_that_misleads(large: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
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
    counts: list[Tensor] = []
    whole = launch_forward._Scan

    class Watched(whole):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            counts.append(self.counts)

    monkeypatch.setattr(launch_forward, "_Scan", Watched)
    pair = build("cvar")
    assert_close(*both(pair, x, weight, bias, g), x)
    below, inside = counts[0].sum(-1)[:, 0]
    assert below[0] + inside[0] < 150  # the rank lies beyond the misled channel's bracket
    assert below[1] < 150 <= below[1] + inside[1]


@pytest.mark.parametrize("way", ["small", "large"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["std", "cvar", "range", "quantile_radius", "expectile", "entropic"])
def test_nan_and_inf_stay_in_their_channel(
    name: str, bad: float, way: str, large: Callable[..., None]
) -> None:
    if way == "large":
        large(m=16)
    pair = build(name)
    x, weight, bias, g = sample(4, 3, 5, 2, dtype=torch.bfloat16)
    clean = both(pair, x, weight, bias, g, relu=False)[0]
    x[1, 1, 2, 0] = bad
    plan = lower(pair.S, pair.D, 40)
    y, s, d, record = gpu.forward(x, weight, bias, plan, EPS, False)
    spoilt = [y, s, d, *gpu.backward(g, x, weight, bias, s, d, record, plan, EPS, False, True)]
    for ours, before in zip(spoilt, clean, strict=True):
        assert ours is not None
        assert before is not None
        axis = 1 if ours.dim() > 1 else 0
        assert torch.equal(ours.unbind(axis)[0], before.unbind(axis)[0])
        assert torch.equal(ours.unbind(axis)[2], before.unbind(axis)[2])
    assert not y[:, 1].isfinite().all()
    if bad != bad:
        assert all(t[:, 1].isnan().all() for t in (y, spoilt[3]))  # type: ignore[index]
        assert s[1].isnan()
        assert d[1].isnan()
        relu = gpu.forward(x, weight, bias, plan, EPS, True)[0]
        assert relu[:, 1].isnan().all()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("missing", ["weight", "bias", "both"])
def test_gain_and_bias_may_be_missing(missing: str, relu: bool) -> None:
    x, weight, bias, g = sample(4, 3, 5, 2)
    gain = None if missing in ("weight", "both") else weight
    shift = None if missing in ("bias", "both") else bias
    assert_close(*both(build("cvar"), x, gain, shift, g, relu), x)


def test_gain_in_half_precision() -> None:
    x, weight, bias, g = sample(4, 3, 5, 2, dtype=torch.float16)
    assert_close(*both(build("cvar"), x, weight.half(), bias.half(), g), x)


def test_gradients_of_parameters_only() -> None:
    x, weight, bias, g = sample(4, 3, 5, 2)
    pair = build("cvar")
    plan = lower(pair.S, pair.D, 40)
    _, s, d, record = gpu.forward(x, weight, bias, plan, EPS, True)
    arguments = (g, x, weight, bias, s, d, record, plan, EPS, True)
    dx, *parts = gpu.backward(*arguments, False)
    assert dx is None
    for part, same in zip(parts, gpu.backward(*arguments, True)[1:], strict=True):
        assert torch.equal(part, same)


@pytest.mark.parametrize("way", ["small", "large"])
def test_a_large_offset_does_not_cancel(way: str, large: Callable[..., None]) -> None:
    """1e4 +- 1 in float32: what S's own rounding costs is known, and nothing else is lost."""
    if way == "large":
        large(m=64)
    for name in ("cvar", "std", "range"):
        pair = build(name)
        x, weight, bias, g = sample(8, 2, 8, 8)
        x = x + 1e4
        plan = lower(pair.S, pair.D, 512)
        y, s, d, record = gpu.forward(x, weight, bias, plan, EPS, False)
        dx, _, _ = gpu.backward(g, x, weight, bias, s, d, record, plan, EPS, False, True)
        wide = x.double().requires_grad_()
        want, exact_s, exact_d = reference.normalize(
            wide, weight.double(), bias.double(), pair.S, pair.D, EPS
        )
        (exact_dx,) = torch.autograd.grad(want, wide, g.double())
        rounding = 0.5 * EPS32 * 16384  # of a number between 8192 and 16384
        assert (s - exact_s).abs().max() <= rounding
        assert ((d - exact_d).abs() <= 8 * EPS32 * (wide - 1e4).abs().max()).all()
        off = rounding * (weight / exact_d).max() if name == "std" else 0.0
        assert (y - want).abs().max() <= off + 8 * EPS32 * want.abs().max()
        assert dx is not None
        assert (dx - exact_dx).abs().max() <= (16 * EPS32 + off) * exact_dx.abs().max()


def test_the_sample_at_s_gives_the_bias() -> None:
    x, weight, bias, _ = sample(4, 3, 5, 5)
    pair = build("cvar")
    y, s, _, _ = gpu.forward(x, weight, bias, lower(pair.S, pair.D, 100), EPS, False)
    at = x == s.view(1, 3, 1, 1)
    assert at.sum() == 3
    assert torch.equal(y[at].sort()[0], bias.sort()[0])


def test_is_deterministic(large: Callable[..., None]) -> None:
    large(m=128)
    x, weight, bias, g = sample(8, 3, 12, 9, dtype=torch.bfloat16)
    pair = build("cvar")
    runs = [both(pair, x, weight, bias, g)[0] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("act", [None, "relu", "silu"])
def test_through_autograd(act: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a layer calls, with these kernels in the place of the CPU's."""
    monkeypatch.setattr(fused, "backend", lambda device_type: gpu)
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


def test_serves_cuda_tensors_only() -> None:
    assert not gpu.serves(torch.ones(2, 3))
    assert gpu.available() == torch.cuda.is_available()


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
