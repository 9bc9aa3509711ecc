"""The schema of the networks agrees with the networks: names, options, defaults, what is refused."""

import inspect
from typing import get_args

import pytest
import torch

from gbn.config.compose import compose
from gbn.config.errors import ConfigError
from gbn.config.models import ModelConfig
from gbn.models import MODELS, OF_OTHER_TASKS
from gbn.nn import norm_layer
from tests.models.networks import Network

NETWORKS = MODELS | OF_OTHER_TASKS

SECTIONS = {
    get_args(section.model_fields["name"].annotation)[0]: section for section in get_args(ModelConfig)
}


def test_every_network_has_its_section():
    assert SECTIONS.keys() == {*NETWORKS, "custom"}


@pytest.mark.parametrize("name", NETWORKS)
def test_options_and_defaults_are_those_of_the_network(name):
    fields = {key: field.default for key, field in SECTIONS[name].model_fields.items()}
    parameters = inspect.signature(NETWORKS[name]).parameters.values()
    own = {
        p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty and p.name != "bias"
    }
    assert {key: value for key, value in fields.items() if key not in ("name", "revision")} == own


@pytest.mark.parametrize("name", MODELS)
def test_the_file_shows_the_defaults(name):
    """So that a run of the defaults has the shortest identity, and a reader of the file sees all knobs."""
    dataset = "cifar10" if name == "vgg" else "mnist"
    config = compose([f"model={name}", f"dataset={dataset}"]).model
    for key, field in SECTIONS[name].model_fields.items():
        if key not in ("name", "revision"):
            assert getattr(config, key) == field.default, key


@pytest.mark.parametrize("size", [8, 16, 28, 32])
@pytest.mark.parametrize("name", MODELS)
def test_the_schema_and_the_network_agree_on_images(name, size):
    """On those too small for the network, and on those of which some norm sees one value per channel."""
    section, build = SECTIONS[name], Network(name).build
    if size < section.smallest:
        with pytest.raises(ValueError, match=f"{size}"):
            build(norm_layer("instance"), image_size=size)
        return
    model, images = build(norm_layer("instance"), image_size=size), torch.randn(2, 3, size, size)
    if size <= section.one_value_up_to:
        with pytest.raises(ValueError, match=r"instance|more than 1 spatial"):
            model(images)
    else:
        assert model(images).isfinite().all()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["model=resnet_bottleneck", "model.depth=26"],
            ["9n+2", "11, 20, 29", "164", "model.depth=26 was given"],
        ),
        (["model=preact_resnet_bottleneck", "model.depth=2"], ["9n+2"]),
        (["model=resnext", "model.depth=30"], ["9n+2"]),
        (["model=resnet", "model.depth=29"], ["6n+2", "model=resnet_bottleneck", "model.depth=29 was given"]),
        (["model=resnext", "model.cardinality=0"], ["model.cardinality=0", "greater than or equal to 1"]),
        (["model=resnet_bottleneck", "model.shortcut=C"], ["'A' or 'B'"]),
        (["model=densenet", "model.depth=39"], ["6n+4", "model.bottleneck=true", "10, 16", "39 was given"]),
        (
            ["model=densenet", "model.bottleneck=false", "model.depth=39"],
            ["3n+4", "7, 10", "bottleneck=false"],
        ),
        (["model=densenet", "model.compression=0"], ["model.compression=0", "greater than 0"]),
        (["model=densenet", "model.growth=24"], ["model.growth", "did you mean 'growth_rate'"]),
        (["model=densnet"], ["did you mean 'densenet'"]),
        (
            ["model=inception_v3", "model.aux=true", "dataset=cifar10"],
            ["model.aux=true", "299x299", "dataset=cifar10 has 32x32"],
        ),
        (["model=inception_v3", "model.dropout=1.0"], ["model.dropout=1.0", "less than 1"]),
        (
            ["model=inception_v3", "norm=instance", "dataset=digits"],
            ["single value per channel", "inception_v3"],
        ),
    ],
)
def test_an_error_is_one_line_that_says_what_is_allowed(overrides, words):
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_plain_densenet_has_depths_of_its_own():
    plain = ["model=densenet", "model.bottleneck=false", "model.compression=1.0"]
    assert compose([*plain, "model.depth=7"]).model.depth == 7
    with pytest.raises(ConfigError, match="bottleneck=true"):
        compose(["model=densenet", "model.depth=7"])
