"""The fused kernels as operators: what a tracer sees of them, and pairs written as text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gbn import kernels, risk
from gbn.kernels import fused
from gbn.nn import GeneralizedBatchNorm2d
from gbn.risk.parameters import QUADRANGLE_PARAMETERS
from gbn.risk.quadrangles import from_text

# What torch 2.13's own tracer does; see tests/nn/test_compile.py.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 5, 3, generator=make).to(dtype)
    return x, torch.rand(4, generator=make) + 0.5, torch.randn(4, generator=make)


@pytest.mark.parametrize("name", list(risk.QUADRANGLES))
def test_a_functional_can_be_written_and_read(name: str) -> None:
    window = {"quantile_gradient": "smoothed", "window": 0.05}
    pair = risk.quadrangle(name, **(window if "window" in QUADRANGLE_PARAMETERS[name] else {}))
    assert from_text("statistic", pair.S.text) == pair.S
    assert from_text("deviation", pair.D.text) == pair.D


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["cvar", "huber"])
def test_operators_keep_their_word(name: str, dtype: torch.dtype) -> None:
    """Schema, shapes without data, autograd and graph capture: torch's own check of an operator."""
    x, weight, bias = inputs(dtype)
    pair = risk.quadrangle(name)
    for gain, shift in ((weight, bias), (None, None)):
        leaves = [None if t is None else t.clone().requires_grad_() for t in (x, gain, shift)]
        arguments = (*leaves, pair.S.text, pair.D.text, 1e-5, True)
        torch.library.opcheck(torch.ops.gbn.normalize.default, arguments)
    wide = torch.zeros(6, 8, 5, 6)[:, ::2, :, ::2]
    for other in (x.contiguous(memory_format=torch.channels_last), x.permute(2, 1, 0, 3), wide.copy_(x)):
        torch.library.opcheck(
            torch.ops.gbn.normalize.default,
            (other, weight, bias, pair.S.text, pair.D.text, 1e-5, False),
            test_utils=("test_schema", "test_faketensor"),
        )


def test_operator_equals_the_eager_path() -> None:
    x, weight, bias = (t.requires_grad_() for t in inputs())
    pair = risk.quadrangle("cvar")
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    y, s, d = kernels.normalize(x, weight, bias, pair.S, pair.D, 1e-5, "relu")
    y2, s2, d2, _ = torch.ops.gbn.normalize(x, weight, bias, pair.S.text, pair.D.text, 1e-5, True)
    eager, operator = (torch.autograd.grad(out, (x, weight, bias), g) for out in (y, y2))
    for a, b in zip((y, s, d, *eager), (y2, s2, d2, *operator), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_a_training_graph_can_be_exported_and_run() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), GeneralizedBatchNorm2d(4, quadrangle="cvar", act="relu"))
    x = torch.randn(5, 3, 8, 8)
    program = torch.export.export(net.train(), (x,))
    assert "gbn.normalize" in program.graph_module.code
    expected = net(x)
    torch.testing.assert_close(program.module()(x), expected)


@pytest.mark.slow
def test_a_batch_of_another_size_needs_no_new_graph() -> None:
    torch._dynamo.reset()
    layer = GeneralizedBatchNorm2d(4, quadrangle="cvar", act="relu")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    twin = GeneralizedBatchNorm2d(4, quadrangle="cvar", act="relu")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for images in (6, 9, 12):
            x = torch.randn(images, 4, 5, 3, generator=torch.Generator().manual_seed(images))
            a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
            y, expected = compiled(a), twin(b)
            torch.testing.assert_close(y, expected)
            y.square().sum().backward(), expected.square().sum().backward()
            torch.testing.assert_close(a.grad, b.grad)


def test_a_graph_for_kernels_that_are_missing_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fused._WORKS, "cpu", False)
    x, weight, bias = inputs()
    pair = risk.quadrangle("cvar")
    with pytest.raises(RuntimeError, match="install numba or compile under GBN_KERNELS=reference"):
        torch.ops.gbn.normalize(x, weight, bias, pair.S.text, pair.D.text, 1e-5, True)
