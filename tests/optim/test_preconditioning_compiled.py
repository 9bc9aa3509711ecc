"""The compiled sums and steps of BNP against the same by torch."""

import copy
import itertools

import pytest
import torch
from torch import nn

from gbn import kernels
from gbn.kernels.numba import launch
from gbn.kernels.numba.launch_precondition import CompiledStep, CompiledSums, Shape
from gbn.optim import BatchNormPreconditioner


def by_both(model, batches, *, layout=torch.contiguous_format, again=False, **options):
    """Gradients, moments and the preconditioner after some steps, compiled and not."""
    found = []
    for choice in ("auto", "reference"):
        one = copy.deepcopy(model).to(memory_format=layout)
        with kernels.using(choice), BatchNormPreconditioner(one, **options) as preconditioner:
            assert (preconditioner._compiled is None) == (choice == "reference")
            for x in batches:
                one.zero_grad()
                for _ in range(1 + again):
                    one(x).square().mean().backward()
                preconditioner.precondition()
            moments = [part for pair in preconditioner.moments().values() for part in pair]
            found.append(([p.grad for p in one.parameters()], moments))
    return found


def assert_near(found):
    (gradients, moments), (expected, expected_moments) = found
    # Both sum inputs and rows of gradients in float32, in another order: some 1e-6 of the largest term each.
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=1e-5 * float(b.abs().max()))
    for a, b in zip(moments, expected_moments, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def mlp(*sizes):
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*layers)


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 20, 3),
        nn.ReLU(),
        nn.Conv2d(20, 8, 3, groups=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 9, 5),
    )


@pytest.mark.parametrize("options", [{}, {"rho": 0.0, "eps": 0.0}, {"rho": 0.3, "fan_in_scale": "none"}])
@pytest.mark.parametrize("rows", [1, 5, 128])
@pytest.mark.parametrize("sizes", [(100, 33, 70, 17), (1, 5)])
def test_linear_layers_of_odd_sizes(sizes, rows, options):
    if rows == 1 and options.get("rho") == 0.0:
        options = options | {"rho": 0.5}  # of one row alone, the variance and the result are rounding
    make = torch.Generator().manual_seed(0)
    batches = [torch.randn(rows, sizes[0], generator=make) + 1 for _ in range(3)]
    assert_near(by_both(mlp(*sizes), batches, **options))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("options", [{}, {"statistics": "patch", "fan_in_scale": "images"}, {"eps": 1e-2}])
def test_convolutions_and_their_groups(layout, options):
    batches = [torch.randn(4, 3, 7, 7) + 0.5 for _ in range(3)]
    assert_near(by_both(cnn(), [x.to(memory_format=layout) for x in batches], layout=layout, **options))


def test_accumulated_batches_and_inputs_that_only_torch_takes():
    batches = [torch.randn(6, 40) for _ in range(2)]
    assert_near(by_both(mlp(40, 50, 3), batches, again=True))
    # Not contiguous, more dimensions, and back.
    batches = [torch.randn(40, 6).T, torch.randn(2, 3, 40), torch.randn(6, 40)]
    assert_near(by_both(mlp(40, 50, 3), batches, again=True))


def test_layers_without_gradients_in_another_precision_and_not_called():
    model = mlp(12, 7, 5, 9, 3)
    model[1][0].double()
    model[2][0].requires_grad_(False)

    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = copy.deepcopy(model)

        def forward(self, x):
            x = self.model[1](self.model[0](x).double()).float()
            return self.model[2](x)  # the last layer is not called

    batches = [torch.randn(6, 12) for _ in range(3)]
    found = []
    for choice in ("auto", "reference"):
        one = Steps()
        with kernels.using(choice), BatchNormPreconditioner(one) as preconditioner:
            for x in batches:
                one.zero_grad()
                one(x).square().mean().backward()
                preconditioner.precondition()
            gradients = [p.grad for p in one.model[:2].parameters()]
            found.append((gradients, [part for pair in preconditioner.moments().values() for part in pair]))
            assert all(p.grad is None for p in one.model[2:].parameters())
    assert_near(found)


@pytest.mark.parametrize(
    "shape", [(3, 1), (1, 17), (40, 64), (130, 50), (4, 3, 5, 5), (2, 6, 1, 1), (1, 2, 18, 18)]
)
def test_sums_are_those_of_float64(shape):
    x, sums = torch.randn(shape) + 3, CompiledSums(shape[1], len(shape))
    for times in (1, 2):
        assert sums.add(x, times == 2) == x.numel() // shape[1]
        wide = x.double().movedim(1, -1).flatten(0, -2)
        expected = times * torch.stack((wide.sum(0), wide.square().sum(0)))
        torch.testing.assert_close(sums.sums, expected, rtol=16 * 2**-24, atol=0)


def test_what_the_kernels_do_not_take_is_left_alone():
    sums = CompiledSums(8, 2)
    x = torch.randn(4, 8)
    assert sums.add(x, False) == 4
    before = sums.sums.clone()
    for wrong in (
        x.double(),
        x.bfloat16(),
        x[:, :4],
        torch.randn(8, 4).T,
        x[None],
        x.requires_grad_().as_subclass(nn.Parameter),
    ):
        assert sums.add(wrong, False) == 0
    assert torch.equal(before, sums.sums)


