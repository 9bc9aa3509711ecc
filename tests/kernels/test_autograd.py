"""The fused kernels as operators: what a tracer sees of them, with a gate and without; pairs written as text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gbn import kernels, risk
from gbn.kernels import autograd
from gbn.risk.parameters import QUADRANGLE_PARAMETERS
from gbn.risk.quadrangles import from_text

# What torch 2.13's own tracer does; see tests/nn/test_compile.py.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

both = pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])


def inputs(dtype: torch.dtype = torch.float32, images: int = 6, gated: bool = True) -> list[Tensor | None]:
    """x, gain, bias, and the gate's two parameters."""
    make = torch.Generator().manual_seed(images)
    x = torch.randn(images, 4, 5, 3, generator=make).to(dtype)
    parameters = [torch.rand(4, generator=make) + 0.5, *(torch.randn(4, generator=make) for _ in range(3))]
    return [x, *parameters] if gated else [x, *parameters[:2], None, None]


def of(pair: risk.Quadrangle, relu: bool = True) -> tuple[str, str, float, bool]:
    return pair.S.text, pair.D.text, 1e-5, relu


class Layer(nn.Module):
    """The least that holds the parameters."""

    def __init__(self, quadrangle: str = "cvar", gated: bool = True) -> None:
        super().__init__()
        self.pair, self.gated = risk.quadrangle(quadrangle), gated
        self.weight, self.bias, self.gate_weight, self.gate_bias = map(nn.Parameter, inputs()[1:])

    def forward(self, x: Tensor) -> Tensor:
        gate = (self.gate_weight, self.gate_bias) if self.gated else None
        return kernels.normalize(x, self.weight, self.bias, self.pair.S, self.pair.D, 1e-5, "relu", gate)[0]

    def used(self) -> list[nn.Parameter]:
        return list(self.parameters())[: 4 if self.gated else 2]


@pytest.mark.parametrize("name", list(risk.QUADRANGLES))
def test_a_functional_can_be_written_and_read(name: str) -> None:
    window = {"quantile_gradient": "smoothed", "window": 0.05}
    pair = risk.quadrangle(name, **(window if "window" in QUADRANGLE_PARAMETERS[name] else {}))
    assert from_text("statistic", pair.S.text) == pair.S
    assert from_text("deviation", pair.D.text) == pair.D


@pytest.mark.slow
@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["cvar", "huber"])
def test_operators_keep_their_word(name: str, dtype: torch.dtype, gated: bool) -> None:
    """Schema, shapes without data, autograd and graph capture: torch's own check of an operator."""
    x, weight, bias, *gate = inputs(dtype, gated=gated)
    pair = risk.quadrangle(name)
    for gain, shift in ((weight, bias), (None, None)):
        leaves = [None if t is None else t.clone().requires_grad_() for t in (x, gain, shift, *gate)]
        torch.library.opcheck(torch.ops.gbn.normalize.default, (*leaves, *of(pair)))
    wide = torch.zeros(6, 8, 5, 6)[:, ::2, :, ::2]
    for other in (x.contiguous(memory_format=torch.channels_last), x.permute(2, 1, 0, 3), wide.copy_(x)):
        torch.library.opcheck(
            torch.ops.gbn.normalize.default,
            (other, weight, bias, *gate, *of(pair, False)),
            test_utils=("test_schema", "test_faketensor"),
        )


@both
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_operator_equals_the_eager_path(memory_format: torch.memory_format, gated: bool) -> None:
    x, *parameters = inputs(gated=gated)
    x = x.contiguous(memory_format=memory_format)
    leaves = [None if t is None else t.requires_grad_() for t in (x, *parameters)]
    used = [t for t in leaves if t is not None]
    pair = risk.quadrangle("cvar")
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    gate = tuple(leaves[3:]) if gated else None
    y, s, d = kernels.normalize(*leaves[:3], pair.S, pair.D, 1e-5, "relu", gate)
    y2, s2, d2, *_ = torch.ops.gbn.normalize(*leaves, *of(pair))
    eager, operator = (torch.autograd.grad(out, used, g) for out in (y, y2))
    for a, b in zip((y, s, d, *eager), (y2, s2, d2, *operator), strict=True):
        assert torch.equal(a, b)


@both
def test_the_backward_operator_takes_x_in_another_layout_than_the_forward_one(gated: bool) -> None:
    """A compiler may choose so: the means that are kept say which row is which themselves."""
    x, *parameters = inputs(gated=gated)
    text = of(risk.quadrangle("cvar"))
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    found = []
    for before in (torch.contiguous_format, torch.channels_last):
        _, *kept = torch.ops.gbn.normalize(x.contiguous(memory_format=before), *parameters, *text)
        for after in (torch.contiguous_format, torch.channels_last):
            there = x.contiguous(memory_format=after)
            found.append(torch.ops.gbn.normalize_backward(g, there, *parameters, *kept, *text))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], check_stride=False)


@pytest.mark.slow
@both
def test_a_training_graph_can_be_exported_and_run(gated: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Layer(gated=gated))
    x = torch.randn(5, 3, 8, 8)
    program = torch.export.export(net.train(), (x,))
    assert "gbn.normalize" in program.graph_module.code
    torch.testing.assert_close(program.module()(x), net(x))


@pytest.mark.slow
@both
def test_a_batch_of_another_size_needs_no_new_graph(gated: bool) -> None:
    torch._dynamo.reset()
    layer = Layer(gated=gated)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for images in (6, 9, 12):
            x = inputs(images=images)[0]
            gradients = []
            for one in (compiled, layer):
                leaf = x.clone().requires_grad_()
                y = one(leaf)
                gradients.append((y, *torch.autograd.grad(y, [leaf, *layer.used()], x)))
            torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_without_fused_kernels_a_graph_is_whole_too() -> None:
    torch._dynamo.reset()
    with kernels.using("reference"):
        layer, x = Layer("std"), inputs()[0]
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), layer(x))


@both
def test_a_graph_for_kernels_that_are_missing_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, gated: bool
) -> None:
    monkeypatch.setitem(autograd._WORKS, "cpu", False)
    with pytest.raises(RuntimeError, match="install numba or compile under GBN_KERNELS=reference"):
        torch.ops.gbn.normalize(*inputs(gated=gated), *of(risk.quadrangle("cvar")))
