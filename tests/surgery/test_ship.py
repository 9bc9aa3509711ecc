"""Networks without a layer of this package: the same function as plain BatchNorm, or inside the convolutions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import gbn
from gbn.nn import norm_layer
from gbn.nn.base import BatchStatisticsNorm
from gbn.surgery import NotAffine
from tests.surgery.networks import Block, network, randomize
from tests.surgery.test_convert import PAIRS, outputs, state


def of(name: str, act: str = "keep") -> nn.Module:
    """A network of this method; IEBN and controls as they begin."""
    return gbn.convert(network(), name, match="function", act=act, **PAIRS[name]).model


@pytest.mark.parametrize("act", ["keep", "fuse"])
@pytest.mark.parametrize("name", [name for name in PAIRS if name != "bn"])
def test_to_batchnorm(name: str, act: str) -> None:
    model = of(name, act)
    before = state(model)
    done = gbn.to_batchnorm(model)
    assert len(done.changed) == 5
    assert not done.kept
    assert not any(isinstance(layer, BatchStatisticsNorm) for layer in done.model.modules())
    torch.testing.assert_close(outputs(done.model), outputs(model), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), state(model).values(), strict=True))


def test_batch_normalization_far_from_zero_is_exact_too() -> None:
    """Gain and shift alone would cancel where |S| is large beside D."""
    model = nn.Sequential(norm_layer("gbn_mad")(4, act=None)).eval()
    layer = model[0]
    layer.running_statistic.fill_(1e4)
    layer.running_deviation.fill_(0.5)
    x = 1e4 + torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gbn.to_batchnorm(model).model(x), model(x), rtol=1e-5, atol=1e-3)


def test_what_no_batch_normalization_computes_is_refused_or_kept() -> None:
    model = nn.Sequential(norm_layer("mixture")(4), nn.Conv2d(4, 4, 1), norm_layer("gbn_cvar")(4))
    model(torch.randn(16, 4, 6, 6, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(NotAffine, match="'0': MixtureNorm2d is not one affine map"):
        gbn.to_batchnorm(model)
    done = gbn.to_batchnorm(model, strict=False)
    assert [path for path, _ in done.kept] == ["0"]
    assert [one.path for one in done.changed] == ["2"]


@pytest.mark.parametrize("act", ["keep", "fuse"])
@pytest.mark.parametrize("name", PAIRS)
def test_fold(name: str, act: str) -> None:
    model = of(name, act)
    before = state(model)
    done = gbn.fold(model)
    assert len(done.changed) == 5
    assert not done.kept
    torch.testing.assert_close(outputs(done.model), outputs(model), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), state(model).values(), strict=True))
    norms = (BatchStatisticsNorm, nn.modules.batchnorm._BatchNorm)
    assert not any(isinstance(layer, norms) for layer in done.model.modules())


def trained(channels: int, dim: int = 2, act: str | None = None) -> nn.Module:
    layer = norm_layer("gbn_cvar")(channels, act=act, dim=dim)
    generator = torch.Generator().manual_seed(channels)
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias, layer.running_statistic, layer.running_deviation):
            tensor.copy_(0.5 + torch.rand(channels, generator=generator))
    return layer.eval()


_LAYERS: dict[str, tuple[Callable[[], nn.Module], int, tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1, bias=False), 1, (2, 4, 7)),
    "conv2d grouped": (
        lambda: nn.Conv2d(4, 6, 3, groups=2, padding_mode="circular", padding=1),
        2,
        (2, 4, 5, 6),
    ),
    "conv3d": (lambda: nn.Conv3d(4, 6, 2), 3, (2, 4, 3, 4, 5)),
    "transposed1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), 1, (2, 4, 7)),
    "transposed2d grouped": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False),
        2,
        (2, 4, 5, 6),
    ),
    "transposed3d": (lambda: nn.ConvTranspose3d(4, 6, 2), 3, (2, 4, 3, 4, 5)),
    "linear": (lambda: nn.Linear(4, 6, bias=False), 1, (5, 4)),
}


@pytest.mark.parametrize("kind", _LAYERS)
def test_fold_into_the_layer_before(kind: str) -> None:
    torch.manual_seed(0)
    build, dim, shape = _LAYERS[kind]
    model = nn.Sequential(build(), trained(6, dim)).double()
    x = torch.randn(shape, dtype=torch.float64)
    done = gbn.fold(model)
    assert [one.path for one in done.changed] == ["1"]
    torch.testing.assert_close(done.model(x), model(x))


@pytest.mark.parametrize("kind", [kind for kind in _LAYERS if "transposed" not in kind])
def test_fold_into_the_layer_after(kind: str) -> None:
    torch.manual_seed(0)
    build, dim, shape = _LAYERS[kind]
    layer = build()
    pads = any(getattr(layer, "padding", ()))
    model = nn.Sequential(trained(4, dim), layer).double()
    x = torch.randn(shape, dtype=torch.float64)
    done = gbn.fold(model)
    assert [one.path for one in done.changed] == ([] if pads else ["0"])
    assert all("pads with zeros" in reason for _, reason in done.kept)
    torch.testing.assert_close(done.model(x), model(x))


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), trained(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.conv(x)


class _Branches(_Twice):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y + self.norm(y)


class _ReadsWeight(_Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.conv.weight.sum()


class _Decides(_Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if x.sum() > 0 else x


class _Functional(_Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.relu(self.conv(x)))


class _List(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 3, 1), trained(3)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (_Twice, "the Conv2d next to it is called 2 times"),
        (_Branches, "no convolution or linear layer is its only neighbor"),
        (_ReadsWeight, "the Conv2d next to it is called 3 times"),
        (_Decides, "_Decides.forward cannot be traced"),
        (_Functional, "no convolution or linear layer is its only neighbor"),
    ],
)
def test_what_the_code_does_not_prove_is_not_folded(build: Callable[[], nn.Module], reason: str) -> None:
    torch.manual_seed(0)
    model = build().eval()
    done = gbn.fold(model)
    assert not done.changed
    assert [(path, reason in why) for path, why in done.kept] == [("norm", True)]
    assert reason in str(done)
    assert torch.equal(outputs(done.model), outputs(model))


def test_lists_of_modules_are_followed() -> None:
    model = _List().eval()
    done = gbn.fold(model)
    assert [one.path for one in done.changed] == ["layers.1"]
    torch.testing.assert_close(outputs(done.model), outputs(model), rtol=1e-5, atol=1e-6)


def _shared() -> nn.Module:
    norm = trained(3)
    return nn.Sequential(nn.Conv2d(3, 3, 1), norm, nn.Conv2d(3, 3, 1), norm)


def _hooked() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), trained(3))
    model[0].register_forward_hook(_double)
    return model


def _double(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
    return 2 * output


def _parametrized() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 3, 1)), trained(3))


def _tied() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), trained(3), nn.ReLU(), nn.Conv2d(3, 3, 1))
    model[3].weight = model[0].weight
    return model


@pytest.mark.parametrize("build", [_shared, _hooked, _parametrized, _tied])
def test_shared_watched_and_parametrized_layers_are_left(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = build().eval()
    done = gbn.fold(model)
    assert not done.changed
    torch.testing.assert_close(outputs(done.model), outputs(model))


def test_a_trained_gate_is_not_affine() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), norm_layer("iebn")(4)).eval()
    with torch.no_grad():
        for parameter in model[1].parameters():
            parameter.add_(0.3)
    done = gbn.fold(model)
    assert "not one affine map per channel" in done.kept[0][1]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_torchs_own_norms_fold_too(norm: Any) -> None:
    torch.manual_seed(0)
    model = randomize(nn.Sequential(nn.Conv2d(3, 4, 1), norm(4), nn.ReLU(), Block(4)))
    done = gbn.fold(model)
    assert len(done.changed) == 3
    torch.testing.assert_close(outputs(done.model), outputs(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v3_small"])
def test_torchvision(name: str) -> None:
    from gbn.data import torchvision_shim

    torchvision_shim.import_torchvision()
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = randomize(models.get_model(name))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        gbn.convert(model, "gbn_cvar", match="function")
        for done in (gbn.to_batchnorm(model), gbn.fold(model)):
            torch.testing.assert_close(done.model(x), expected, rtol=1e-3, atol=1e-4)
    gone = sum(isinstance(layer, BatchStatisticsNorm) for layer in model.modules()) - len(done.kept)
    assert len(done.changed) == gone
    assert gone >= 20