def test_infinities_leave_the_moments_alone_and_reach_the_gradients():
    layer, x = nn.Linear(20, 3), torch.randn(8, 20)
    with BatchNormPreconditioner(layer) as preconditioner:
        layer(x).sum().backward()
        preconditioner.precondition()
        before = preconditioner.state_dict()["running"]
        x[2, 5] = torch.inf
        layer(x).sum().backward()
        preconditioner.precondition()
    after = preconditioner.state_dict()["running"]
    # Of the columns: their own inputs are what counts.
    assert torch.equal(before[:, 5], after[:, 5])
    assert (before != after)[:2].any(0).sum() == 19
    assert not layer.weight.grad.isfinite().all()


def test_threads_change_no_number(monkeypatch):
    model, batches = mlp(600, 256, 10), [torch.randn(256, 600) for _ in range(2)]
    found = []
    for threads in (1, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(by_both(model, batches)[0])
    monkeypatch.setattr(launch, "_parallel", lambda: None)  # without an OpenMP runtime
    found.append(by_both(model, batches)[0])
    for one, *others in zip(*(gradients + moments for gradients, moments in found), strict=True):
        assert all(torch.equal(one, other) for other in others)


@pytest.mark.filterwarnings("ignore:Using backward")
def test_a_gradient_that_is_itself_differentiated_is_left_to_torch():
    layer, x = nn.Linear(5, 2), torch.randn(6, 5)
    with BatchNormPreconditioner(layer) as preconditioner:
        layer(x).square().sum().backward(create_graph=True)
        version = layer.weight.grad._version
        preconditioner.precondition()
        assert layer.weight.grad._version > version  # so that autograd notices
    layer.zero_grad()


def test_a_preconditioner_moves_between_compiled_and_plain_states():
    """What one saves, the other goes on with."""
    batches = [torch.randn(6, 30) for _ in range(4)]

    def run(preconditioner, model, batches):
        for x in batches:
            model.zero_grad()
            model(x).square().mean().backward()
            preconditioner.precondition()

    model = mlp(30, 20, 4)
    with kernels.using("reference"), BatchNormPreconditioner(model) as preconditioner:
        run(preconditioner, model, batches[:2])
        state = preconditioner.state_dict()
        run(preconditioner, model, batches[2:])
        expected = preconditioner.moments()
    with BatchNormPreconditioner(model) as preconditioner:
        preconditioner.load_state_dict(state)
        run(preconditioner, model, batches[2:])
        found = preconditioner.moments()
    for name, pair in expected.items():
        for a, b in zip(pair, found[name], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("choice", kernels.KERNELS)
@pytest.mark.parametrize("statistics", ["channel", "patch"])
@pytest.mark.parametrize("layer", [nn.Linear(7, 3), nn.Conv2d(7, 3, 2)], ids=["linear", "convolution"])
def test_an_input_that_its_layer_refuses_leaves_no_trace(layer, statistics, choice):
    """Its sums would be read for those of as many columns as the layer has."""
    shape = (5, 4) if isinstance(layer, nn.Linear) else (5, 4, 6, 6)
    with kernels.using(choice), BatchNormPreconditioner(layer, statistics=statistics) as preconditioner:
        with pytest.raises(RuntimeError):
            layer(torch.randn(shape))
        preconditioner.precondition()
        for part in preconditioner.moments()[""]:
            assert (part == 0).all()


def test_negated_and_zero_inputs_count_as_what_they_are():
    layer, x = nn.Linear(7, 3), torch.randn(64, 7)
    for strange, plain in (
        ((-x)._neg_view(), x),
        (torch._efficientzerotensor(x.shape), torch.zeros(x.shape)),
    ):
        found = []
        for inputs in (strange, plain):
            with BatchNormPreconditioner(layer) as preconditioner:
                layer(inputs)
                preconditioner.precondition()
                found.append(preconditioner.moments()[""])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)  # torch sums in another order


def test_gradients_of_another_size_are_not_written_past_their_end():
    layer = nn.Linear(7, 30)
    with BatchNormPreconditioner(layer) as preconditioner:
        layer.weight.data, layer.bias.data = torch.randn(2, 7), torch.randn(2)
        layer(torch.randn(5, 7)).square().sum().backward()
        weight, bias = layer.weight.grad.clone(), layer.bias.grad.clone()
        preconditioner.precondition()
        mean, variance = preconditioner.moments()[""]
    divisor = (variance + 1e-4 + 1e-2 * variance.max()).float() * max(7 / 5, 1)
    expected = (weight - mean.float() * bias[:, None]) / divisor
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-4, atol=1e-5)


def test_sums_and_moments_of_another_size_are_refused():
    step = CompiledStep([Shape(7, 1, 1, 3, 7, 7)], 0.1, 1e-4, 1e-2)
    running, sums = torch.zeros(3, 7, dtype=torch.float64), torch.zeros(2, 7, dtype=torch.float64)
    step.absorb(running, [(sums, 5, 5)])
    for wrong in (running[:, :4], running[:2], running.float(), running.to("meta"), running.T.contiguous().T):
        with pytest.raises(RuntimeError, match="running moments should be"):
            step.absorb(wrong, [(sums, 5, 5)])
    for wrong in (sums[:, :4], sums.to("meta")):
        with pytest.raises(RuntimeError, match=r"inputs should be \(2, 7\)"):
            step.absorb(running, [(wrong, 5, 5)])
