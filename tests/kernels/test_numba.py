"""The fused CPU kernels against the float64 reference: every pair, dtype and layout, and what lies at the edges."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from gbn import kernels, risk
from gbn.kernels import numba as cpu
from gbn.kernels.backend import Arguments
from gbn.kernels.plan import lower
from gbn.risk.order import rank
from gbn.risk.parameters import QUADRANGLE_PARAMETERS
from tests.kernels.fused import FUSED

EPS = 1e-3  # large enough to be seen in every comparison
PAIRS = [
    pytest.param(name, mode, id=name if mode is None else f"{name}-{mode}")
    for name in FUSED
    for mode in (risk.GRADIENT_MODES if "quantile_gradient" in QUADRANGLE_PARAMETERS[name] else (None,))
]
LAYOUTS: dict[str, tuple[tuple[int, ...], torch.memory_format]] = {
    "planes of odd size": ((16, 5, 7, 9), torch.contiguous_format),
    "planes below a vector": ((4, 3, 5, 2), torch.contiguous_format),
    "planes of one vector": ((130, 3, 4, 4), torch.contiguous_format),
    "planes read as they lie": ((6, 3, 20, 21), torch.contiguous_format),
    "channels last, more than 16": ((5, 18, 6, 7), torch.channels_last),
    "channels last, fewer": ((16, 5, 7, 9), torch.channels_last),
    "no spatial dimension": ((40, 18), torch.contiguous_format),
    "one value an image": ((33, 2, 1, 1), torch.contiguous_format),
    "one dimension": ((9, 4, 37), torch.contiguous_format),
    "three dimensions": ((2, 5, 3, 2, 4), torch.channels_last_3d),
    "one channel": ((4, 1, 30, 30), torch.contiguous_format),
    "one image": ((1, 4, 17, 16), torch.contiguous_format),
    "two samples": ((2, 3), torch.contiguous_format),
}


def build(name: str, mode: str | None = None) -> risk.Quadrangle:
    return risk.quadrangle(name, **({} if mode is None else {"quantile_gradient": mode}))


def sample(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """x (skewed, channels of different scale and place), cotangent, weight and bias; the last two float32."""
    make = torch.Generator().manual_seed(seed)
    c = shape[1]
    per_channel = (1, c, *[1] * (len(shape) - 2))
    x = torch.randn(shape, generator=make, dtype=torch.float64).exp()
    x = x * torch.linspace(0.5, 3, c, dtype=torch.float64).view(per_channel)
    x = x + torch.linspace(-2, 2, c, dtype=torch.float64).view(per_channel)
    cotangent = torch.randn(shape, generator=make, dtype=torch.float64)
    return (
        x.to(dtype),
        cotangent.to(dtype),
        torch.rand(c, generator=make) + 0.5,
        torch.randn(c, generator=make),
    )


Results = dict[str, Tensor]


def results(
    x: Tensor,
    cotangent: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    pair: risk.Quadrangle,
    act: str | None = None,
    eps: float = EPS,
) -> Results:
    """y, S, D and all gradients by whatever kernel serves x."""
    leaves = {"dx": x.detach().clone(memory_format=torch.preserve_format), "dweight": weight, "dbias": bias}
    leaves = {key: leaf.detach().requires_grad_() for key, leaf in leaves.items() if leaf is not None}
    y, s, d = kernels.normalize(
        leaves["dx"], leaves.get("dweight"), leaves.get("dbias"), pair.S, pair.D, eps, act
    )
    gradients = torch.autograd.grad(y, list(leaves.values()), cotangent)
    return {"y": y.detach(), "S": s, "D": d, **dict(zip(leaves, gradients, strict=True))}


def exact(x: Tensor, cotangent: Tensor, weight: Any, bias: Any, *rest: Any) -> Results:
    """The same in float64, which the reference serves."""
    assert kernels.implementation(x.double(), rest[0].S, rest[0].D) == "reference"
    wide = [None if t is None else t.double() for t in (x, cotangent, weight, bias)]
    return results(*wide, *rest)


def assert_near(got: Results, wanted: Results, dtype: torch.dtype, largest: float = 1.0) -> None:
    """Each within one rounding in its dtype and a few tens in float32, relative to its largest value.

    ``largest`` is that of the terms that add up to a result, where they are larger than the result. float32 sums
    run over 128 terms a lane and go on in float64, so the number of samples does not enter.
    """
    tolerance = torch.finfo(dtype).eps + 40 * torch.finfo(torch.float32).eps
    assert got.keys() == wanted.keys()
    for key, value in got.items():
        error = (value.double() - wanted[key]).abs().max()
        assert error <= tolerance * wanted[key].abs().max().clamp_min(largest), f"{key}: {error}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_equals_the_reference(name: str, mode: str | None, layout: str, dtype: torch.dtype) -> None:
    pair, (shape, memory_format) = build(name, mode), LAYOUTS[layout]
    x, cotangent, weight, bias = sample(*shape, dtype=dtype)
    x = x.contiguous(memory_format=memory_format)
    assert kernels.implementation(x, pair.S, pair.D) == "numba"
    got, wanted = (f(x, cotangent, weight, bias, pair) for f in (results, exact))
    # dx is a difference of terms of the size of g / D
    largest = (cotangent.abs().max() / (wanted["D"].min() + EPS)).clamp_min(1.0).item()
    assert_near(got, wanted, dtype, largest)
    for key in ("y", "dx"):
        assert got[key].dtype == dtype
        assert got[key].stride() == x.stride()
    assert all(got[key].dtype == torch.float32 for key in ("S", "D", "dweight", "dbias"))


@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_ties_and_constants(name: str, mode: str | None) -> None:
    """Few distinct values, as after a ReLU or in low precision; one channel is constant."""
    pair = build(name, mode)
    x, cotangent, weight, bias = sample(6, 3, 8, 8, seed=1)
    x = x.round()
    x[:, 1] = x[:, 1].clamp_min(x[:, 1].median())
    x[:, 2] = 0.75
    got = results(x, cotangent, weight, bias, pair)
    assert all(value.isfinite().all() for value in got.values())
    assert_near(got, exact(x, cotangent, weight, bias, pair), torch.float32)


@pytest.mark.parametrize("mode", risk.GRADIENT_MODES)
@pytest.mark.parametrize("deviation", list(risk.DEVIATIONS))
@pytest.mark.parametrize("statistic", ["mean", "quantile", "midrange", "huber", "entropic", "expectile"])
def test_free_pairs(statistic: str, deviation: str, mode: str) -> None:
    def made(make: Callable[..., Any], name: str) -> Any:
        try:
            return make(name, quantile_gradient=mode)
        except ValueError:
            return make(name)

    pair = risk.compose(made(risk.statistic, statistic), made(risk.deviation, deviation))
    x, cotangent, weight, bias = sample(6, 3, 9, 8, seed=2)
    assert_near(
        results(x, cotangent, weight, bias, pair), exact(x, cotangent, weight, bias, pair), torch.float32
    )


@pytest.mark.parametrize("act", [None, *kernels.ACTIVATIONS])
@pytest.mark.parametrize("name", ["std", "cvar"])
def test_activations(name: str, act: str | None) -> None:
    x, cotangent, weight, bias = sample(8, 3, 18, 17)
    pair = build(name)
    assert_near(
        results(x, cotangent, weight, bias, pair, act),
        exact(x, cotangent, weight, bias, pair, act),
        torch.float32,
    )


def test_relu_passes_exactly_the_share_above_the_quantile() -> None:
    pair = risk.quadrangle("cvar", alpha=0.75)
    x = torch.randn(16, 2, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y, s, _ = kernels.normalize(x, None, None, pair.S, pair.D, EPS, "relu")
    assert ((y > 0).sum((0, 2, 3)) == x[:, 0].numel() // 4).all()
    (dx,) = torch.autograd.grad(y, x, torch.zeros_like(y))
    assert (dx == 0).all()
    assert torch.equal((x > s.view(1, 2, 1, 1)), y > 0)


@pytest.mark.parametrize("missing", ["weight", "bias", "both"])
def test_gain_and_bias_may_be_missing(missing: str) -> None:
    x, cotangent, weight, bias = sample(4, 3, 5, 20)
    gain = None if missing in ("weight", "both") else weight
    shift = None if missing in ("bias", "both") else bias
    pair = build("cvar")
    assert_near(
        results(x, cotangent, gain, shift, pair, "relu"),
        exact(x, cotangent, gain, shift, pair, "relu"),
        torch.float32,
    )


def test_what_needs_no_gradient_gets_none() -> None:
    pair = build("cvar")
    x, cotangent, weight, bias = sample(4, 3, 5, 2)
    wanted = results(x, cotangent, weight, bias, pair)
    y, _, _ = kernels.normalize(x, weight.requires_grad_(), bias, pair.S, pair.D, EPS)
    (dweight,) = torch.autograd.grad(y, [weight], cotangent)  # as in the first layer: images need none
    assert torch.equal(dweight, wanted["dweight"])
    with torch.no_grad():
        assert kernels.normalize(x, weight, bias, pair.S, pair.D, EPS)[0].grad_fn is None


def test_half_precision_parameters_get_their_gradients_in_kind() -> None:
    pair = build("cvar")
    x, cotangent, weight, bias = sample(8, 3, 5, 4, dtype=torch.bfloat16)
    got = results(x, cotangent, weight.bfloat16(), bias.bfloat16(), pair)
    assert (got["dweight"].dtype, got["dbias"].dtype) == (torch.bfloat16, torch.bfloat16)


@pytest.mark.parametrize("given_as", ["strided", "expanded", "channels_last"])
def test_inputs_in_any_memory_format(given_as: str) -> None:
    pair = build("cvar")
    x, cotangent, weight, bias = sample(4, 6, 8, 10)
    wanted = exact(x, cotangent, weight, bias, pair)
    if given_as == "strided":
        wide, space = torch.zeros(4, 12, 8, 30), torch.zeros(4, 12, 8, 30)
        x, cotangent = wide[:, ::2, :, 1::3].copy_(x), space[:, 1::2, :, ::3].copy_(cotangent)
    if given_as == "expanded":  # as y.sum() gives it
        cotangent = torch.ones(()).expand_as(x)
        wanted = exact(x, cotangent, weight, bias, pair)
    if given_as == "channels_last":  # the cotangent in another format than x
        cotangent = cotangent.contiguous(memory_format=torch.channels_last)
    assert_near(results(x, cotangent, weight, bias, pair), wanted, torch.float32)


def test_large_tensors_are_written_past_the_caches() -> None:
    """From 2 MiB on another store is used; the numbers are the same, image by image."""
    pair = build("cvar")
    for shape in ((40, 16, 32, 32), (32, 80, 16, 16), (300, 128, 4, 4)):
        x, cotangent, weight, bias = sample(*shape)
        assert 4 * x.numel() >= 2 << 20
        assert_near(
            results(x, cotangent, weight, bias, pair, "relu"),
            exact(x, cotangent, weight, bias, pair, "relu"),
            torch.float32,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["std", "cvar", "entropic", "expectile"])
def test_large_tensors_with_channels_side_by_side_are_worked_on_in_spans(
    name: str, dtype: torch.dtype
) -> None:
    x, cotangent, weight, bias = sample(12, 24, 40, 40, dtype=dtype)
    x, pair = x.contiguous(memory_format=torch.channels_last), build(name)
    got, wanted = (f(x, cotangent, weight, bias, pair, "relu") for f in (results, exact))
    # a result that half precision rounds across 0 switches its ReLU, as in the reference
    assert_near({k: got[k] for k in ("y", "S", "D")}, {k: wanted[k] for k in ("y", "S", "D")}, dtype)
    for key in ("dx", "dweight", "dbias"):
        error = torch.linalg.vector_norm(got[key].double() - wanted[key])
        assert error <= 2 * torch.finfo(dtype).eps * torch.linalg.vector_norm(wanted[key]) + 1e-4, key


def test_large_offset_does_not_cancel() -> None:
    """Values around 1e4 with spread 1: what is lost is the input's own rounding, not more."""
    for name in risk.QUADRANGLES:
        if name == "entropic":
            continue  # exp(1e4)'s logarithm: float32 knows S to 1e-3, and D is a difference to it
        x, cotangent, weight, bias = sample(16, 2, 16, 16)
        x = x + 1e4
        got, wanted = (f(x, cotangent, weight, bias, build(name)) for f in (results, exact))
        for key in ("y", "D", "dx"):
            # A mean is kept in float32 and may be off by half an ulp of 1e4, 5e-4, and no more. As a norm: such a
            # shift may tie one sample with a breakpoint of the derivative.
            error = torch.linalg.vector_norm(got[key] - wanted[key])
            assert error < 2e-3 * torch.linalg.vector_norm(wanted[key]), (name, key)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("name", ["mad", "cvar", "range", "mean_mad"])
