"""What every classifier must do: each of the registry, and those of other packages.

``pytest --gbn-model their.module:Net`` puts a network of another package through it, and runs nothing else.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gbn.kernels.activation import ACTIVATIONS
from gbn.methods import CONTROLS
from gbn.models import initialize
from gbn.nn import METHODS, norm_layer
from gbn.nn.placement import ROLES
from tests.models.networks import Network, RecordingNorms

MATCHED = {"matched_to": {"quadrangle": "cvar"}}
OPTIONS: dict[str, dict[str, Any]] = dict.fromkeys(CONTROLS, MATCHED)


def images(count: int, channels: int = 3, size: int = 32) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def assert_all_take_part(model: nn.Module) -> None:
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{path} takes no part"
        assert parameter.grad.isfinite().all(), path
        assert parameter.grad.abs().max() > 0, f"{path} takes no part"


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 2), (28, 1), (32, 3), (33, 3)])
def test_forward_and_backward_at_every_size(network: Network, size: int, channels: int) -> None:
    sizes = {"in_channels": channels, "num_classes": 7, "image_size": size}
    try:
        model = network.build(RecordingNorms(), **sizes)
    except ValueError:  # a network may need larger images, and says so when it is built
        with pytest.raises(ValueError, match=f"{size}"):
            network.build(RecordingNorms(), **sizes)
        assert size < 32
        return
    logits = initialize(model, 0)(images(5, channels, size))
    assert logits.shape == (5, 7)
    nn.functional.cross_entropy(logits, torch.arange(5)).backward()
    assert_all_take_part(model)


def test_every_norm_asked_for_stands_in_the_network_once(network: Network) -> None:
    norms = RecordingNorms()
    model = network.build(norms)
    assert norms.calls
    for call in norms.calls:
        assert call["role"] in ROLES
        assert call["act"] is None or call["act"] in ACTIVATIONS
    used = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(used) == len(norms.calls)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "custom"])
def test_trains_a_step_with_every_method(network: Network, method: str) -> None:
    model = initialize(network.build(norm_layer(method, **OPTIONS.get(method, {})), num_classes=4), 0)
    x = images(6)
    if method == "instance":
        try:
            model(x)
        except ValueError:
            # One value an image and channel cannot be normalized: refused, where zeros would train nothing.
            with pytest.raises(ValueError, match=r"instance|more than 1 spatial"):
                model(x)
            return
    logits = model(x)
    assert logits.shape == (6, 4)
    nn.functional.cross_entropy(logits, torch.arange(6) % 4).backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
    assert model.eval()(x).isfinite().all()


def tensors_outside_norms(model: nn.Module) -> dict[str, Tensor]:
    owners = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    own = {parameter for m in owners for parameter in m.parameters(recurse=False)}
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter in own}


@pytest.mark.parametrize("method", ["gbn", "bn_reparam", "none"])
def test_every_arm_starts_from_the_same_shared_tensors(network: Network, method: str) -> None:
    norm = norm_layer(method, **OPTIONS.get(method, {}))
    reference = tensors_outside_norms(initialize(network.build(norm_layer("bn")), 0))
    arm = tensors_outside_norms(initialize(network.build(norm), 0))
    # `none` may have biases besides; nothing that the reference has is missing or different.
    assert arm.keys() >= reference.keys()
    for path, value in reference.items():
        assert torch.equal(arm[path], value), path
    other = tensors_outside_norms(initialize(network.build(norm), 1))
    assert any(not torch.equal(other[path], value) for path, value in arm.items())


def test_evaluation_of_an_image_does_not_depend_on_the_others(network: Network) -> None:
    model = initialize(network.build(norm_layer("bn")), 0)
    x = images(4)
    model(x)
    model.eval()
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(one) for one in x.split(1)])
    scale = together.abs().max().item()  # to rounding: other batch sizes take other vector paths
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4 * scale)


def test_a_state_dict_makes_the_same_network(network: Network) -> None:
    model, other = (initialize(network.build(norm_layer("bn")), seed) for seed in (0, 1))
    other.load_state_dict(model.state_dict())
    x = images(2)
    with torch.no_grad():
        assert torch.equal(other.eval()(x), model.eval()(x))


def test_state_dict_paths_hold_no_trace_of_how_norm_and_act_are_joined(network: Network) -> None:
    """Paths outside the norms are the same with any norm: checkpoints and placement patterns rely on them."""

    class Fused(nn.BatchNorm2d):
        def _check_input_dim(self, input: Tensor) -> None:
            pass

    def fused(num_features: int, act: str | None = "relu", dim: int = 2, role: str = "body") -> nn.Module:
        return Fused(num_features)

    def outside(norms: Any) -> list[str]:
        model = network.build(norms)
        found = [path for path, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        names = [path for path, _ in model.named_parameters()]
        return [path for path in names if not path.startswith(tuple(f"{norm}." for norm in found))]

    assert outside(RecordingNorms()) == outside(fused)
