"""ResNet, pre-activation ResNet and ResNeXt of bottleneck blocks: published counts, formulas, depths."""

import pytest
import torch
from torch import nn

from gbn.models import build, initialize
from gbn.models.resnet import BottleneckBlock, PadShortcut, PreActBottleneck
from gbn.nn import norm_layer
from tests.models.networks import COMMON, RecordingNorms, abstract, count, stage_shapes

BOTTLENECKS = ("resnet_bottleneck", "preact_resnet_bottleneck", "resnext")


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        # The tables of github.com/osmr/imgclsmob for CIFAR, BatchNorm's gains and biases included: ResNet-164(BN),
        # ResNet-1001, PreResNet-164(BN), PreResNet-1001.
        ("resnet_bottleneck", {}, 1_704_154),
        ("resnet_bottleneck", {"num_classes": 100}, 1_727_284),
        ("resnet_bottleneck", {"depth": 1001}, 10_328_602),
        ("preact_resnet_bottleneck", {}, 1_703_258),
        ("preact_resnet_bottleneck", {"num_classes": 100}, 1_726_388),
        ("preact_resnet_bottleneck", {"depth": 1001}, 10_327_706),
        # Without its projections: 1x1 convolutions 16 x 64, 64 x 128, 128 x 256, and their norms in the first.
        ("resnet_bottleneck", {"shortcut": "A"}, 1_704_154 - (1024 + 8192 + 32768) - 2 * (64 + 128 + 256)),
        ("preact_resnet_bottleneck", {"shortcut": "A"}, 1_703_258 - (1024 + 8192 + 32768)),
        # Xie et al. 2017, table 7: 34.4M (8x64d), 68.1M (16x64d); 34.43 and 68.16 in the table of
        # github.com/bearpaw/pytorch-classification; 16x64d and 32x4d to the digit in imgclsmob's.
        ("resnext", {}, 34_426_698),
        ("resnext", {"cardinality": 16}, 68_155_210),
        ("resnext", {"cardinality": 32, "base_width": 4}, 4_775_754),
        ("resnext", {"cardinality": 32, "base_width": 4, "num_classes": 100}, 4_868_004),
    ],
)
def test_parameter_counts_are_the_published_ones(name, options, parameters):
    assert count(name, **options) == parameters


def test_instance_enhancement_adds_24224_parameters_to_resnet_164():
    """The number of IEBN's README: two a channel of every norm but those of the downsampling shortcuts."""
    norms = RecordingNorms()
    abstract("resnet_bottleneck", norms, num_classes=100)
    assert 2 * norms.channels("stem", "body", "branch_end") == 24_224
    assert norms.channels("shortcut") == 64 + 128 + 256
    # What the number leaves open: the pre-activation network normalizes as many channels.
    preactivated = RecordingNorms()
    abstract("preact_resnet_bottleneck", preactivated, num_classes=100)
    assert 2 * preactivated.channels() == 24_224


def test_the_layers_of_iebn_add_24224_parameters_to_resnet_164():
    def parameters(method):
        model = abstract("resnet_bottleneck", norm_layer(method), num_classes=100)
        return sum(parameter.numel() for parameter in model.parameters())

    assert parameters("iebn") - parameters("bn") == 24_224


@pytest.mark.parametrize(
    ("name", "sites"),
    [
        # n blocks of three norms in three stages, the stem's, and those of three shortcuts or the last one.
        ("resnet_bottleneck", 9 * 2 + 1 + 3),
        (
            "preact_resnet_bottleneck",
            9 * 2 + 1,
        ),  # the first block has the stem's, the last norm makes up for it
        ("resnext", 9 * 2 + 1 + 3),
    ],
)
def test_norm_sites_of_depth_20(name, sites):
    norms = RecordingNorms()
    abstract(name, norms, depth=20)
    assert len(norms.calls) == sites


@pytest.mark.parametrize(
    ("name", "options", "shapes"),
    [
        ("resnet_bottleneck", {}, [(64, 32, 32), (128, 16, 16), (256, 8, 8)]),
        ("preact_resnet_bottleneck", {}, [(64, 32, 32), (128, 16, 16), (256, 8, 8)]),
        ("resnext", {"cardinality": 2, "base_width": 4}, [(256, 32, 32), (512, 16, 16), (1024, 8, 8)]),
        ("resnet_bottleneck", {"width": 0.5}, [(32, 32, 32), (64, 16, 16), (128, 8, 8)]),
        ("resnext", {"width": 0.125}, [(32, 32, 32), (64, 16, 16), (128, 8, 8)]),
    ],
)
def test_stages_halve_the_image_twice_and_end_in_four_times_the_channels(name, options, shapes):
    model = build(name, RecordingNorms(), **COMMON, depth=11, **options)
    assert stage_shapes(model, model.stages) == shapes


