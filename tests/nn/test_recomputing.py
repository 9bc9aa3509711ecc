"""Activation checkpointing: the gradient is that without it, and each batch counts once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gbn.nn import GeneralizedBatchNorm2d, MixtureNorm2d, add_constant_noise, calibrate, norm_layer

C = 6
REENTRANT = pytest.mark.parametrize("reentrant", [True, False])


def batch(seed: int) -> Tensor:
    return torch.randn(8, C, 4, 4, generator=torch.Generator().manual_seed(seed)).exp()


def block(layer: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(C, C, 1), layer, nn.Conv2d(C, C, 1))


def steps(model: nn.Module, reentrant: bool | None, batches: list[list[int]]) -> list[Tensor]:
    """Results, gradients and buffers of steps; each adds up its batches' gradients in one backward pass."""
    found = []
    for seeds in batches:
        leaves = [batch(seed).requires_grad_() for seed in seeds]
        outputs = [
            model(x) if reentrant is None else checkpoint(model, x, use_reentrant=reentrant) for x in leaves
        ]
        model.zero_grad()
        torch.autograd.backward(outputs, [batch(100 + seed) - 1 for seed in seeds])
        parameters = [parameter.grad.clone() for parameter in model.parameters()]
        buffers = [value.clone() for value in model.buffers()]
        found += [*(y.detach() for y in outputs), *(x.grad for x in leaves), *parameters, *buffers]
    return found


def assert_alike(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@REENTRANT
def test_nothing_changes_by_checkpointing(case: Any, reentrant: bool) -> None:
    """Two steps; the second accumulates three batches, whose passes are made again in another order."""
    layer = case.layer(C)
    if type(layer).__module__.startswith("torch."):
        pytest.skip("torch's own BatchNorm averages a checkpointed batch twice")
    batches = [[0], [1, 2, 3]]
    expected = steps(block(layer), None, batches)
    assert_alike(steps(block(case.layer(C)), reentrant, batches), expected)


@REENTRANT
@pytest.mark.parametrize("method", ["bn", "gbn", "mixture"])
def test_the_attack_is_in_both_passes(method: str, reentrant: bool) -> None:
    models = [block(add_constant_noise(norm_layer(method)(C), 0.5, 0.2)) for _ in range(2)]
    assert_alike(steps(models[1], reentrant, [[0], [1]]), steps(models[0], None, [[0], [1]]))


@REENTRANT
def test_a_layer_used_twice_in_one_segment(reentrant: bool) -> None:
    models = []
    for _ in range(2):
        layer = MixtureNorm2d(C)
        models.append(nn.Sequential(block(layer), layer, layer))
    assert_alike(steps(models[1], reentrant, [[0], [1]]), steps(models[0], None, [[0], [1]]))


def test_what_stands_before_the_layer_need_not_be_deterministic() -> None:
    """An input that differs by rounding is still that of its pass."""
    gradients = []
    for jitter in (0.0, 1e-7):
        layer, x, calls = MixtureNorm2d(C), batch(0).requires_grad_(), []

        def segment(
            x: Tensor, layer: nn.Module = layer, jitter: float = jitter, calls: list[int] = calls
        ) -> Tensor:
            calls.append(1)
            return layer(x * (1 + jitter * (len(calls) - 1)))

        checkpoint(segment, x, use_reentrant=False).backward(batch(1) - 1)
        assert len(calls) == 2
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


def test_another_input_within_a_backward_pass_is_no_second_pass() -> None:
    """As in the adjoint of a differential equation: the batch gets a mixture of its own, and averages stay."""
    layer, results = MixtureNorm2d(C), []
    with torch.no_grad():
        layer(batch(0))  # is remembered, as the first pass of a reentrant checkpoint would be
    expected = MixtureNorm2d(C)
    expected.load_state_dict(layer.state_dict())
    before = [value.clone() for value in layer.buffers()]
    x = torch.ones(1, requires_grad=True)
    y = x * 1
    y.register_hook(lambda _: results.append(layer(batch(1))))
    y.backward()
    assert_alike(list(layer.buffers()), before)
    expected.num_batches_tracked.sub_(1)  # draws are a function of the count, which stayed
    torch.testing.assert_close(results[0], expected(batch(1)))


def test_ordinary_training_remembers_nothing_and_neither_does_calibration() -> None:
    layer = MixtureNorm2d(C)
    layer(batch(0).requires_grad_())
    calibrate(nn.Sequential(layer), [batch(1)])
    assert not layer._first_passes._passes
    checkpoint(layer, batch(0).requires_grad_(), use_reentrant=False)
    assert len(layer._first_passes._passes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("compiled", ["the layer", "the checkpoint"])
@pytest.mark.parametrize("options", [{}, {"mixture": "per_channel", "posterior_gradient": True}], ids=str)
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_mixtures(compiled: str, options: dict[str, Any]) -> None:
    torch._dynamo.reset()
    expected = steps(block(MixtureNorm2d(C, **options)), None, [[0], [1]])
    model = block(MixtureNorm2d(C, **options))
    call: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    if compiled == "the checkpoint":
        call = torch.compile(
            lambda x: checkpoint(model, x, use_reentrant=False), backend="aot_eager", fullgraph=True
        )

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return call(x)

    found = steps(Model(), None if compiled == "the checkpoint" else False, [[0], [1]])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_checkpoint_counts_a_batch_once() -> None:
    torch._dynamo.reset()
    expected, model = (block(GeneralizedBatchNorm2d(C)) for _ in range(2))
    expected(batch(0))
    call = torch.compile(lambda x: checkpoint(model, x, use_reentrant=False), backend="aot_eager")
    call(batch(0).requires_grad_()).sum().backward()
    for a, b in zip(model.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(a, b)
