"""TorchScript: recordings in evaluation mode hold for other batches; what cannot be recorded says what to do."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gbn.nn import BatchNormAct2d, GeneralizedBatchNorm2d, norm_layer

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

C = 6


def images(batch: int, side: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, C, side, side, generator=torch.Generator().manual_seed(seed)).exp()


def test_a_recording_of_evaluation_holds_for_other_batches(case: Any) -> None:
    if getattr(case.layer(C), "track_running_stats", True) is False and case.of_the_batch:
        pytest.skip("without running statistics evaluation measures its batch")
    layer = case.layer(C, "relu")
    layer(images(8, 4))
    layer.eval()
    with warnings.catch_warnings():
        if not case.of_the_batch or case.factory.method == "mixture":  # these compare sizes
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
        recorded = torch.jit.trace(layer, images(8, 4))
    x = images(3, 7, seed=1)
    torch.testing.assert_close(recorded(x), layer(x), rtol=1e-6, atol=1e-6)


def test_a_recording_of_training_works_or_says_what_to_do(case: Any) -> None:
    layer = case.layer(C, "relu").train()
    twin, x = copy.deepcopy(layer), images(8, 4)
    line = rf"torch\.jit\.trace cannot record {type(layer).__name__} .* use torch\.compile for training$"
    must_refuse = case.factory.method in ("gbn", "iebn", "mixture") or case.name.endswith("[mixture]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        try:
            recorded = torch.jit.trace(layer, x, check_trace=False)
        except RuntimeError:
            must_refuse = True
        if must_refuse:
            with pytest.raises(RuntimeError, match=line):
                torch.jit.trace(layer, x)
            return
    torch.testing.assert_close(recorded(images(8, 4, 1)), twin(images(8, 4, 1)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["bn", "bn_matched", "bn_reparam"])
def test_a_recording_averages_over_all_batches(method: str) -> None:
    """With momentum=None the share of a batch is a tensor, which a recording must not turn into a number."""
    options = {} if method == "bn" else {"matched_to": "gbn_cvar"}
    layer, twin = (norm_layer(method, **options, momentum=None)(C).train() for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        recorded = torch.jit.trace(layer, images(8, 4), check_trace=False)
    twin(images(8, 4))
    for seed in (1, 2):
        torch.testing.assert_close(recorded(images(8, 4, seed)), twin(images(8, 4, seed)))
    for name, value in twin.named_buffers():
        torch.testing.assert_close(dict(recorded.named_buffers())[name], value)
    assert int(twin.num_batches_tracked) == 3


def test_compiling_a_script_says_what_to_do(case: Any) -> None:
    layer = case.layer(C, "relu")
    if case.foreign and type(layer).__name__ != "NormThenActivation":
        pytest.skip("a foreign layer's own affair")
    with pytest.raises(
        RuntimeError, match=rf"script cannot compile {type(layer).__name__}: use torch\.compile"
    ):
        torch.jit.script(nn.Sequential(nn.Identity(), layer))


def test_a_script_without_norms_of_ours_is_compiled() -> None:
    """Places without an activation hold torch's own BatchNorm."""
    model = nn.Sequential(nn.Conv2d(C, C, 3), norm_layer("bn")(C, act=None)).eval()
    torch.testing.assert_close(torch.jit.script(model)(images(2, 5)), model(images(2, 5)))


def test_sizes_are_still_checked_outside_a_recording() -> None:
    for layer in (BatchNormAct2d(C), GeneralizedBatchNorm2d(C)):
        with pytest.raises(ValueError, match="num_features=6, got an input with 7 channels"):
            layer.eval()(torch.ones(2, C + 1, 3, 3))
