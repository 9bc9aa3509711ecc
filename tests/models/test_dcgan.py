"""DCGAN's two networks: parameter counts, shapes, where norms stand, initial values."""

import pytest
import torch
from torch import nn

from gbn.models import build, initialize
from gbn.models.dcgan import Discriminator, Generator
from gbn.nn import norm_layer
from tests.models.networks import COMMON, RecordingNorms, abstract


def test_parameter_counts():
    with torch.device("meta"):
        model = build("dcgan", RecordingNorms(), **COMMON)
    # 4x4 kernels: 100-512, 512-256, 256-128, 128-3 with bias; gain and bias of 512 + 256 + 128 channels.
    generator = 16 * (100 * 512 + 512 * 256 + 256 * 128 + 128 * 3) + 3 + 2 * (512 + 256 + 128)
    # 3-128 with bias, 128-256, 256-512, 512-1 with bias; gain and bias of 256 + 512 channels.
    discriminator = 16 * (3 * 128 + 128 * 256 + 256 * 512 + 512) + 128 + 1 + 2 * (256 + 512)
    assert sum(p.numel() for p in model.generator.parameters()) == generator == 3_448_579
    assert sum(p.numel() for p in model.discriminator.parameters()) == discriminator == 2_637_441


def test_images_and_verdicts():
    model = initialize(build("dcgan", RecordingNorms(), width=0.0625, **COMMON), 0)
    latents = torch.randn(5, 100)
    images = model.generator(latents)
    assert images.shape == (5, 3, 32, 32)
    assert images.abs().max() <= 1
    assert model.discriminator(images).shape == (5,)
    model(latents).sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{path} takes no part"
        assert parameter.grad.isfinite().all(), path
    levels = [tuple(layer.norm.weight.shape) for layer in model.discriminator.layers[1:]]
    assert levels == [(16,), (32,)]


def test_no_norm_at_the_image_and_the_activations_are_the_papers():
    norms = RecordingNorms()
    model = build("dcgan", norms, **COMMON)
    assert [call["num_features"] for call in norms.calls] == [512, 256, 128, 256, 512]
    assert [call["act"] for call in norms.calls] == ["relu"] * 3 + [None] * 2
    down = model.discriminator.layers[0]
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(down(x), nn.functional.leaky_relu(down.conv(x), 0.2))
    assert (
        model.generator(torch.randn(2, 100)) == model.generator.output(torch.zeros(2, 128, 16, 16))
    ).sum() == 0


def test_initial_values_are_the_papers_but_for_the_gains():
    model = initialize(build("dcgan", norm_layer("bn"), **COMMON), 3)
    for path, parameter in model.named_parameters():
        if parameter.ndim == 4:
            assert parameter.mean().item() == pytest.approx(0, abs=0.02 * 5 / parameter.numel() ** 0.5), path
            assert parameter.std().item() == pytest.approx(0.02, rel=4 / parameter.numel() ** 0.5), path
        else:
            expected = 1.0 if path.endswith("norm.weight") else 0.0
            assert (parameter == expected).all(), path
    control = norm_layer("bn_matched", matched_to={"quadrangle": "cvar", "alpha": 0.75})
    start = initialize(build("dcgan", control, **COMMON), 3).generator.layers[0].norm.weight
    assert start.mean().item() == pytest.approx(0.7867, abs=1e-4)


def test_layers_have_a_bias_where_no_norm_gives_one():
    plain, normalized = (abstract("dcgan", RecordingNorms(needs_bias=bias)) for bias in (True, False))
    missing = {name for name, _ in plain.named_parameters()} - {
        name for name, _ in normalized.named_parameters()
    }
    layers = [f"generator.layers.{i}" for i in range(3)] + [f"discriminator.layers.{i}" for i in (1, 2)]
    assert missing == {f"{layer}.conv.bias" for layer in layers}


def test_parts_can_be_used_alone():
    generator, discriminator = (
        Generator(RecordingNorms(), 7, 1, width=0.1),
        Discriminator(RecordingNorms(), 1),
    )
    assert discriminator(generator(torch.randn(3, 7))).shape == (3,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 28}, "makes images of 32x32.*cifar10"),
        ({"latent": 0}, "at least 1"),
        ({"width": 0}, "width"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        build("dcgan", RecordingNorms(), **(COMMON | options))
