"""State dicts between BatchNorm and the pairs: what maps is loaded whole, what does not is left and said."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gbn.nn import GeneralizedBatchNorm2d

C = 5


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_checkpoint_of_batchnorm_goes_both_ways() -> None:
    ours, theirs = GeneralizedBatchNorm2d(C, quadrangle="std"), nn.BatchNorm2d(C)
    for seed in range(3):
        theirs(2 * noise(4, C, 6, 6, seed=seed) + 1)
    x = noise(4, C, 6, 6, seed=7)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    ours.train()(3 * noise(4, C, 6, 6, seed=8))
    fresh = nn.BatchNorm2d(C)
    fresh.load_state_dict(ours.state_dict())
    torch.testing.assert_close(fresh.eval()(x), ours.eval()(x))
    assert int(fresh.num_batches_tracked) == 4


def saved(state: Any) -> Any:
    """Through a file, as a checkpoint goes."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("prefix", ["", "1."])
def test_checkpoint_of_batchnorm_gives_another_pair_its_affine_part(prefix: str) -> None:
    theirs = nn.BatchNorm2d(C)
    theirs(noise(4, C, 6, 6))
    with torch.no_grad():
        theirs.weight.copy_(noise(C)), theirs.bias.copy_(noise(C, seed=1))
    ours: nn.Module = GeneralizedBatchNorm2d(C, quadrangle="cvar")
    ours(5 * noise(4, C, 6, 6))
    before = copy.deepcopy(dict(ours.named_buffers()))
    source: nn.Module = theirs
    if prefix:
        ours, source = nn.Sequential(nn.Identity(), ours), nn.Sequential(nn.Identity(), theirs)
    where = "layer '1'" if prefix else "this layer"
    with pytest.warns(UserWarning, match=f"{where} is .*cvar.*BatchNorm.*need calibration"):
        ours.load_state_dict(saved(source.state_dict()))
    layer = ours.get_submodule(prefix.rstrip("."))
    assert torch.equal(layer.weight, theirs.weight)
    assert torch.equal(layer.bias, theirs.bias)
    for name, value in layer.named_buffers():
        assert torch.equal(value, before[name])


def test_checkpoint_of_another_pair_gives_its_affine_part() -> None:
    source, target = (
        GeneralizedBatchNorm2d(C, quadrangle="cvar", alpha=0.9),
        GeneralizedBatchNorm2d(C, quadrangle="cvar", alpha=0.75),
    )
    source(noise(4, C, 6, 6))
    with torch.no_grad():
        source.weight.copy_(noise(C))
    with pytest.warns(UserWarning, match=r"alpha=0\.75.*alpha=0\.9.*need calibration"):
        target.load_state_dict(saved(source.state_dict()))
    assert torch.equal(target.weight, source.weight)
    assert (target.running_deviation == 1).all()
    with pytest.warns(UserWarning, match="need calibration"):
        GeneralizedBatchNorm2d(C, quadrangle="std").load_state_dict(source.state_dict())


def test_checkpoint_of_the_same_pair_with_another_gradient_loads_whole() -> None:
    source = GeneralizedBatchNorm2d(C, quadrangle="cvar", quantile_gradient="exact")
    source(noise(4, C, 6, 6))
    target = GeneralizedBatchNorm2d(C, quadrangle="cvar", quantile_gradient="window", window=0.05)
    target.load_state_dict(saved(source.state_dict()))
    assert torch.equal(target.running_deviation, source.running_deviation)
    smoothed = GeneralizedBatchNorm2d(
        C, quadrangle="cvar", quantile_gradient="smoothed"
    )  # another value of S
    with pytest.warns(UserWarning, match="need calibration"):
        smoothed.load_state_dict(source.state_dict())


def test_checkpoint_without_count_of_batches_loads() -> None:
    """As BatchNorm's of before 2018."""
    state = {
        "weight": torch.ones(C),
        "bias": torch.zeros(C),
        "running_mean": noise(C),
        "running_var": torch.ones(C),
    }
    layer = GeneralizedBatchNorm2d(C, quadrangle="std")
    layer.load_state_dict(state)
    assert torch.equal(layer.running_mean, state["running_mean"])
