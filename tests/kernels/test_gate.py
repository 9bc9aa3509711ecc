"""The gate of instance enhancement: the interface and the eager kernel, against autograd of the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gbn import kernels, risk
from gbn.kernels.epsilon import denominator

EPS = 1e-3  # large enough to be seen in every comparison
SHAPES = [
    pytest.param((4, 3, 5, 2), torch.contiguous_format, id="planes"),
    pytest.param((4, 3, 5, 2), torch.channels_last, id="channels last"),
    pytest.param((7, 3), torch.contiguous_format, id="no spatial dimension"),
    pytest.param((3, 2, 6), torch.contiguous_format, id="one dimension"),
    pytest.param((2, 2, 3, 2, 2), torch.channels_last_3d, id="three dimensions"),
]


def sample(*shape: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """x (skewed, channels of different scale and place), cotangent, and all parameters."""
    make = torch.Generator().manual_seed(0)
    c = shape[1]
    per_channel = (1, c, *[1] * (len(shape) - 2))
    options = {"generator": make, "dtype": torch.float64}
    x = torch.randn(shape, **options).exp() * torch.linspace(0.5, 3, c, dtype=torch.float64).view(per_channel)
    found = {
        "x": x + torch.linspace(-2, 2, c, dtype=torch.float64).view(per_channel),
        "weight": torch.rand(c, **options) + 0.5,
        "bias": torch.randn(c, **options),
        "gate_weight": torch.randn(c, **options),
        "gate_bias": torch.randn(c, **options),
        "g": torch.randn(shape, **options),
    }
    return {name: value.to(dtype) for name, value in found.items()}


def definition(x: Tensor, p: dict[str, Tensor], s: Tensor, divisor: Tensor) -> Tensor:
    """The formula with S and D' of shape (C,), each operation differentiated by autograd."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    m = x.flatten(2).mean(2) if x.dim() > 2 else x
    delta = 1 / (1 + torch.exp(-(p["gate_weight"] * m + p["gate_bias"])))
    gain = (p["weight"] * delta).view(*m.shape, *[1] * (x.dim() - 2))
    return (x - s.view(shape)) / divisor.view(shape) * gain + p["bias"].view(shape)


def measured(x: Tensor, pair: risk.Quadrangle) -> tuple[Tensor, Tensor]:
    dims = (0, *range(2, x.dim()))
    return pair.statistic(x, dims), denominator(pair.D, pair.deviation(x, dims), EPS)


