"""The U-Net: published parameter counts, sizes, padding, activations, norms, initial values."""

from collections import Counter

import pytest
import torch
from torch import nn

from gbn.models import initialize
from gbn.models.unet import UNet
from gbn.nn import norm_layer
from tests.models.networks import RecordingNorms


def count(norms, **options):
    with torch.device("meta"):
        model = UNet(norms, 1, 1, 96, **options)
    return sum(parameter.numel() for parameter in model.parameters())


def small(norms, in_channels=1, num_classes=2, **options):
    return UNet(norms, in_channels, num_classes, 32, **({"width": 0.0625, "depth": 2} | options))


@pytest.mark.parametrize(
    ("options", "none", "with_bn"),
    # BN adds gain and bias to 5,888 channels (2,944 at f = 32); the counts keep the convolutions' biases beside it.
    [
        ({}, 31_030_593, 31_030_593 + 2 * 5_888),
        ({"width": 0.5}, 7_759_521, 7_759_521 + 5_888),
    ],
)
def test_parameter_counts_of_the_reconstruction(options, none, with_bn):
    assert count(norm_layer("none"), **options) == none
    assert count(norm_layer("bn"), bias=True, **options) == with_bn
    # Biases that BN takes away again are left out unless asked for.
    assert count(norm_layer("bn"), **options) == none + (with_bn - none) // 2


def test_31_042_369_parameters_with_bn():
    assert count(norm_layer("bn"), bias=True) == 31_042_369


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (30, 45), (3, 3)])
def test_logits_have_the_images_size(size):
    model = small(RecordingNorms(), in_channels=3)
    assert model(torch.randn(2, 3, *size)).shape == (2, 2, *size)


def test_padding_repeats_the_edge_evenly_and_is_cut_off_again():
    torch.manual_seed(0)
    model = small(RecordingNorms()).eval()
    x = torch.randn(1, 1, 13, 10)
    padded = nn.functional.pad(x, (1, 1, 1, 2), mode="replicate")
    torch.testing.assert_close(model(x), model(padded)[:, :, 1:14, 1:11])


def test_sizes_that_halve_evenly_are_not_padded():
    x = torch.randn(1, 1, 96, 96)
    model = UNet(RecordingNorms(), 1, 1, 96, width=0.0625)
    assert model._padded(x)[0] is x


def test_norms_are_asked_for_by_place_and_activation():
    norms = RecordingNorms()
    with torch.device("meta"):
        UNet(norms, 1, 1, 96)
    assert Counter(call["role"] for call in norms.calls) == {"stem": 1, "body": 17}
    assert {call["act"] for call in norms.calls} == {"elu"}
    assert [call["num_features"] for call in norms.calls[::2]] == [64, 128, 256, 512, 1024, 512, 256, 128, 64]
    relu = RecordingNorms()
    small(relu, activation="relu")
    assert {call["act"] for call in relu.calls} == {"relu"}


@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_without_norms_it_is_convolutions_and_activations(activation):
    """Level by level, from torch's functions: what is concatenated where, and which activation runs."""
    model = initialize(small(norm_layer("none"), activation=activation, depth=1), 0)
    x = torch.randn(2, 1, 8, 8)
    act = {"relu": torch.relu, "elu": nn.functional.elu}[activation]

    def double(block, y):
        for layer in block:
            y = act(nn.functional.conv2d(y, layer.conv.weight, layer.conv.bias, padding=1))
        return y

    top = double(model.down[0], x)
    low = double(model.down[1], nn.functional.max_pool2d(top, 2))
    up = nn.functional.conv_transpose2d(low, model.up[0].weight, model.up[0].bias, stride=2)
    expected = model.head(double(model.merge[0], torch.cat((top, up), 1)))
    torch.testing.assert_close(model(x), expected)


ARMS = [
    ("none", {}),
    ("bn", {}),
    ("gbn", {"quadrangle": "cvar"}),
    ("iebn", {}),
    ("mixture", {}),
    ("bn_matched", {"matched_to": {"quadrangle": "cvar"}}),
    ("bn_reparam", {"matched_to": {"quadrangle": "cvar"}}),
]


@pytest.mark.parametrize("activation", ["relu", "elu"])
@pytest.mark.parametrize(("method", "options"), ARMS)
def test_every_parameter_takes_part_with_every_arm(method, options, activation):
    model = initialize(small(norm_layer(method, **options), activation=activation), 0)
    model(torch.randn(3, 1, 16, 16)).square().mean().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
    assert model.up[0].weight.grad.abs().max() > 0


def test_arms_start_from_the_same_convolutions():
    def outside(method, options, **more):
        model = initialize(small(norm_layer(method, **options), **more), 3)
        kinds = nn.Conv2d | nn.ConvTranspose2d
        return {path: module.weight for path, module in model.named_modules() if isinstance(module, kinds)}

    reference = outside("bn", {})
    for method, options in ARMS:
        for activation in ("relu", "elu"):
            arm = outside(method, options, activation=activation)
            assert arm.keys() == reference.keys()
            assert all(torch.equal(arm[path], reference[path]) for path in reference)


def test_transposed_convolutions_keep_the_variance():
    """No activation follows, so the gain is 1: each output sees every input channel once."""
    model = initialize(UNet(norm_layer("bn"), 1, 1, 96, width=0.5, depth=2), 0)
    x = torch.randn(4, 128, 16, 16)
    up = model.up[0]
    assert up(x).var().item() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "at least 1, 0 was given"),
        ({"activation": "gelu"}, "'relu' or 'elu', 'gelu' was given"),
        ({"width": 0}, "width must be positive"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        small(RecordingNorms(), **options)
