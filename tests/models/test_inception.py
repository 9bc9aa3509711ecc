"""Inception-V3: torchvision's parameters, names and outputs; the stem for small images; the auxiliary head."""

import pytest
import torch
from torch import nn

from gbn.data.torchvision_shim import import_torchvision
from gbn.models import build, initialize
from gbn.models.inception_v3 import BLOCKS, InceptionLogits
from gbn.nn import norm_layer
from tests.models.networks import COMMON, RecordingNorms, abstract, count, stage_shapes

IMAGENET = {"num_classes": 1000, "image_size": 299}
TINY = {"in_channels": 3, "num_classes": 10, "width": 0.0625}


def plain(num_features, act="relu", dim=2, role="body"):
    """A norm with torchvision's eps, its activation not in a container, so that paths are torchvision's."""

    class NormAndAct(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    return NormAndAct(num_features, eps=1e-3)


def theirs(aux):
    return import_torchvision().models.Inception3(aux_logits=aux, init_weights=False)


def in_their_words(path):
    return path.replace(".norm.", ".bn.").replace("head.", "fc.")


@pytest.mark.parametrize(("aux", "parameters"), [(False, 23_834_568), (True, 27_161_264)])
def test_parameters_are_torchvisions_one_by_one(aux, parameters):
    assert count("inception_v3", **IMAGENET, aux=aux) == parameters
    with torch.device("meta"):
        published = theirs(aux).state_dict()
    ours = abstract("inception_v3", plain, **IMAGENET, aux=aux).state_dict()
    assert {in_their_words(path): value.shape for path, value in ours.items()} == {
        path: value.shape for path, value in published.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("size", [75, 299])
def test_it_computes_what_torchvisions_does(size):
    """The outputs of both heads in training, and of the one in evaluation, with the same weights on one image."""
    aux = size == 299
    ours = build("inception_v3", plain, in_channels=3, num_classes=12, image_size=size, dropout=0.0, aux=aux)
    initialize(ours, 0)
    published = import_torchvision().models.Inception3(12, aux_logits=aux, init_weights=False, dropout=0.0)
    published.load_state_dict({in_their_words(path): value for path, value in ours.state_dict().items()})
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    if aux:
        # One image has one value a channel in front of the auxiliary head: statistics of two are needed.
        batch = torch.cat((image, image.flip(3) + 0.1))
        mine, reference = ours.train()(batch), published.train()(batch)
        assert isinstance(mine, InceptionLogits)
        torch.testing.assert_close(mine.auxiliary, reference.aux_logits, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(mine.logits, reference.logits, rtol=1e-3, atol=1e-3)
        published.load_state_dict({in_their_words(path): value for path, value in ours.state_dict().items()})
    with torch.no_grad():
        assert torch.equal(ours.eval()(image), published.eval()(image))


def test_small_images_keep_maps_of_about_the_published_size():
    model = build("inception_v3", RecordingNorms(), **(COMMON | TINY)).eval()
    names = ("Conv2d_1a_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")
    shapes = stage_shapes(model, [model.get_submodule(name) for name in names])
    assert [shape[1:] for shape in shapes] == [(32, 32), (32, 32), (32, 32), (15, 15), (7, 7)]
    with torch.device("meta"):
        large = build("inception_v3", RecordingNorms(), **TINY, image_size=299).eval()
        published = []
        for name in names:
            large.get_submodule(name).register_forward_hook(
                lambda module, inputs, output: published.append(tuple(output.shape[2:]))
            )
        large(torch.empty(1, 3, 299, 299))
    assert published == [(149, 149), (71, 71), (35, 35), (17, 17), (8, 8)]


def test_the_stem_changes_at_75():
    with torch.device("meta"):
        for size, side in ((74, 74), (75, 7)):
            model = build("inception_v3", RecordingNorms(), **TINY, image_size=size)
            seen = []
            model.Mixed_5b.register_forward_hook(
                lambda module, inputs, output, seen=seen: seen.append(output)
            )
            model(torch.empty(2, 3, size, size))
            assert seen[0].shape[-1] == side
        same = [
            sum(
                parameter.numel()
                for parameter in build("inception_v3", plain, **TINY, image_size=s).parameters()
            )
            for s in (74, 75)
        ]
    assert same[0] == same[1]


@pytest.mark.parametrize("width", [0.03, 0.3, 1.37])
def test_any_width_fits_together(width):
    """Rounded channels of branches add up to what the next block takes."""
    model = abstract("inception_v3", RecordingNorms(), width=width)
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(
    ("pattern", "norms"),
    [("Mixed_5b.*", 7), ("Mixed_6*", 4 + 4 * 10), ("*.branch_pool.norm", 9), ("Conv2d_*", 5), ("*", 94)],
)
def test_a_pattern_replaces_a_few_norms(pattern, norms):
    factory = norm_layer("group", groups=1, placement={"pattern": [pattern]})
    with torch.device("meta"):
        model = factory.place(build("inception_v3", factory, **TINY, image_size=32))
    kinds = [type(module).__name__ for path, module in model.named_modules() if path.endswith(".norm")]
    assert len(kinds) == 94
    assert sum("Group" in kind for kind in kinds) == norms


def test_every_block_is_reachable_by_its_name():
    model = abstract("inception_v3", RecordingNorms())
    for name in BLOCKS:
        assert any(
            path.startswith(f"{name}.") and path.endswith(".norm") for path, _ in model.named_modules()
        )


def test_the_auxiliary_head_is_for_training_alone():
    model = build("inception_v3", RecordingNorms(), **TINY, image_size=299, aux=True).to("meta")
    images = torch.empty(2, 3, 299, 299, device="meta")
    both = model.train()(images)
    assert (both.logits.shape, both.auxiliary.shape) == ((2, 10), (2, 10))
    assert model.eval()(images).shape == (2, 10)
    patterns = norm_layer("bn", placement={"pattern": ["AuxLogits.*"]})
    patterns.place(build("inception_v3", patterns, **TINY, image_size=299, aux=True))


def test_dropout_acts_on_the_features_in_training():
    model = initialize(build("inception_v3", norm_layer("bn"), **TINY, image_size=16), 0)
    seen = []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model.train()(images)
    model.dropout.p = 0.0
    model(images)
    dropped, whole = seen
    kept = dropped != 0
    assert 0.3 < kept[whole != 0].float().mean() < 0.7
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"image_size": 6},
            "Inception-V3 needs images of at least 7x7, 6x6 was given: use cnn, resnet or mlp",
        ),
        ({"dropout": 1.0}, r"at least 0 and below 1, 1\.0 was given"),
        ({"dropout": -0.1}, r"-0\.1 was given"),
        ({"aux": True}, "auxiliary head needs images of at least 299x299, 32x32 was given: leave aux=False"),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        abstract("inception_v3", RecordingNorms(), **options)
    assert "\n" not in str(caught.value)