def gate(p: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return p["gate_weight"], p["gate_bias"]


@pytest.mark.parametrize("act", [None, "relu", "silu"])
@pytest.mark.parametrize(("shape", "memory_format"), SHAPES)
@pytest.mark.parametrize("name", list(risk.QUADRANGLES))
def test_value_and_gradients_are_those_of_the_definition(
    name: str, shape: tuple[int, ...], memory_format: torch.memory_format, act: str | None
) -> None:
    pair, p = risk.quadrangle(name), sample(*shape)
    p["x"] = p["x"].contiguous(memory_format=memory_format)
    g = p.pop("g")
    leaves = [value.requires_grad_() for value in p.values()]
    expected = definition(p["x"], p, *measured(p["x"], pair))
    expected = expected if act is None else kernels.ACTIVATIONS[act](expected)
    y, s, d = kernels.normalize(p["x"], p["weight"], p["bias"], pair.S, pair.D, EPS, act, gate(p))
    assert y.stride() == p["x"].stride()
    assert not any(value.requires_grad for value in (s, d))
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(denominator(pair.D, d, EPS), measured(p["x"], pair)[1].detach())
    torch.testing.assert_close(torch.autograd.grad(y, leaves, g), torch.autograd.grad(expected, leaves, g))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shape", "memory_format"), SHAPES)
@pytest.mark.parametrize("name", ["std", "cvar"])
def test_given_values(
    name: str, shape: tuple[int, ...], memory_format: torch.memory_format, dtype: torch.dtype
) -> None:
    """Evaluation: S and D are constants, the gate is still the image's own."""
    pair, p = risk.quadrangle(name), sample(*shape)
    channels = shape[1]
    s, d = torch.linspace(-1, 1, channels).double(), torch.linspace(0.5, 2, channels).double()
    x = p["x"].to(dtype).contiguous(memory_format=memory_format).requires_grad_()
    g = p.pop("g").to(dtype)
    p["x"] = x.detach().double().requires_grad_()
    leaves = [value.requires_grad_() for value in p.values()]
    y = kernels.normalize_with(x, s, d, p["weight"], p["bias"], pair.D, EPS, None, gate(p))
    expected = definition(p["x"], p, s, denominator(pair.D, d, EPS))
    assert (y.dtype, y.stride()) == (dtype, x.stride())
    # one rounding in their dtype, and those of sums of a few terms in the wide one
    wide = torch.promote_types(dtype, torch.float32)
    tolerance = torch.finfo(dtype).eps + 100 * torch.finfo(wide).eps
    got = (y, *torch.autograd.grad(y, [x, *leaves[1:]], g))
    wanted = (expected, *torch.autograd.grad(expected, leaves, g.double()))
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("act", [None, "relu"])
def test_an_open_gate_is_no_gate(act: str | None, dtype: torch.dtype) -> None:
    """gate_bias = 30: sigmoid is 1 to 1e-13, and in float32 exactly."""
    pair, p = risk.quadrangle("std"), sample(4, 3, 6, 5, dtype=dtype)
    open_gate = torch.zeros(3, dtype=dtype), torch.full((3,), 30.0, dtype=dtype)
    x = p["x"].requires_grad_()
    plain, s, d = kernels.normalize(x, p["weight"], p["bias"], pair.S, pair.D, EPS, act)
    y, *others = kernels.normalize(x, p["weight"], p["bias"], pair.S, pair.D, EPS, act, open_gate)
    torch.testing.assert_close(y, plain)
    assert torch.equal(s, others[0])
    assert torch.equal(d, others[1])
    torch.testing.assert_close(*(torch.autograd.grad(out, x, p["g"]) for out in (y, plain)))
    given = (s, d, p["weight"], p["bias"], pair.D, EPS, act)
    torch.testing.assert_close(
        kernels.normalize_with(x, *given, open_gate), kernels.normalize_with(x, *given)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_at_its_start_the_gate_is_a_constant(dtype: torch.dtype) -> None:
    """gate_weight 0 and gate_bias -1: the gain times sigmoid(-1) = 0.268941, in training and evaluation."""
    pair, p = risk.quadrangle("std"), sample(4, 3, 6, 5, dtype=dtype)
    start = torch.zeros(3, dtype=dtype), torch.full((3,), -1.0, dtype=dtype)
    gain = 0.2689414213699951 * p["weight"]
    plain, s, d = kernels.normalize(p["x"], gain, p["bias"], pair.S, pair.D, EPS)
    y, *_ = kernels.normalize(p["x"], p["weight"], p["bias"], pair.S, pair.D, EPS, None, start)
    torch.testing.assert_close(y, plain)
    y = kernels.normalize_with(p["x"], s, d, p["weight"], p["bias"], pair.D, EPS, None, start)
    torch.testing.assert_close(y, plain)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("missing", ["weight", "bias", "both"])
def test_gain_and_bias_may_be_missing(missing: str, dtype: torch.dtype) -> None:
    pair, p = risk.quadrangle("cvar"), sample(4, 3, 5, 2, dtype=dtype)
    ones, zeros = torch.ones(3, dtype=dtype), torch.zeros(3, dtype=dtype)
    without = {"weight": p["weight"], "bias": p["bias"]}
    without |= dict.fromkeys(("weight", "bias") if missing == "both" else (missing,))
    full = [
        ones if without["weight"] is None else p["weight"],
        zeros if without["bias"] is None else p["bias"],
    ]
    x, parameters = p["x"].requires_grad_(), gate(p)
    leaves = [x, *(t.requires_grad_() for t in parameters)]
    runs = []
    for affine in (without.values(), full):
        y, *_ = kernels.normalize(x, *affine, pair.S, pair.D, EPS, "relu", parameters)
        runs.append((y, *torch.autograd.grad(y, leaves, p["g"])))
    torch.testing.assert_close(*runs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_second_derivative_is_refused_not_wrong(dtype: torch.dtype) -> None:
    pair, p = risk.quadrangle("cvar"), sample(4, 3, 5, 2, dtype=dtype)
    x = p["x"].requires_grad_()
    y, *_ = kernels.normalize(x, p["weight"], p["bias"], pair.S, pair.D, EPS, None, gate(p))
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(y, x, p["g"], create_graph=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_eager_kernel_rounds_half_precision_once(dtype: torch.dtype) -> None:
    pair, p = risk.quadrangle("cvar"), sample(16, 3, 8, 8)
    g = p.pop("g").to(dtype)
    low = {
        name: value.to(dtype if name == "x" else torch.float32).requires_grad_() for name, value in p.items()
    }
    high = {name: value.detach().double().requires_grad_() for name, value in low.items()}
    with kernels.using("reference"):
        y, s, _ = kernels.normalize(
            low["x"], low["weight"], low["bias"], pair.S, pair.D, EPS, "relu", gate(low)
        )
    assert (y.dtype, s.dtype) == (dtype, torch.float32)
    expected = definition(high["x"], high, *measured(high["x"], pair)).relu()
    tolerance = torch.finfo(dtype).eps + 40 * torch.finfo(torch.float32).eps
    got = (y, *torch.autograd.grad(y, [*low.values()], g))
    wanted = (expected, *torch.autograd.grad(expected, [*high.values()], g.double()))
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1.0)
