"""A channel with a value that is not finite is NaN throughout, as in BatchNorm; large finite values are finite.

The same on every path: the fused kernels in both layouts, as channels lie and copied, in half precision, gated, as
operators of a graph, and the reference in float32 and float64.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gbn import kernels
from tests.kernels.fused import FUSED
from tests.kernels.test_numba import EPS, PAIRS, build, exact, results, sample
from tests.kernels.test_numba_gated import exact as exact_gated
from tests.kernels.test_numba_gated import inputs
from tests.kernels.test_numba_gated import results as results_gated

BAD = {"+inf": [math.inf], "-inf": [-math.inf], "nan": [math.nan], "mixed": [math.inf, -math.inf, math.nan]}
PLAIN, LAST = torch.contiguous_format, torch.channels_last
#: Shape, memory format, dtype and activation: what decides how the fused kernels read a channel and find its ranks.
PATHS: dict[str, tuple[tuple[int, ...], torch.memory_format, torch.dtype, str | None]] = {
    "few samples": ((5, 3, 5, 3), PLAIN, torch.float32, "relu"),
    "planes of one vector": ((130, 3, 4, 4), PLAIN, torch.float32, None),
    "planes as they lie": ((8, 3, 30, 31), PLAIN, torch.float32, "relu"),
    "channels last": ((9, 18, 17, 29), LAST, torch.float32, "relu"),
    "few samples, channels last": ((5, 18, 5, 3), LAST, torch.float32, None),
    "no spatial dimension": ((90, 18), PLAIN, torch.float32, "relu"),
    "bfloat16": ((6, 3, 31, 29), PLAIN, torch.bfloat16, None),
    "float16, channels last": ((6, 5, 31, 29), LAST, torch.float16, "relu"),
}
C = 1  # the channel that is spoilt


def spoil(x: Tensor, values: list[float], place: float) -> Tensor:
    """x with values put into channel C from a place on (0 the first sample, 1 the last)."""
    x = x.clone(memory_format=torch.preserve_format)
    channel = x[:, C].reshape(-1)
    first = round(place * (channel.numel() - len(values)))
    channel[first : first + len(values)] = torch.tensor(values, dtype=x.dtype)
    x[:, C] = channel.view(x[:, C].shape)
    return x


def assert_spoilt(got: dict[str, Tensor], clean: dict[str, Tensor], g: Tensor) -> None:
    """Channel C is NaN but for the bias's gradient, which reads no x; nothing else has changed."""
    for key, value in got.items():
        own = value[:, C] if key in ("y", "dx") else value[C]
        if key == "dbias":
            torch.testing.assert_close(own.double(), g[:, C].double().sum(), rtol=1e-3, atol=1e-3)
        else:
            assert own.isnan().all(), key
        others = [c for c in range(g.shape[1]) if c != C]
        others = (slice(None), others) if key in ("y", "dx") else (others,)
        assert torch.equal(value[others], clean[key][others]), key


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_a_channel_is_spoilt_as_a_whole_and_alone(name: str, mode: str | None, path: str) -> None:
    shape, layout, dtype, act = PATHS[path]
    x, g, weight, bias = sample(*shape, dtype=dtype)
    x, pair = x.contiguous(memory_format=layout), build(name, mode)
    assert kernels.implementation(x, pair.S, pair.D) == "numba"
    clean = results(x, g, weight, bias, pair, act)
    for values, place in zip(BAD.values(), (0.0, 1.0, 0.5, 0.37), strict=True):
        assert_spoilt(results(spoil(x, values, place), g, weight, bias, pair, act), clean, g)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_so_it_is_in_the_reference(name: str, mode: str | None, dtype: torch.dtype) -> None:
    x, g, weight, bias = sample(6, 3, 5, 4, dtype=dtype)
    pair = build(name, mode)
    with kernels.using("reference"):
        clean = results(x, g, weight, bias, pair, "relu")
        for values in BAD.values():
            got = results(spoil(x, values, 0.37), g, weight, bias, pair, "relu")
            assert_spoilt(got, clean, g)


@pytest.mark.parametrize("choice", kernels.KERNELS)
@pytest.mark.parametrize("layout", [PLAIN, LAST])
@pytest.mark.parametrize("shape", [(6, 3, 12, 12), (40, 3, 4, 4)])
def test_so_it_is_with_a_gate(shape: tuple[int, ...], layout: torch.memory_format, choice: str) -> None:
    for name in FUSED:
        given, pair = inputs(*shape), build(name)
        given["x"] = given["x"].contiguous(memory_format=layout)
        with kernels.using(choice):
            clean = results_gated(given, pair, "relu")
            for values in BAD.values():
                got = results_gated({**given, "x": spoil(given["x"], values, 0.37)}, pair, "relu")
                assert_spoilt(got, clean, given["g"])


