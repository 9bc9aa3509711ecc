"""DenseNet and DenseNet-BC: published counts, which layer sees what, compression, depths."""

import pytest
import torch

from gbn.models import build
from gbn.models.densenet import DenseLayer, Transition
from tests.models.networks import COMMON, RecordingNorms, abstract, count, stage_shapes

PLAIN = {"bottleneck": False, "compression": 1.0}


@pytest.mark.parametrize(
    ("options", "parameters", "millions"),
    [
        # Huang et al. 2017, table 2, DenseNet-BC; the first to the digit in the tables of github.com/osmr/imgclsmob.
        ({}, 769_162, 0.8),
        ({"num_classes": 100}, 800_032, 0.8),
        ({"depth": 250, "growth_rate": 24}, 15_324_406, 15.3),
        ({"depth": 190, "growth_rate": 40}, 25_624_430, 25.6),
        # The same table, DenseNet. A stem of 2k channels would make 1.1, 7.1 and 28.1 million.
        ({"depth": 40} | PLAIN, 1_019_722, 1.0),
        ({"depth": 100} | PLAIN, 6_979_642, 7.0),
        ({"depth": 100, "growth_rate": 24} | PLAIN, 27_249_082, 27.2),
        # The README of github.com/liuzhuang13/DenseNet, Wide-DenseNet-BC.
        ({"depth": 40, "growth_rate": 36}, 1_542_682, 1.5),
        ({"depth": 40, "growth_rate": 48}, 2_733_130, 2.7),
        ({"depth": 40, "growth_rate": 60}, 4_261_690, 4.3),
    ],
)
def test_parameter_counts_are_the_published_ones(options, parameters, millions):
    assert count("densenet", **options) == parameters
    assert round(parameters / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("options", "sites"),
    [
        # Two norms in each of 3 x 16 layers, two transitions, the last one; one norm in each of 3 x 12 layers.
        ({}, 99),
        ({"depth": 40} | PLAIN, 39),
    ],
)
def test_a_norm_stands_before_each_convolution_but_the_first(options, sites):
    norms = RecordingNorms()
    abstract("densenet", norms, **options)
    assert len(norms.calls) == sites
    assert {call["role"] for call in norms.calls} == {"body"}
    assert {call["act"] for call in norms.calls} == {"relu"}


def test_blocks_grow_and_transitions_compress():
    model = build("densenet", RecordingNorms(), **COMMON, depth=22)  # three layers a block
    shapes = stage_shapes(
        model,
        [model.stem, *(part for pair in zip(model.blocks, model.transitions, strict=False) for part in pair)],
    )
    assert shapes == [(24, 32, 32), (60, 32, 32), (30, 16, 16), (66, 16, 16), (33, 8, 8)]
    assert model.head.in_features == 33 + 36
    plain = build("densenet", RecordingNorms(), **COMMON, depth=10, **PLAIN)
    shapes = stage_shapes(plain, [plain.stem, plain.blocks[0], plain.transitions[0]])
    assert shapes == [(16, 32, 32), (40, 32, 32), (40, 16, 16)]


@pytest.mark.parametrize("bottleneck", [None, 8])
def test_a_layer_appends_to_what_it_was_given(bottleneck):
    layer = DenseLayer(RecordingNorms(), 5, 3, bottleneck, bias=False).eval()
    x = torch.randn(2, 5, 6, 6)
    y = layer(x)
    assert y.shape == (2, 8, 6, 6)
    assert torch.equal(y[:, :5], x)
    inner = layer.norm(x)
    if bottleneck:
        assert layer.layer1.conv.weight.shape == (8, 5, 1, 1)
        inner = layer.layer1.norm(layer.layer1.conv(inner))
    torch.testing.assert_close(y[:, 5:], layer.conv(inner))


def test_a_transition_averages_two_by_two():
    transition = Transition(RecordingNorms(), 4, 2, bias=False).eval()
    x = torch.randn(2, 4, 7, 7)
    before = transition.conv(transition.norm(x))
    expected = before[:, :, :6, :6].unflatten(2, (3, 2)).unflatten(4, (3, 2)).mean((3, 5))
    torch.testing.assert_close(transition(x), expected)


@pytest.mark.parametrize(
    ("compression", "channels"),
    [
        (1.0, [40, 64]),
        (0.3, [12, 10]),  # floor(0.3 * 40), floor(0.3 * 36)
        (0.001, [1, 1]),
        (0.29, [11, 10]),
    ],
)
def test_compression_rounds_down_to_one_channel_at_least(compression, channels):
    norms = RecordingNorms()
    model = abstract("densenet", norms, depth=10, bottleneck=False, compression=compression)
    assert [transition.conv.out_channels for transition in model.transitions] == channels


def test_compression_is_not_a_victim_of_binary_fractions():
    # 16 + 7 * 12 = 100 channels, of which 0.29 are 29, and 28.999999999999996 in floating point.
    model = abstract("densenet", RecordingNorms(), depth=25, bottleneck=False, compression=0.29)
    assert model.transitions[0].conv.in_channels == 100
    assert model.transitions[0].conv.out_channels == 29


def test_width_multiplies_growth_and_stem():
    model = abstract("densenet", RecordingNorms(), depth=10, width=0.5)
    layer = model.blocks[0][0]
    assert (model.stem.out_channels, layer.layer1.conv.out_channels, layer.conv.out_channels) == (12, 24, 6)
    plain = abstract("densenet", RecordingNorms(), depth=7, width=0.5, **PLAIN)
    assert (plain.stem.out_channels, plain.blocks[0][0].conv.out_channels) == (8, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 4}, r"6n\+4 .*bottleneck=True \(10, 16, .*100, 190.*\), 4 was given"),
        ({"depth": 13}, r"6n\+4 .*13 was given"),
        (
            {"depth": 4, "bottleneck": False},
            r"3n\+4 .*bottleneck=False \(7, 10, .*40, 100, \.\.\.\), 4 was given",
        ),
        ({"depth": 12, "bottleneck": False}, r"3n\+4"),
        ({"growth_rate": 0}, "growth_rate must be at least 1, 0 was given"),
        ({"compression": 0.0}, r"compression must be above 0 and at most 1, 0\.0 was given"),
        ({"compression": 1.5}, r"1\.5 was given"),
        ({"image_size": 3}, "at least 4x4, 3x3 was given"),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        abstract("densenet", RecordingNorms(), **options)
    assert "\n" not in str(caught.value)