def test_extreme_scales(name: str, scale: float) -> None:
    """Sums neither overflow nor vanish."""
    x, cotangent, weight, bias = sample(8, 2, 16, 17)
    x = (x.double() * scale).float()
    got, wanted = (f(x, cotangent, weight, bias, build(name), None, 0.0) for f in (results, exact))
    for key in ("y", "S", "D"):
        error = (got[key].double() - wanted[key]).abs().max() / wanted[key].abs().max()
        assert error < 1e-5, (key, error)


def test_threads_change_nothing() -> None:
    before = torch.get_num_threads()
    for shape, memory_format in (
        ((8, 7, 20, 20), torch.contiguous_format),
        ((8, 40, 9, 9), torch.channels_last),
    ):
        x, cotangent, weight, bias = sample(*shape)
        x = x.contiguous(memory_format=memory_format)
        runs = []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                runs.append(results(x, cotangent, weight, bias, build("cvar"), "relu"))
        finally:
            torch.set_num_threads(before)
        for run in runs[1:]:
            assert all(torch.equal(run[key], runs[0][key]) for key in run)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_without_an_openmp_runtime_threads_of_our_own_serve(
    memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gbn.kernels.numba import launch

    x, cotangent, weight, bias = sample(8, 40, 9, 9)
    x = x.contiguous(memory_format=memory_format)
    wanted = results(x, cotangent, weight, bias, build("cvar"))
    monkeypatch.setattr(launch, "_parallel", lambda: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    launch._pool.cache_clear()
    got = results(x, cotangent, weight, bias, build("cvar"))
    assert launch._pool.cache_info().currsize == 1
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_the_openmp_runtime_is_found_with_and_without_a_list_of_what_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS and Windows have no /proc/self/maps; names in it may have blanks; what is found needs the function."""
    import ctypes

    from gbn.kernels.numba import launch

    def found() -> int | None:
        function = launch._parallel.__wrapped__()
        return function and ctypes.cast(function, ctypes.c_void_p).value

    runtimes = [path for path in (Path(torch.__file__).parent / "lib").glob("lib*omp*") if path.is_file()]
    if found() is None or not runtimes:
        pytest.skip("torch brings no OpenMP runtime of its own here")
    monkeypatch.setattr(launch, "_MAPS", tmp_path / "none")
    beside = found()
    assert beside is not None
    monkeypatch.setattr(launch, "_MAPS", maps := tmp_path / "maps")
    moved = tmp_path / "my own" / runtimes[0].name
    moved.parent.mkdir()
    moved.write_bytes(runtimes[0].read_bytes())
    maps.write_text(f"7f0-7f1 r-xp 00000000 08:01 42    {moved}\n", encoding="utf-8")
    assert found() not in (None, beside)
    (tmp_path / "libomp.so").write_bytes(b"no library")
    maps.write_text(f"7f0-7f1 r-xp 00000000 08:01 42    {tmp_path / 'libomp.so'}\n", encoding="utf-8")
    assert found() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    code = """
import os
from gbn.kernels.numba import launch
assert list(launch._pool(2).map(abs, [-1, 2])) == [1, 2]
child = os.fork()
if child == 0:
    os._exit(0 if list(launch._pool(2).map(abs, [-3])) == [3] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=600)


def test_the_threads_are_those_of_torch() -> None:
    """Another package's OpenMP runtime may be loaded too; the one beside torch is taken."""
    import ctypes

    import sklearn.neighbors  # noqa: F401 - brings a runtime of its own

    from gbn.kernels.numba import launch

    found = launch._parallel.__wrapped__()
    if found is None:
        pytest.skip("torch's threads are not OpenMP's here")

    class Info(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_char_p),
            ("base", ctypes.c_void_p),
            ("symbol", ctypes.c_char_p),
            ("at", ctypes.c_void_p),
        )

    info = Info()
    ctypes.CDLL(None).dladdr(ctypes.cast(found, ctypes.c_void_p), ctypes.byref(info))
    assert str(Path(torch.__file__).parent) in info.name.decode()


def test_a_plan_lives_as_long_as_what_points_to_it() -> None:
    """The compiled code reads a plan's numbers from tables, which must outlive the cache that they came from."""
    import weakref

    from gbn.kernels.numba import launch
    from gbn.kernels.numba.encode import encoded

    launch._template.cache_clear()
    x, *_ = sample(8, 3, 9, 9)
    pair = build("cvar")
    kernels.normalize(x, None, None, pair.S, pair.D, EPS)
    tables = weakref.ref(encoded(lower(pair.S, pair.D, 8 * 81)))
    encoded.cache_clear()
    assert tables() is not None
    launch._template.cache_clear()
    assert tables() is None


def test_a_default_dtype_of_float64_changes_nothing() -> None:
    x, cotangent, weight, bias = sample(8, 3, 9, 9)
    wanted = results(x, cotangent, weight, bias, build("cvar"))
    torch.set_default_dtype(torch.float64)
    try:
        got = results(x, cotangent, weight, bias, build("cvar"))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(got[key], wanted[key]) and got[key].dtype == torch.float32 for key in wanted)