@pytest.mark.parametrize("bad", BAD)
def test_so_it_is_in_a_graph(bad: str) -> None:
    x, g, weight, bias = sample(6, 3, 20, 20)
    pair, x = build("mad"), spoil(x, BAD[bad], 0.37).requires_grad_()
    y, s, d, *_ = torch.ops.gbn.normalize(x, weight, bias, None, None, pair.S.text, pair.D.text, EPS, True)
    (dx,) = torch.autograd.grad(y, x, g)
    for value in (y[:, C], s[C], d[C], dx[:, C]):
        assert value.isnan().all()
    for value in (y[:, ::2], s[::2], d[::2], dx[:, ::2]):
        assert value.isfinite().all()


#: Sizes of samples; the squares of all of these are infinite in float32, and sums of the last are, too.
LARGE = [1e20, 1e30, 1e38]
HOMOGENEOUS = [case for case in PAIRS if build(*case.values).homogeneous]


def large(size: float, *shape: int) -> tuple[Tensor, ...]:
    """Samples up to a size, in float32, and a large gain, so that gradients are no denormal numbers."""
    x, g, weight, bias = sample(*shape)
    x = (x.double() / x.abs().max() * size).float()
    return x, g, weight * min(size, 1e30), bias


@pytest.mark.parametrize("choice", kernels.KERNELS)
@pytest.mark.parametrize("size", LARGE[1:])
@pytest.mark.parametrize(("name", "mode"), HOMOGENEOUS)
def test_large_values_are_normalized(name: str, mode: str | None, size: float, choice: str) -> None:
    """The values of float64, whose range is never left, forward and backward."""
    pair = build(name, mode)
    for shape, layout in (((8, 3, 16, 17), PLAIN), ((9, 18, 7, 5), LAST)):
        x, g, weight, bias = large(size, *shape)
        x = x.contiguous(memory_format=layout)
        with kernels.using(choice):
            got = results(x, g, weight, bias, pair, "relu")
        wanted = exact(x, g, weight, bias, pair, "relu")
        for key, value in got.items():
            most = wanted[key].abs().max().clamp_min(torch.finfo(torch.float32).tiny)
            assert (value.double() - wanted[key]).abs().max() <= 1e-4 * most, key


@pytest.mark.parametrize("layout", [PLAIN, LAST])
@pytest.mark.parametrize("size", LARGE)
def test_large_values_are_normalized_with_a_gate(size: float, layout: torch.memory_format) -> None:
    given = inputs(6, 3, 12, 12)
    given["x"] = large(size, 6, 3, 12, 12)[0].contiguous(memory_format=layout)
    given["gate_weight"] = given["gate_weight"] / size
    for name in ("std", "cvar", "upper_semideviation"):
        got, wanted = (f(given, build(name), "relu") for f in (results_gated, exact_gated))
        for key, value in got.items():
            # gradients to x, one over the size, may be denormal numbers
            most = wanted[key].abs().max().clamp_min(torch.finfo(torch.float32).tiny)
            assert (value.double() - wanted[key]).abs().max() <= 1e-4 * most, key


@pytest.mark.parametrize("choice", kernels.KERNELS)
@pytest.mark.parametrize("size", [*LARGE, 3e38])
def test_mean_and_std_are_finite_where_batch_norm_is(size: float, choice: str) -> None:
    x, g, weight, bias = sample(8, 3, 16, 17)
    x = (x.double() / x.abs().max() * size).float()
    with kernels.using(choice):
        got = results(x, g, weight, bias, build("std"))
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    y = F.batch_norm(leaves[0], None, None, *leaves[1:], training=True, eps=EPS)
    theirs = [y.detach(), *torch.autograd.grad(y, leaves, g)]
    for key, value in zip(("y", "dx", "dweight", "dbias"), theirs, strict=True):
        # torch's y is the bias alone here, since its variance is infinite; ours is right as well (see above)
        assert got[key][value.isfinite()].isfinite().all(), key


@pytest.mark.parametrize("act", [None, "relu"])
def test_evaluation_with_a_large_deviation(act: str | None) -> None:
    x, _, weight, bias = sample(4, 3, 5, 5)
    s, d, pair = torch.full((3,), 1e30), torch.tensor([1e20, 1e30, 1e38]), build("mad")
    x = x * d.view(1, -1, 1, 1) * 0.1
    for deviation in (pair.D, build("std").D):
        y = kernels.normalize_with(x, s, d, weight, bias, deviation, EPS, act)
        wide = (t.double() for t in (x, s, d, weight, bias))
        wanted = kernels.normalize_with(*wide, deviation, EPS, act)
        torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-5)
