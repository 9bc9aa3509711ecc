"""Every registered network: parameter counts, shapes, widths, the norms it asks for, its options."""

from collections import Counter

import pytest
import torch
from torch import nn

from gbn.models import MODELS, build
from gbn.models.interface import needs_bias, scaled
from tests.models.networks import COMMON, RecordingNorms, abstract, count, stage_shapes

SMALLEST = {"lenet": 16, "vgg": 32}
#: Those whose roles are written down here; what holds for every network is in test_shared.py.
KNOWN = (
    *("cnn", "densenet", "inception_v3", "lenet", "mlp", "preact_resnet", "preact_resnet_bottleneck"),
    *("resnet", "resnet18", "resnet_bottleneck", "resnext", "vgg"),
)


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        # He et al. 2016a, table 6: 0.27M, 0.46M, 0.66M, 0.85M, 1.7M (shortcut A, BatchNorm's included).
        ("resnet", {"depth": 20}, 269_722),
        ("resnet", {"depth": 32}, 464_154),
        ("resnet", {"depth": 44}, 658_586),
        ("resnet", {"depth": 56}, 853_018),
        ("resnet", {"depth": 110}, 1_727_962),
        ("resnet", {"depth": 20, "shortcut": "B"}, 272_474),
        ("resnet", {"depth": 20, "num_classes": 100}, 275_572),
        # As many norms over as many channels as the ResNet of the same depth.
        ("preact_resnet", {"depth": 20}, 269_722),
        ("preact_resnet", {"depth": 110}, 1_727_962),
        # Two 1x1 convolutions, 16 x 32 and 32 x 64, without norm.
        ("preact_resnet", {"depth": 20, "shortcut": "B"}, 269_722 + 16 * 32 + 32 * 64),
        # The CIFAR ResNet-18 in general use.
        ("resnet18", {}, 11_173_962),
        # The CIFAR VGG-16 in general use has 14,728,266, of them 4,224 biases of convolutions before a norm.
        ("vgg", {}, 14_728_266 - 4_224),
        # 61,706 with biases (LeNet-5 with a full third layer); norms trade 226 biases for 2 x 226.
        ("lenet", {"in_channels": 1, "image_size": 28}, 61_706 + 226),
        ("lenet", {"in_channels": 1, "image_size": 32}, 61_706 + 226),
        # 25 (3*64 + 64*128 + 128*128) + 9 or 25 (128*256) + norms 2*576 + 2570, counted by hand.
        ("cnn", {}, 25 * (192 + 8192 + 16384) + 9 * 32768 + 1152 + 2570),
        ("cnn", {"last_kernel": 5}, 25 * (192 + 8192 + 16384) + 25 * 32768 + 1152 + 2570),
        ("mlp", {"in_channels": 1, "image_size": 8}, 64 * 256 + 2 * 256**2 + 3 * 512 + 2570),
        ("mlp", {"in_channels": 1, "image_size": 8, "depth": 1}, 64 * 256 + 512 + 2570),
    ],
)
def test_parameter_counts_are_those_of_the_literature(name, options, parameters):
    assert count(name, **options) == parameters


def test_preactivation_normalizes_as_many_channels_as_the_plain_network():
    plain, preactivated = RecordingNorms(), RecordingNorms()
    build("resnet", plain, **COMMON)
    build("preact_resnet", preactivated, **COMMON)
    assert len(plain.calls) == len(preactivated.calls) == 19
    widths = [sorted(call["num_features"] for call in norms.calls) for norms in (plain, preactivated)]
    assert sum(widths[0]) == sum(widths[1])


@pytest.mark.parametrize("name", SMALLEST)
def test_images_that_are_too_small_are_refused(name):
    with pytest.raises(ValueError, match=f"at least {SMALLEST[name]}x{SMALLEST[name]}.*use cnn"):
        build(name, RecordingNorms(), in_channels=1, num_classes=7, image_size=SMALLEST[name] - 1)


@pytest.mark.parametrize("name", MODELS)
def test_width_scales_every_channel(name):
    full, half, double = RecordingNorms(), RecordingNorms(), RecordingNorms()
    for norms, width in ((full, 1.0), (half, 0.5), (double, 2.0)):
        abstract(name, norms, width=width)
    for a, b, c in zip(full.calls, half.calls, double.calls, strict=True):
        assert b["num_features"] == scaled(a["num_features"], 0.5)
        assert c["num_features"] == 2 * a["num_features"]
        assert a | {"num_features": 0} == b | {"num_features": 0} == c | {"num_features": 0}


@pytest.mark.parametrize(
    ("channels", "width", "result"),
    [(64, 1.0, 64), (64, 0.25, 16), (6, 0.5, 4), (6, 1.0, 6), (16, 0.1, 4), (3, 0.1, 3), (84, 1.5, 126)],
)
def test_scaled(channels, width, result):
    assert scaled(channels, width) == result


@pytest.mark.parametrize("width", [0, -1.0, float("nan")])
def test_width_must_be_positive(width):
    with pytest.raises(ValueError, match="width must be positive"):
        build("mlp", RecordingNorms(), **COMMON, width=width)


