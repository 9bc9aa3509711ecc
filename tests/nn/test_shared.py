"""What every normalizer must do: each registered method, each pair and its controls, and foreign layers.

``pytest --gbn-norm their.module:Layer`` puts a layer of another package through it, and runs nothing else.
"""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

C = 6


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Skewed, channels of different scale and place."""
    make = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=make, dtype=torch.float64).exp()
    per_channel = (1, shape[1], *[1] * (len(shape) - 2))
    scale = torch.linspace(0.5, 3, shape[1], dtype=torch.float64).view(per_channel)
    return ((x - 1) * scale + scale).to(dtype)


def noise(like: Tensor, seed: int = 1) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=make, dtype=torch.float64).to(like.dtype)


def randomised(layer: nn.Module, seed: int = 2) -> nn.Module:
    """Gain and bias away from their starting values, so that a mistake in them shows."""
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            shift = torch.rand(parameter.shape, generator=make, dtype=torch.float64) - 0.5
            parameter.add_(shift.to(parameter.dtype))
    return layer


def trained(layer: nn.Module, batches: int = 3, dtype: torch.dtype = torch.float32) -> nn.Module:
    """After a few batches in training mode."""
    layer.train()
    with torch.no_grad():
        for seed in range(batches):
            layer(images(8, C, 4, 4, seed=10 + seed, dtype=dtype))
    return layer


@pytest.mark.parametrize("act", [None, "relu", "silu"])
@pytest.mark.parametrize("training", [True, False])
def test_keeps_shape_and_dtype_and_is_finite(case: Any, act: str | None, training: bool) -> None:
    x = images(8, C, 4, 4)
    y = trained(case.layer(C, act)).train(training)(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert y.isfinite().all()
    if act == "relu":
        assert (y >= 0).all()


def test_activation_is_that_of_the_layer_without_one(case: Any) -> None:
    """Also a check that ReLU's in-place form harms nothing."""
    x, plain, fused = images(8, C, 4, 4), randomised(case.layer(C)), randomised(case.layer(C, "relu"))
    leaves = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    expected, y = plain(leaves[0]).relu(), fused(leaves[1])
    torch.testing.assert_close(y, expected)
    for a, b in zip(
        torch.autograd.grad(y, [leaves[1], *fused.parameters()], noise(y)),
        torch.autograd.grad(expected, [leaves[0], *plain.parameters()], noise(y)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_derivatives(case: Any, training: bool) -> None:
    """Against numerical differentiation in float64, to input, gain and bias."""
    if training and case.factory.method == "bn_tracking":
        pytest.skip(
            "its backward pass is BatchNorm's, its forward pass the pair's: tests/nn/test_measured_controls.py"
        )
    layer = randomised(case.differentiable().layer(3, dtype=torch.float64).double())
    layer.train()
    layer(images(5, 3, 2, 2, seed=3, dtype=torch.float64))
    layer.train(training)
    x = images(5, 3, 2, 2, dtype=torch.float64).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]

    def call(x: Tensor, *values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        state |= {name: buffer.clone() for name, buffer in layer.named_buffers()}
        return torch.func.functional_call(layer, state, (x,))

    assert torch.autograd.gradcheck(call, (x, *layer.parameters()), atol=1e-6)


def test_evaluation_of_an_image_does_not_depend_on_the_others(case: Any) -> None:
    if getattr(case.layer(C), "track_running_stats", True) is False and case.of_the_batch:
        pytest.skip("without running statistics evaluation uses the batch's, as in BatchNorm")
    layer = trained(case.layer(C, "relu")).eval()
    x = images(8, C, 4, 4)
    together = layer(x)
    # to rounding: other batch sizes take other vector paths
    alone = torch.cat([layer(x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(alone, together, rtol=1e-6, atol=1e-6)


def test_order_of_images_does_not_matter(case: Any) -> None:
    if case.draws:
        pytest.skip("seeds of a mixture are drawn by the place of a sample in the batch")
    layer = randomised(case.layer(C)).double().train()
    x = images(8, C, 4, 4, dtype=torch.float64)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    torch.testing.assert_close(layer(x)[order], layer(x[order]))


def test_leaves_input_and_cotangent_alone(case: Any) -> None:
    layer = randomised(case.layer(C, "relu"))
    x = images(8, C, 4, 4)
    before, cotangent = x.clone(), noise(x)
    kept = cotangent.clone()
    y = layer(x.requires_grad_())
    result = y.detach().clone()
    y.backward(cotangent)
    assert torch.equal(x, before)
    assert torch.equal(cotangent, kept)
    assert torch.equal(y, result)


def test_is_deterministic(case: Any) -> None:
    runs = []
    for _ in range(2):
        layer, x = randomised(case.layer(C, "relu")), images(8, C, 4, 4).requires_grad_()
        y = layer(x)
        y.backward(noise(y))
        runs.append([y.detach(), x.grad, *(p.grad for p in layer.parameters()), *layer.buffers()])
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a, b)


def test_state_dict_round_trip(case: Any) -> None:
    layer = trained(randomised(case.layer(C, "relu")))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = case.layer(C, "relu")
    assert (
        str(other.load_state_dict(torch.load(file, weights_only=True))) == "<All keys matched successfully>"
    )
    x = images(8, C, 4, 4)
    assert torch.equal(other.eval()(x), layer.eval()(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_go_on_as_the_original_does(case: Any, copied: Any) -> None:
    layer = trained(randomised(case.layer(C, "relu")))
    twin = copied(layer)
    x = images(8, C, 4, 4)
    for mode in (True, False):
        assert torch.equal(twin.train(mode)(x), layer.train(mode)(x))
    assert repr(twin) == repr(layer)
    for a, b in zip(twin.state_dict().values(), layer.state_dict().values(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()


def test_keeps_channels_last(case: Any) -> None:
    x = images(4, C, 5, 3)
    plain, last = randomised(case.layer(C, "relu")), randomised(case.layer(C, "relu"))
    a = x.clone().requires_grad_()
    b = x.to(memory_format=torch.channels_last).requires_grad_()
    ya, yb = plain(a), last(b)
    ya.backward(noise(x)), yb.backward(noise(x))
    torch.testing.assert_close(yb, ya, check_stride=False)
    torch.testing.assert_close(b.grad, a.grad, atol=1e-5, rtol=1e-4, check_stride=False)
    if not case.foreign and case.factory.method != "instance":  # torch's instance norm answers contiguously
        assert yb.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_input_with_float32_parameters(case: Any, dtype: torch.dtype) -> None:
    x = images(16, C, 8, 8).to(dtype)
    low, high = randomised(case.layer(C)), randomised(case.layer(C))
    x_low, x_high = x.clone().requires_grad_(), x.float().requires_grad_()
    y, expected = low(x_low), high(x_high)
    assert y.dtype == dtype
    y.backward(noise(y)), expected.backward(noise(y).float())
    # one rounding of the result and of the gradient in their dtype, relative to their largest value
    tolerance = 2 * torch.finfo(dtype).eps
    assert (y - expected).abs().max() <= tolerance * expected.abs().max()
    assert (x_low.grad - x_high.grad).abs().max() <= tolerance * x_high.grad.abs().max()
    for a, b in zip(low.buffers(), high.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_under_autocast(case: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, C, 3, bias=False), case.layer(C, "relu"), nn.Conv2d(C, 2, 3))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(images(4, 3, 8, 8))
        assert y.dtype == torch.bfloat16
        loss = y.float().square().mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name
    assert all(b.dtype in (torch.float32, torch.int64) for b in model.buffers())


@pytest.mark.parametrize("shape", [(9, C), (5, C, 7)])
def test_one_dimensional_layer(case: Any, shape: tuple[int, ...]) -> None:
    layer = case.layer(C, "relu", dim=1)
    x = images(*shape)
    if case.factory.method == "instance" and len(shape) == 2:
        with pytest.raises(ValueError, match="needs several values per image and channel"):
            layer(x)
        return
    y = layer(x)
    assert y.shape == x.shape
    assert y.isfinite().all()


def test_three_dimensional_layer_sees_the_same_values(case: Any) -> None:
    flat, deep = randomised(case.layer(C)), randomised(case.layer(C, dim=3))
    x = images(4, C, 6, 4)
    torch.testing.assert_close(deep(x.view(4, C, 2, 3, 4)).view_as(x), flat(x))


def test_empty_batch(case: Any) -> None:
    if case.foreign or case.factory.method in ("instance", "group", "layer"):
        pytest.skip("torch's own group and instance norms decide")
    layer = trained(case.layer(C, "relu"))
    before = {name: value.clone() for name, value in layer.named_buffers()}
    x = torch.empty(0, C, 4, 4, requires_grad=True)
    y = layer(x)
    assert y.shape == x.shape
    y.sum().backward()
    for parameter in layer.parameters():
        assert (parameter.grad == 0).all()
    for name, value in layer.named_buffers():
        if name != "num_batches_tracked":
            assert torch.equal(value, before[name])
    assert layer.eval()(x).shape == x.shape


def test_tracking_switched_off_later_is_as_in_batchnorm(case: Any) -> None:
    """Evaluation goes on with the averages that there are; training changes them no more."""
    if not case.of_the_batch or case.layer(C).track_running_stats is False:
        pytest.skip("there are no averages")
    layer, x = trained(case.layer(C)), images(8, C, 4, 4)
    before, expected = [value.clone() for value in layer.buffers()], layer.eval()(x)
    layer.track_running_stats = False
    assert torch.equal(layer.eval()(x), expected)
    layer.train()(x)
    for value, kept in zip(layer.buffers(), before, strict=True):
        assert torch.equal(value, kept)


def test_one_value_per_channel_in_training_is_an_error(case: Any) -> None:
    if not case.of_the_batch:
        pytest.skip("statistics are not the batch's")
    layer = case.layer(C).train()
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        layer(images(1, C, 1, 1))


@pytest.mark.parametrize("shape", [(8, C), (8, C, 4, 4, 4), (8, C + 1, 4, 4)])
def test_wrong_shapes_are_refused(case: Any, shape: tuple[int, ...]) -> None:
    if case.foreign or case.factory.method == "none":
        pytest.skip("any shape is right, or the foreign layer decides")
    if case.factory.method in ("layer", "group") and shape[1] == C:
        pytest.skip("one layer serves every number of dimensions")
    with pytest.raises((ValueError, RuntimeError)):
        case.layer(C)(images(*shape))


def test_sync_conversion_does_not_change_the_function(case: Any) -> None:
    """https://github.com/pytorch/pytorch/issues/187298: subclasses of BatchNorm would become plain BatchNorm."""
    layer = trained(randomised(case.layer(C, "relu"))).eval()
    x = images(8, C, 4, 4)
    expected = layer(x)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(copy.deepcopy(layer)))
    torch.testing.assert_close(converted(x), expected)


def test_no_grad_and_inference_mode(case: Any) -> None:
    layer, twin = case.layer(C, "relu"), case.layer(C, "relu")
    x = images(8, C, 4, 4)
    with torch.no_grad():
        a = layer(x)
    with torch.inference_mode():
        b = twin(x)
    assert torch.equal(a, b)


def test_meta_device(case: Any) -> None:
    """Deferred initialization, as for large models."""
    if case.foreign:
        pytest.skip("a foreign layer need not take device")
    layer = case.layer(C, "relu", device="meta")
    assert all(t.device.type == "meta" for t in (*layer.parameters(), *layer.buffers()))
    real = layer.to_empty(device="cpu")
    for module in real.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    fresh = case.layer(C, "relu")
    for a, b in zip(real.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(9, C), (8, C, 4, 3), (4, C, 3, 2, 2)])
def test_training_before_the_backward_pass_of_an_evaluation_changes_no_gradient(
    case: Any, shape: tuple[int, ...]
) -> None:
    """Running averages that an evaluation has read change in training; its backward pass must not read those."""
    if case.foreign or (case.factory.method == "instance" and len(shape) == 2):
        pytest.skip("a foreign layer's own affair, or nothing to normalize over")
    layer = randomised(case.layer(C, "relu", dim=max(1, len(shape) - 2)))
    layer(images(*shape, seed=3))
    gradients = []
    for between in (False, True):
        twin, x = copy.deepcopy(layer).eval(), images(*shape).requires_grad_()
        y = twin(x)
        if between:
            twin.train()(3 * images(*shape, seed=4) + 1)
        gradients.append(torch.autograd.grad(y, [x, *twin.parameters()], noise(y)))
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
