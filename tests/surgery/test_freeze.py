"""Norms held in evaluation mode."""

import copy
import pickle

import pytest
import torch
from torch import nn

import gbn
from tests.surgery.networks import IMAGES, network


def averages(model: nn.Module) -> list[torch.Tensor]:
    return [buffer.clone() for name, buffer in model.named_buffers() if "running" in name]


@pytest.mark.parametrize("name", [None, "gbn_cvar", "iebn"])
def test_frozen_norms_stay_through_training(name: str | None) -> None:
    model = network()
    if name is not None:
        gbn.convert(model, name, match="function")
    before = averages(model)
    assert gbn.freeze(model) == ["0.1", "1.bn1", "1.bn2", "3", "8"]
    model.train()
    model(IMAGES).square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(averages(model), before, strict=True))
    assert model[0][1].weight.grad is None
    assert model[0][0].weight.grad is not None
    assert gbn.unfreeze(model) == ["0.1", "1.bn1", "1.bn2", "3", "8"]
    assert model[0][1].training
    model(IMAGES).square().sum().backward()
    assert not torch.equal(averages(model)[0], before[0])
    assert model[0][1].weight.grad is not None


def test_gain_and_bias_may_go_on_training() -> None:
    model = network()
    gbn.freeze(model, parameters=False)
    model.train()(IMAGES).sum().backward()
    assert model[0][1].weight.grad is not None
    assert not model[0][1].training


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_frozen_too(copied) -> None:  # type: ignore[no-untyped-def]
    model = network()
    gbn.freeze(model)
    other = copied(model).train()
    assert not other[0][1].training
    assert other[0][1].train() is other[0][1]
    assert gbn.unfreeze(other)
    assert not model.train()[0][1].training


def test_nothing_to_unfreeze() -> None:
    assert gbn.unfreeze(network()) == []


def test_what_was_not_trained_before_is_not_trained_after() -> None:
    model = network()
    model[0][1].bias.requires_grad_(False)
    gbn.freeze(model)
    gbn.freeze(model)
    gbn.unfreeze(model)
    assert model[0][1].weight.requires_grad
    assert not model[0][1].bias.requires_grad


def test_converting_and_reverting_keep_norms_frozen() -> None:
    model = network()
    gbn.freeze(model)
    gbn.convert(model, "gbn_cvar", match="function")
    assert not model.train()[0][1].training
    gbn.revert(model)
    assert not model.train()[0][1].training
    assert len(gbn.unfreeze(model)) == 5
    assert model[0][1].training
    assert model[0][1].weight.requires_grad