@pytest.mark.parametrize("name", KNOWN)
def test_norms_are_asked_for_by_role(name):
    norms = RecordingNorms()
    abstract(name, norms)
    roles = Counter(call["role"] for call in norms.calls)
    # A DenseNet normalizes its stem's output anew before each of the layers that it goes to.
    assert roles["stem"] == (name not in ("mlp", "densenet"))
    for call in norms.calls:
        # An activation follows exactly where no sum does.
        assert (call["act"] is None) == (call["role"] in ("branch_end", "shortcut"))
    expected = {"resnet": (9, 0), "resnet18": (8, 3), "resnet_bottleneck": (54, 3), "resnext": (9, 3)}
    assert (roles["branch_end"], roles["shortcut"]) == expected.get(name, (0, 0))


def test_shortcut_b_asks_for_norms_on_shortcuts():
    norms = RecordingNorms()
    build("resnet", norms, **COMMON, shortcut="B")
    assert Counter(call["role"] for call in norms.calls)["shortcut"] == 2


@pytest.mark.parametrize("name", MODELS)
def test_biases_before_norms_only_where_the_norm_gives_none(name):
    def hidden_biases(norms, **options):
        model = abstract(name, norms, **options)
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert model.head.bias is not None
        return {layer.bias is not None for layer in layers if layer is not model.head}

    assert hidden_biases(RecordingNorms()) == {False}
    assert hidden_biases(RecordingNorms(needs_bias=True)) == {True}
    assert hidden_biases(RecordingNorms(), bias=True) == {True}
    assert hidden_biases(RecordingNorms(needs_bias=True), bias=False) == {False}


def test_a_plain_function_needs_no_bias():
    assert needs_bias(lambda num_features, act="relu", dim=2, role="body": nn.Identity(), "auto") is False


def test_lenet_with_biases_and_without_norms_is_the_known_network():
    def none(num_features, act="relu", dim=2, role="body"):
        return nn.ReLU()

    model = build("lenet", none, in_channels=1, num_classes=10, image_size=28, bias=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == 61_706


def test_cnn_pools_to_the_sizes_of_the_paper():
    model = build("cnn", RecordingNorms(), **COMMON)
    layers = (model.layer1, model.layer2, model.layer3, model.layer4)
    assert stage_shapes(model, layers) == [(64, 32, 32), (128, 16, 16), (128, 8, 8), (256, 4, 4)]


def test_residual_networks_halve_twice():
    for name in ("resnet", "preact_resnet"):
        model = build(name, RecordingNorms(), **COMMON, depth=8)
        assert stage_shapes(model, model.stages) == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_pad_shortcut_subsamples_and_appends_zero_channels():
    from gbn.models.resnet import PadShortcut

    x = torch.randn(2, 3, 5, 5)
    y = PadShortcut(3, 8, 2)(x)
    assert y.shape == (2, 8, 3, 3)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()
    with pytest.raises(ValueError, match="from 8 to 3 channels"):
        PadShortcut(8, 3, 1)


def test_basic_block_is_its_formula():
    from gbn.models.resnet import BasicBlock

    block = BasicBlock(RecordingNorms(), 4, 4).eval()
    x = torch.randn(2, 4, 6, 6)
    branch = block.layer2.norm(block.layer2.conv(block.layer1.norm(block.layer1.conv(x))))
    torch.testing.assert_close(block(x), torch.relu(branch + x))
    assert (block.layer1(x) >= 0).all()
    assert (block.layer2(block.layer1(x)) < 0).any()  # no activation before the sum


def test_preactivation_block_keeps_the_shortcut_path_clean():
    from gbn.models.resnet import PreActBlock

    block = PreActBlock(RecordingNorms(), 4, 4).eval()
    nn.init.zeros_(block.conv.weight)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), x)  # an identity also where x is negative
    projected = PreActBlock(RecordingNorms(), 4, 8, stride=2, shortcut="B").eval()
    nn.init.zeros_(projected.conv.weight)
    torch.testing.assert_close(projected(x), projected.shortcut(projected.norm(x)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {"depth": 21}, r"6n\+2.*21 was given"),
        ("resnet", {"depth": 2}, r"6n\+2"),
        ("preact_resnet", {"depth": 18}, r"6n\+2"),
        ("resnet", {"shortcut": "C"}, "'A' .*'B' .*'C' was given"),
        ("preact_resnet", {"shortcut": "a"}, "'a' was given"),
        ("cnn", {"last_kernel": 4}, "3 or 5, 4 was given"),
        ("mlp", {"depth": 0}, "at least 1, 0 was given"),
        (
            "resnt",
            {},
            r"unknown model 'resnt' \(did you mean 'resnet'\?\); allowed: cnn, custom, dcgan, densenet",
        ),
        ("cnn", {"widht": 0.5}, r"no option 'widht' \(did you mean 'width'\?\); allowed: in_channels"),
        ("cnn", {"zzz": 0.5}, "no option 'zzz'; allowed"),
    ],
)
def test_wrong_options_are_one_clear_line(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(name, RecordingNorms(), **COMMON, **options)
    assert "\n" not in str(caught.value)
