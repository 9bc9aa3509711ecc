"""Norms in chosen places of a network: every place has a path of its own, and patterns find what one would name."""

import pytest
import torch
import yaml

from gbn.config.outline import outline
from gbn.models import MODELS, build
from gbn.nn import norm_layer
from tests.models.networks import COMMON, SMALL, RecordingNorms, abstract

PLAIN_40 = {"depth": 40, "bottleneck": False, "compression": 1.0}


def placed(name, pattern, **options):
    """Paths of the norms that are GroupNorm where the pattern matches and BatchNorm elsewhere."""
    factory = norm_layer("group", groups=1, placement={"pattern": pattern})
    with torch.device("meta"):
        model = factory.place(build(name, factory, **(COMMON | SMALL.get(name, {}) | options)))
    return [path for path, module in model.named_modules() if "Group" in type(module).__name__]


@pytest.mark.parametrize("name", MODELS)
def test_every_place_has_a_path_of_its_own(name):
    norms = RecordingNorms()
    abstract(name, norms, **SMALL.get(name, {}))
    everywhere = placed(name, ["*"])
    assert len(set(everywhere)) == len(norms.calls)
    for path in (everywhere[0], everywhere[len(everywhere) // 2], everywhere[-1]):
        assert placed(name, [path]) == [path]


@pytest.mark.parametrize(
    ("name", "options", "pattern", "paths"),
    [
        ("cnn", {}, ["layer[23].*"], ["layer2.norm", "layer3.norm"]),
        ("cnn", {}, ["*"], ["layer1.norm", "layer2.norm", "layer3.norm", "layer4.norm"]),
        ("densenet", PLAIN_40, ["transitions.*"], ["transitions.0.norm", "transitions.1.norm"]),
        ("densenet", PLAIN_40, ["norm"], ["norm"]),  # the last one alone: a pattern is a whole path
        ("densenet", PLAIN_40, ["blocks.1.*"], [f"blocks.1.{layer}.norm" for layer in range(12)]),
        ("densenet", PLAIN_40, ["blocks.*.0.norm"], [f"blocks.{block}.0.norm" for block in range(3)]),
        ("inception_v3", {}, ["Mixed_6a.branch3x3.*"], ["Mixed_6a.branch3x3.norm"]),
    ],
)
def test_patterns_name_what_the_experiments_replace(name, options, pattern, paths):
    assert placed(name, pattern, **options) == paths


@pytest.mark.parametrize(("experiment", "norms"), [("mixture_inception", 7), ("mixture_densenet", 3)])
def test_patterns_of_the_experiments_match(experiment, norms):
    grid = outline(f"experiments/{experiment}")
    given = dict(
        one.split("=", 1) for one in [*next(iter(grid.settings.values())), *grid.arms["mixture_few"]]
    )
    options = {
        key.removeprefix("model."): yaml.safe_load(value)
        for key, value in given.items()
        if key.startswith("model.")
    }
    assert len(placed(given["model"], yaml.safe_load(given["norm.placement.pattern"]), **options)) == norms
