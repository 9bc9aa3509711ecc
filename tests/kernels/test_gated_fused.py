"""Instance enhancement as operators: what a tracer sees of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gbn import kernels, risk

# What torch 2.13's own tracer does; see tests/nn/test_compile.py.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


def inputs(dtype: torch.dtype = torch.float32, images: int = 6) -> list[Tensor]:
    """x, gain, bias, and the gate's two parameters."""
    make = torch.Generator().manual_seed(images)
    x = torch.randn(images, 4, 5, 3, generator=make).to(dtype)
    return [x, torch.rand(4, generator=make) + 0.5, *(torch.randn(4, generator=make) for _ in range(3))]


class Layer(nn.Module):
    """The least that holds the parameters."""

    def __init__(self, quadrangle: str = "cvar") -> None:
        super().__init__()
        self.pair = risk.quadrangle(quadrangle)
        self.weight, self.bias, self.gate_weight, self.gate_bias = map(nn.Parameter, inputs()[1:])

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_weight, self.gate_bias
        pair = self.pair
        return kernels.normalize(x, self.weight, self.bias, pair.S, pair.D, 1e-5, "relu", gate)[0]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_keep_their_word(dtype: torch.dtype) -> None:
    """Schema, shapes without data, autograd and graph capture: torch's own check of an operator."""
    x, weight, bias, *gate = inputs(dtype)
    pair = risk.quadrangle("cvar")
    for gain, shift in ((weight, bias), (None, None)):
        leaves = [None if t is None else t.clone().requires_grad_() for t in (x, gain, shift, *gate)]
        arguments = (*leaves, pair.S.text, pair.D.text, 1e-5, True)
        torch.library.opcheck(torch.ops.gbn.normalize_gated.default, arguments)
    wide = torch.zeros(6, 8, 5, 6)[:, ::2, :, ::2]
    for other in (x.contiguous(memory_format=torch.channels_last), x.permute(2, 1, 0, 3), wide.copy_(x)):
        torch.library.opcheck(
            torch.ops.gbn.normalize_gated.default,
            (other, weight, bias, *gate, pair.S.text, pair.D.text, 1e-5, False),
            test_utils=("test_schema", "test_faketensor"),
        )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_operator_equals_the_eager_path(memory_format: torch.memory_format) -> None:
    given = inputs()
    given[0] = given[0].contiguous(memory_format=memory_format)
    x, weight, bias, *gate = leaves = [t.requires_grad_() for t in given]
    pair = risk.quadrangle("cvar")
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    y, s, d = kernels.normalize(x, weight, bias, pair.S, pair.D, 1e-5, "relu", tuple(gate))
    y2, s2, d2, *_ = torch.ops.gbn.normalize_gated(*leaves, pair.S.text, pair.D.text, 1e-5, True)
    eager, operator = (torch.autograd.grad(out, leaves, g) for out in (y, y2))
    for a, b in zip((y, s, d, *eager), (y2, s2, d2, *operator), strict=True):
        assert torch.equal(a, b)


def test_the_backward_operator_takes_x_in_another_layout_than_the_forward_one() -> None:
    """A compiler may choose so: the means that are kept say which row is which themselves."""
    x, *parameters = inputs()
    pair = risk.quadrangle("cvar")
    text = (pair.S.text, pair.D.text, 1e-5, True)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    found = []
    for before in (torch.contiguous_format, torch.channels_last):
        _, *kept = torch.ops.gbn.normalize_gated(x.contiguous(memory_format=before), *parameters, *text)
        for after in (torch.contiguous_format, torch.channels_last):
            there = x.contiguous(memory_format=after)
            found.append(torch.ops.gbn.normalize_gated_backward(g, there, *parameters, *kept, *text))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], check_stride=False)


@pytest.mark.slow
def test_a_training_graph_can_be_exported_and_run() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Layer())
    x = torch.randn(5, 3, 8, 8)
    program = torch.export.export(net.train(), (x,))
    assert "gbn.normalize_gated" in program.graph_module.code
    torch.testing.assert_close(program.module()(x), net(x))


@pytest.mark.slow
def test_a_batch_of_another_size_needs_no_new_graph() -> None:
    torch._dynamo.reset()
    layer = Layer()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for images in (6, 9, 12):
            x = inputs(images=images)[0]
            gradients = []
            for one in (compiled, layer):
                leaf = x.clone().requires_grad_()
                y = one(leaf)
                gradients.append((y, *torch.autograd.grad(y, [leaf, *layer.parameters()], x)))
            torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_without_fused_kernels_a_graph_is_whole_too() -> None:
    torch._dynamo.reset()
    with kernels.using("reference"):
        layer, x = Layer("std"), inputs()[0]
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), layer(x))


def test_a_graph_for_kernels_that_are_missing_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernels.fused._WORKS, "cpu", False)
    pair = risk.quadrangle("cvar")
    with pytest.raises(RuntimeError, match="install numba or compile under GBN_KERNELS=reference"):
        torch.ops.gbn.normalize_gated(*inputs(), pair.S.text, pair.D.text, 1e-5, True)
