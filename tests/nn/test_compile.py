"""torch.compile(fullgraph=True): the same numbers, no graph break. Few cases: each costs seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gbn.nn import norm_layer

# Deprecated things that torch 2.13's own compiler does: its tracer makes an instance of autograd.Function, and
# its code generator imports modules written with torch.jit.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]

CASES: list[tuple[str, dict[str, Any], str]] = [
    # The traced graph (no code generation) for the kinds of arithmetic that there are ...
    ("gbn", {"quadrangle": "std"}, "aot_eager"),
    ("gbn", {"quadrangle": "range", "quantile_gradient": "smoothed"}, "aot_eager"),
    ("gbn", {"quadrangle": "expectile"}, "aot_eager"),
    ("gbn", {"quadrangle": "cvar", "momentum": None, "rescaled": True}, "aot_eager"),
    ("bn_reparam", {"matched_to": {"quadrangle": "cvar"}}, "aot_eager"),
    *(
        (method, {"matched_to": "gbn_cvar", "momentum": None}, "aot_eager")
        for method in ("bn_matched", "bn_reparam")
    ),
    ("bn_reparam", {"matched_to": "mixture", "momentum": None, "affine": False}, "aot_eager"),
    ("bn_measured_matched", {"matched_to": "gbn_cvar"}, "aot_eager"),
    ("bn_measured_reparam", {"matched_to": "gbn_huber", "affine": False}, "aot_eager"),
    *(("bn_tracking", {"matched_to": name}, "aot_eager") for name in ("gbn_cvar", "gbn_entropic")),
    ("gbn", {"start": "bn_measured"}, "aot_eager"),
    *(("bn", {"momentum": None}, backend) for backend in ("aot_eager", "inductor")),
    ("mixture", {"subset": 32}, "aot_eager"),
    ("mixture", {"mixture": "per_channel"}, "aot_eager"),
    ("mixture", {"mixture": "per_channel", "posterior_gradient": True}, "aot_eager"),
    # ... and generated code for the pair that matters most.
    ("gbn", {"quadrangle": "cvar"}, "inductor"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "options", "backend"), CASES, ids=str)
def test_compiled_layer_equals_eager(method: str, options: dict[str, Any], backend: str) -> None:
    torch._dynamo.reset()
    eager, compiled_from = (norm_layer(method, **options)(6) for _ in range(2))
    compiled = torch.compile(compiled_from, fullgraph=True, backend=backend)
    make = torch.Generator().manual_seed(0)
    for training in (True, True, False):
        x = torch.randn(4, 6, 5, 3, generator=make)
        g = torch.randn(4, 6, 5, 3, generator=make)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        eager.train(training), compiled.train(training)
        ya, yb = eager(a), compiled(b)
        torch.testing.assert_close(yb, ya, rtol=1e-5, atol=1e-5)
        ya.backward(g), yb.backward(g)
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-5)
    for p, q in zip(eager.parameters(), compiled_from.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-4)
    for p, q in zip(eager.buffers(), compiled_from.buffers(), strict=True):
        torch.testing.assert_close(q, p)


@pytest.mark.slow
def test_compiled_network_under_autocast() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    norm = norm_layer("gbn", quadrangle="cvar")
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), norm(8), nn.Conv2d(8, 4, 3, bias=False), norm(4))
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 3, 9, 9).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        expected = net(x)
        y = compiled(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)
    y.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
