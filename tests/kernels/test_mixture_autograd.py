"""Mixture normalization as operators: what a tracer sees of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gbn import kernels
from gbn.kernels.mixture import Mixture, autograd, fitted, normalize_by_batch, sample, seeded, uniform
from gbn.nn import MixtureNorm2d

# What torch 2.13's own tracer and code generator do; see tests/nn/test_compile.py.
pytestmark = [
    pytest.mark.skipif(kernels.selected() != "numba", reason="the compiled kernels do not work here"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]

ZERO = torch.zeros((), dtype=torch.int64)
LAYOUTS = [torch.contiguous_format, torch.channels_last]
#: Planes with a rest, of whole vectors, of a few values, of one; a channel, and more than a vector of them.
SHAPES = [(6, 4, 5, 3), (3, 20, 4, 4), (4, 17, 3, 2), (9, 6, 1, 1), (5, 1, 7, 3)]


def inputs(shape: tuple[int, ...] = SHAPES[0], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """x, gain, bias, a mixture's weights, means and variances, center."""
    make = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(shape, generator=make)
    samples = sample(x, 1024, ZERO, ZERO)
    draws = uniform(ZERO, ZERO, 1, 3)
    mixture = fitted(samples, seeded(samples, 3, draws, "joint"), 2, torch.full((shape[1],), 0.05))
    affine = torch.randn(2, shape[1], generator=make).unbind()
    return [x.to(dtype), *affine, *mixture, samples.mean(0)]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_keep_their_word(dtype: torch.dtype) -> None:
    """Schema, shapes without data, autograd and graph capture: torch's own check of an operator."""
    x, weight, bias, *given = inputs(dtype=dtype)
    for gain, shift in ((weight, bias), (None, None)):
        leaves = [None if t is None else t.clone().requires_grad_() for t in (x, gain, shift)]
        torch.library.opcheck(torch.ops.gbn.mixture_normalize.default, (*leaves, *given, 1e-5, True))
    wide = torch.zeros(6, 8, 5, 6)[:, ::2, :, ::2]
    for other in (x.contiguous(memory_format=torch.channels_last), x.permute(2, 1, 0, 3), wide.copy_(x)):
        torch.library.opcheck(
            torch.ops.gbn.mixture_normalize.default,
            (other, weight, bias, *given, 1e-5, False),
            test_utils=("test_schema", "test_faketensor"),
        )


def test_a_default_dtype_of_float64_changes_nothing() -> None:
    arguments = (*inputs(), 1e-5, True)
    torch.set_default_dtype(torch.float64)
    try:
        torch.library.opcheck(
            torch.ops.gbn.mixture_normalize.default, arguments, test_utils=("test_faketensor",)
        )
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
def test_the_fit_keeps_its_word() -> None:
    x, _, _, *mixture, center = inputs()
    samples = sample(x, 1024, ZERO, ZERO)
    draws = uniform(ZERO, ZERO, 2, mixture[0].numel())
    for drawn in (draws, None):
        arguments = (samples, *mixture, 2, torch.full_like(center, 0.1), drawn, center, samples.var(0))
        torch.library.opcheck(torch.ops.gbn.mixture_fit.default, arguments)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_operator_equals_the_eager_path(
    shape: tuple[int, ...], layout: torch.memory_format, relu: bool
) -> None:
    x, weight, bias, *given = inputs(shape)
    leaves = [t.requires_grad_() for t in (x.contiguous(memory_format=layout), weight, bias)]
    g = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    y, moments = normalize_by_batch(
        *leaves[:1], Mixture(*given[:3]), *leaves[1:], 1e-5, center=given[3], act="relu" if relu else None
    )
    y2, *others = torch.ops.gbn.mixture_normalize(*leaves, *given, 1e-5, relu)
    eager, operator = (torch.autograd.grad(out, leaves, g) for out in (y, y2))
    for a, b in zip((y, *moments, *eager), (y2, *others[:4], *operator), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_backward_operator_takes_x_in_another_layout_than_the_forward_one(shape: tuple[int, ...]) -> None:
    """A compiler may choose so: posteriors and the ReLU's bits lie in the order of the forward pass."""
    x, weight, bias, *given = inputs(shape)
    g = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = []
    for before in LAYOUTS:
        there = x.contiguous(memory_format=before)
        kept = torch.ops.gbn.mixture_normalize(there, weight, bias, *given, 1e-5, True)[5:]
        for after in LAYOUTS:
            there = x.contiguous(memory_format=after)
            rest = (weight, *kept, given[3], 1e-5, True)
            found.append(torch.ops.gbn.mixture_normalize_backward(g, there, *rest))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], check_stride=False, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
