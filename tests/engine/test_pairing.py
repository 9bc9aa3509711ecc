"""Arms are paired: at one seed every normalizer sees the same initial weights and the same batches."""

import pytest
import torch

from gbn.config.places import config_dir
from gbn.data import load
from gbn.engine.build import build_model, task_of

NORMS = sorted(file.stem for file in (config_dir() / "norm").glob("*.yaml"))
NEEDED = {"custom": ["norm._target_=torch.nn.BatchNorm2d"], "group": ["norm.groups=2"]}


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def network(small, digits, norm, seed):
    config = small(
        "model=resnet",
        "model.depth=8",
        "model.width=0.25",
        f"norm={norm}",
        f"seed={seed}",
        *NEEDED.get(norm, []),
    )
    return config, build_model(config, digits)


@pytest.mark.parametrize("norm", NORMS)
def test_shared_tensors_and_batches_equal_those_of_bn(small, digits, norm):
    config, model = network(small, digits, norm, 0)
    reference, bn = network(small, digits, "bn", 0)
    own, others = dict(model.named_parameters()), dict(bn.named_parameters())
    shared = [name for name in others if name in own and others[name].ndim > 1]
    assert len(shared) == 8  # every convolution and the classifier
    for name in shared:
        assert torch.equal(own[name], others[name]), name
    batches = task_of(config).build(config, digits, torch.device("cpu"))[0]
    expected = task_of(reference).build(reference, digits, torch.device("cpu"))[0]
    for step in (0, 1, batches.steps_per_epoch + 1):
        for one, other in zip(batches.batch(step), expected.batch(step), strict=True):
            assert torch.equal(one, other)


def test_seeds_differ_and_zero_is_a_seed(small, digits):
    models = [network(small, digits, "bn", seed)[1] for seed in (0, 0, 1)]
    first, again, other = (model.stem.conv.weight for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(123)  # whatever else was drawn before
    assert torch.equal(network(small, digits, "bn", 0)[1].stem.conv.weight, first)