def test_groups_of_resnext():
    def groups(**options):
        model = abstract("resnext", RecordingNorms(), depth=11, **options)
        return [(stage[0].layer2.conv.groups, stage[0].layer2.conv.out_channels) for stage in model.stages]

    assert groups() == [(8, 512), (8, 1024), (8, 2048)]
    assert groups(cardinality=32, base_width=4) == [(32, 128), (32, 256), (32, 512)]
    # Width acts on the channels of a group, of which one is left at least.
    assert groups(width=0.25) == [(8, 128), (8, 256), (8, 512)]
    assert groups(cardinality=32, base_width=4, width=0.5) == [(32, 64), (32, 128), (32, 256)]
    assert groups(cardinality=32, base_width=4, width=0.0625) == [(32, 32), (32, 32), (32, 32)]


def test_bottleneck_is_its_formula():
    block = BottleneckBlock(RecordingNorms(), 6, 4, 10, stride=2).eval()
    x = torch.randn(2, 6, 7, 7)
    inner = block.layer2(block.layer1(x))
    assert (block.layer1(x) >= 0).all()
    assert inner.shape == (2, 4, 4, 4)
    assert (inner >= 0).all()
    end = block.layer3.norm(block.layer3.conv(inner))
    assert (end < 0).any()  # no activation before the sum
    projected = block.shortcut.norm(block.shortcut.conv(x))
    torch.testing.assert_close(block(x), torch.relu(end + projected))


def test_strides_stand_where_the_published_code_has_them():
    plain = BottleneckBlock(RecordingNorms(), 8, 2, 8, stride=2)
    assert [layer.conv.stride for layer in (plain.layer1, plain.layer2)] == [(1, 1), (2, 2)]
    preactivated = PreActBottleneck(RecordingNorms(), 8, 2, 8, stride=2)
    assert [layer.conv.stride for layer in (preactivated.layer1, preactivated.layer2)] == [(2, 2), (1, 1)]


def test_preactivation_keeps_the_shortcut_path_clean():
    block = PreActBottleneck(RecordingNorms(), 8, 2, 8).eval()
    nn.init.zeros_(block.conv.weight)
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(x), x)  # an identity also where x is negative
    projected = PreActBottleneck(RecordingNorms(), 8, 4, 16, stride=2).eval()
    nn.init.zeros_(projected.conv.weight)
    torch.testing.assert_close(projected(x), projected.shortcut(projected.norm(x)))
    padded = PreActBottleneck(RecordingNorms(), 8, 4, 16, stride=2, shortcut="A").eval()
    nn.init.zeros_(padded.conv.weight)
    torch.testing.assert_close(padded(x), padded.shortcut(x))


def test_first_stage_widens_without_halving():
    for shortcut, kind in (("A", PadShortcut), ("B", nn.Conv2d)):
        model = build("preact_resnet_bottleneck", RecordingNorms(), **COMMON, depth=11, shortcut=shortcut)
        first = model.stages[0][0]
        assert isinstance(first.norm, nn.Identity)  # the stem's norm and ReLU serve it
        assert isinstance(first.shortcut, kind)
        assert model.stem(torch.randn(2, 3, 8, 8)).shape == (2, 16, 8, 8)
        assert first(torch.randn(2, 16, 8, 8)).shape == (2, 64, 8, 8)


@pytest.mark.parametrize("name", ["resnet_bottleneck", "preact_resnet_bottleneck"])
def test_164_layers_without_norms_start_with_finite_logits(name):
    """Each block adds as much variance as it gets: 2^54 after 54 blocks, which float32 holds."""
    model = initialize(build(name, norm_layer("none"), **COMMON, width=0.25), 0)
    with torch.no_grad():
        logits = model(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", BOTTLENECKS)
@pytest.mark.parametrize("depth", [2, 8, 21, 26])
def test_depths_are_named(name, depth):
    with pytest.raises(
        ValueError, match=rf"9n\+2.*\(11, 20, 29, .*164, \.\.\.\), {depth} was given"
    ) as caught:
        abstract(name, RecordingNorms(), depth=depth)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet_bottleneck", {"shortcut": "C"}, "'A' .*'B' .*'C' was given"),
        ("preact_resnet_bottleneck", {"shortcut": "b"}, "'b' was given"),
        ("resnext", {"cardinality": 0}, "cardinality must be at least 1, 0 was given"),
        ("resnext", {"base_width": -4}, "base_width must be at least 1, -4 was given"),
        ("resnext", {"shortcut": "A"}, "no option 'shortcut'"),
    ],
)
def test_wrong_options_are_one_clear_line(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        abstract(name, RecordingNorms(), **options)
    assert "\n" not in str(caught.value)