def test_a_training_graph_can_be_exported_and_run() -> None:
    layer, twin = (MixtureNorm2d(3, subset=32, act="relu") for _ in range(2))
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(layer.train(), (x,))
    for name in ("gbn.mixture_fit", "gbn.mixture_normalize"):
        assert name in str(program)
    torch.testing.assert_close(program.module()(x), twin(x))


@pytest.mark.slow
def test_a_batch_of_another_size_needs_no_new_graph() -> None:
    torch._dynamo.reset()
    layers = [MixtureNorm2d(4, subset=32, act="relu") for _ in range(2)]
    make = torch.Generator().manual_seed(0)
    for layer in layers:  # the first batch has a graph of its own, with the seeding
        layer(torch.randn(6, 4, 5, 3, generator=torch.Generator().manual_seed(1)))
    compiled = torch.compile(layers[0], fullgraph=True, backend="aot_eager", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for images in (6, 9, 12):
            x, gradients = torch.randn(images, 4, 5, 3, generator=make), []
            for one, layer in zip((compiled, layers[1]), layers, strict=True):
                leaf = x.clone().requires_grad_()
                y = one(leaf)
                gradients.append((y, *torch.autograd.grad(y, [leaf, *layer.parameters()], x)))
            torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_generated_code_trains_as_eager_steps_do() -> None:
    """Between convolutions, whose layout the code generator chooses."""
    torch._dynamo.reset()
    nets = []
    for _ in range(2):
        torch.manual_seed(0)
        nets.append(nn.Sequential(nn.Conv2d(3, 18, 3), MixtureNorm2d(18, act="relu"), nn.Conv2d(18, 2, 3)))
        nets[-1](torch.randn(4, 3, 14, 14))  # the first batch has a graph of its own, with the seeding
    x, found = torch.randn(4, 3, 14, 14), []
    for one, net in zip((torch.compile(nets[0], fullgraph=True), nets[1]), nets, strict=True):
        y = one(x)
        y.square().mean().backward()
        found.append([y, *(p.grad for p in net.parameters()), *net.buffers()])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_draws_are_the_eager_ones() -> None:
    """Products wrap around in generated code too, and its loops end."""
    torch._dynamo.reset()
    compiled = torch.compile(uniform, fullgraph=True)
    for stream in (0, 2**62 + 5):
        arguments = (torch.tensor(stream), torch.tensor(3), 1, 1000)
        assert torch.equal(compiled(*arguments), uniform(*arguments))


def test_a_graph_for_kernels_that_are_missing_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernels.autograd._WORKS, "cpu", False)
    with pytest.raises(RuntimeError, match="install numba or compile under GBN_KERNELS=reference"):
        torch.ops.gbn.mixture_normalize(*inputs(), 1e-5, True)


def test_sizes_that_are_promised_are_enough() -> None:
    """For each layout; what is kept is filled up to them."""
    for shape in SHAPES:
        x, weight, bias, *given = inputs(shape)
        sizes = autograd._kernels().kept_sizes(shape, 3, True)
        for layout in LAYOUTS:
            there = x.contiguous(memory_format=layout)
            results = torch.ops.gbn.mixture_normalize(there, weight, bias, *given, 1e-5, True)
            assert tuple(part.numel() for part in results[6:9]) == sizes