def test_calls_from_several_python_threads_do_not_meet() -> None:
    pair = build("cvar")
    inputs = [sample(8, 5, 24, 24, seed=seed) for seed in range(4)]
    wanted = [results(*one, pair, "relu") for one in inputs]
    wrong: list[str] = []

    def work(i: int) -> None:
        for _ in range(10):
            got = results(*inputs[i], pair, "relu")
            wrong.extend(key for key in got if not torch.equal(got[key], wanted[i][key]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_keeps_no_more_for_the_backward_pass_than_x_and_the_record() -> None:
    pair = build("cvar")
    x, _, weight, bias = sample(8, 3, 16, 16)
    x, weight, bias = x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        kernels.normalize(x, weight, bias, pair.S, pair.D, EPS, "relu")
    assert [t.data_ptr() for t in kept if t.numel() > 100] == [x.data_ptr()]


def test_second_derivative_is_refused_not_wrong() -> None:
    pair = build("cvar")
    x, cotangent, weight, bias = sample(4, 3, 5, 2)
    y, _, _ = kernels.normalize(x.requires_grad_(), weight, bias, pair.S, pair.D, EPS)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(y, x, cotangent, create_graph=True)


def _data(kind: str, n: int, seed: int) -> Tensor:
    """Samples that a selection by sampling and interpolation may find hard."""
    make = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=make)
    if kind == "few values":
        return torch.randint(-2, 3, (n,), generator=make).float()
    if kind == "one value":
        return torch.full((n,), 0.3)
    if kind == "sorted":
        return x.sort()[0]
    if kind == "heavy tails":
        return x / torch.randn(n, generator=make).square()
    if kind == "all magnitudes":
        return x.sign() * torch.exp(40 * torch.randn(n, generator=make)).clamp(1e-44, 3e38)
    if kind == "two far clusters":
        return torch.where(torch.rand(n, generator=make) < 0.6, x, x + 1e6)
    if kind == "periodic":  # in step with evenly spaced sampling, as images are
        return (torch.arange(n) % 32).float() + 0.001 * x
    if kind == "signed zeros":
        return torch.where(x > 0.5, x, torch.zeros(()) * x.sign())
    if kind == "ends of float32":
        most = torch.finfo(torch.float32).max
        return torch.where(x > 1.0, most, torch.where(x < -1.0, -most, x))
    return x


KINDS = (
    "normal",
    "few values",
    "one value",
    "sorted",
    "heavy tails",
    "all magnitudes",
    "two far clusters",
    "periodic",
    "signed zeros",
    "ends of float32",
)


@pytest.mark.parametrize("kind", KINDS)
@given(
    n=st.integers(1, 20_000),
    alpha=st.floats(0.001, 0.999),
    window=st.floats(0.001, 0.4),
    seed=st.integers(0, 99),
)
@example(n=4097, alpha=0.5, window=0.1, seed=0)  # around the lengths where the way of searching changes
@example(n=8193, alpha=0.999, window=0.01, seed=0)
@example(n=131_072, alpha=0.75, window=0.1, seed=0)
@example(n=2, alpha=0.5, window=0.4, seed=0)
def test_order_statistics_are_exact(kind: str, n: int, alpha: float, window: float, seed: int) -> None:
    """Whatever the data, S is the very sample of rank ceil(n alpha), and the window's edges those of theirs."""
    x = _data(kind, n, seed)
    ordered = x.sort()[0]
    statistic = risk.statistic("quantile", alpha=alpha, quantile_gradient="window", window=window)
    plan = lower(statistic, risk.deviation("cvar", alpha=alpha), n)
    _, (s, _, record, _) = cpu.forward(Arguments(x.view(1, 1, n), None, None, None, plan, 0.0, False))
    term = plan.statistic.terms[0]
    assert s.item() == ordered[term.rank - 1].item()
    edges = record[0, 7::5][:2]
    assert edges.tolist() == [ordered[term.low - 1].item(), ordered[term.high - 1].item()]


def test_a_sample_that_misleads_costs_time_only() -> None:
    """Every value that the sample takes lies far above all others: each bracket misses."""
    n = 1 << 14
    x = torch.randn(n, generator=torch.Generator().manual_seed(0))
    m = 16 * math.ceil(n ** (2 / 3) / 16)
    step = n // m - (1 - n // m % 2)
    x[step // 2 :: step] += 1e3
    pair = build("cvar")
    _, s, d = kernels.normalize(x.view(1, 1, n), None, None, pair.S, pair.D, EPS)
    assert s.item() == x.sort()[0][rank(n, 0.75) - 1].item()
    torch.testing.assert_close(d.double(), pair.D(x.double()).view(1), rtol=1e-5, atol=0)
