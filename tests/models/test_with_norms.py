"""Networks with the norms of gbn.nn: paired initial values across every arm, kept starts of the controls."""

import pytest
import torch
from torch import nn

from gbn import risk
from gbn.methods import CONTROLS
from gbn.models import build, initialize
from gbn.nn import METHODS, norm_layer
from tests.models.networks import SMALL

OPTIONS = {control: {"matched_to": {"quadrangle": "cvar"}} for control in CONTROLS}
OPTIONS["custom"] = {"target": "torch.nn:BatchNorm2d"}
PAIRS = [("gbn", {"quadrangle": name}) for name in risk.QUADRANGLES]
ARMS = [(method, OPTIONS.get(method, {})) for method in METHODS] + PAIRS


def network(name, method, options, **more):
    size = 32 if name == "vgg" else 16
    width = {"vgg": 0.0625, "resnet18": 0.0625, "resnext": 0.0625}.get(name, 0.25)
    sizes = {"in_channels": 3, "num_classes": 4, "image_size": size}
    made = sizes | SMALL.get(name, {}) | {"width": width} | more
    return build(name, norm_layer(method, **options), **made), size


def tensors_outside_norms(model):
    owners = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    own = {parameter for m in owners for parameter in m.parameters(recurse=False)}
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter in own}


@pytest.mark.parametrize(("method", "options"), ARMS, ids=lambda value: str(value))
def test_every_arm_starts_from_the_same_shared_tensors(method, options):
    reference = tensors_outside_norms(initialize(network("resnet", "bn", {})[0], 0))
    arm = tensors_outside_norms(initialize(network("resnet", method, options)[0], 0))
    # `none` has biases besides; nothing that the reference has is missing or different.
    assert arm.keys() >= reference.keys()
    for path, value in reference.items():
        assert torch.equal(arm[path], value), path


def test_the_start_of_a_matched_control_survives():
    model, _ = network("cnn", "bn_matched", {"matched_to": {"quadrangle": "cvar", "alpha": 0.75}})
    before = {name: value.clone() for name, value in model.state_dict().items() if "norm" in name}
    initialize(model, 0)
    after = model.state_dict()
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    # 1/c and -k/c of the quantile pair on a Gaussian at alpha = 3/4: c = phi(z)/(1 - alpha), k = z.
    assert after["layer1.norm.weight"].mean().item() == pytest.approx(0.7867, abs=1e-4)
    assert after["layer1.norm.bias"].mean().item() == pytest.approx(-0.5306, abs=1e-4)


def test_biases_come_with_the_method_none_only():
    for method, options in ARMS:
        model, _ = network("cnn", method, options)
        assert (model.layer1.conv.bias is not None) == (method == "none")


def test_checkpoints_of_bn_fit_the_pair_mean_and_standard_deviation():
    plain, size = network("preact_resnet", "bn", {})
    pair, _ = network("preact_resnet", "gbn", {"quadrangle": "std"})
    initialize(plain, 0)
    images = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    plain(images)
    pair.load_state_dict(plain.state_dict())
    torch.testing.assert_close(pair.eval()(images), plain.eval()(images), rtol=1e-5, atol=1e-5)
