"""Our norms in models of timm, of both of its conventions, and of torchvision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gbn.nn import GeneralizedBatchNorm2d, LayerNormAct, as_timm, as_torchvision, norm_layer

torchvision_shim = pytest.importorskip("gbn.data.torchvision_shim")
NORM = norm_layer("gbn", quadrangle="cvar", alpha=0.75)


@pytest.fixture(scope="module")
def timm() -> Any:
    torchvision_shim.import_torchvision()  # timm imports torchvision, which alone cannot load on some machines
    return pytest.importorskip("timm")


def step(model: nn.Module) -> None:
    model.train()
    loss = model(torch.randn(2, 3, 64, 64)).square().mean()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def acts(model: nn.Module) -> list[str | None]:
    return [layer.act for layer in model.modules() if isinstance(layer, GeneralizedBatchNorm2d)]


@pytest.mark.slow
def test_model_that_applies_activations_itself(timm: Any) -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", norm_layer=as_timm(NORM), num_classes=3)
    plain = timm.create_model("resnet10t", num_classes=3)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert set(acts(model)) == {None}
    assert len(acts(model)) == sum(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in plain.named_parameters()]
    step(model)


@pytest.mark.slow
def test_model_whose_norms_apply_the_activation(timm: Any) -> None:
    torch.manual_seed(0)
    norm = as_timm(NORM, applies_act=True, act="silu")
    model = timm.create_model("test_efficientnet", norm_layer=norm, num_classes=3)
    plain = timm.create_model("test_efficientnet", num_classes=3)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    # where timm's own norm has an activation, ours has one, and where it has none, ours has none
    theirs = [
        None if isinstance(m.act, nn.Identity) else "silu"
        for m in plain.modules()
        if isinstance(m, nn.BatchNorm2d)
    ]
    assert acts(model) == theirs
    assert set(theirs) == {None, "silu"}
    step(model)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (nn.ReLU, "relu"),
        (nn.SiLU, "silu"),
        (nn.GELU, "gelu"),
        ("swish", "silu"),
        ("relu6", "relu6"),
        (None, None),
        (type("Mish", (nn.Module,), {}), "mish"),
        (type("HardSwish", (nn.Module,), {}), None),
    ],
)
def test_activation_layers_are_understood(given: Any, expected: str | None) -> None:
    norm = as_timm(NORM)
    if isinstance(given, type) and given.__name__ == "HardSwish":
        assert norm(8, apply_act=True, act_layer=given).act == "hardswish"
        return
    assert norm(8, apply_act=True, act_layer=given).act == expected
    assert norm(8, act_layer=given).act is None  # the model applies it


def test_what_is_not_supported_is_refused() -> None:
    norm = as_timm(NORM, applies_act=True)
    with pytest.raises(ValueError, match=r"is unknown.*: allowed are"):
        norm(8, act_layer=nn.PReLU)
    with pytest.raises(ValueError, match="not supported"):
        norm(8, drop_layer=nn.Dropout)
    with pytest.raises(ValueError, match="act='rulu' is unknown"):
        as_timm(NORM, act="rulu")
    assert norm(8).act == "relu"
    assert norm(8, apply_act=False).act is None


def test_torchvision_applies_its_own_activations() -> None:
    models = torchvision_shim.import_torchvision().models
    torch.manual_seed(0)
    model = models.resnet18(norm_layer=as_torchvision(norm_layer("gbn_std")), num_classes=3)
    torch.manual_seed(0)
    plain = models.resnet18(num_classes=3)
    plain.load_state_dict(model.state_dict())
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(model(x), plain(x), rtol=1e-4, atol=1e-4)


def test_torchvision_passes_eps_and_momentum() -> None:
    build = as_torchvision(norm_layer("gbn_cvar", eps=1e-4))
    assert build(4).eps == 1e-4
    layer = build(4, eps=1e-3, momentum=0.01)
    assert (layer.eps, layer.momentum, layer.act) == (1e-3, 0.01, None)
    assert isinstance(as_torchvision(norm_layer("layer"))(4, momentum=0.01), LayerNormAct)
