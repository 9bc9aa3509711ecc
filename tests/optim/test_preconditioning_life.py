"""BNP's life: hooks, states, frozen layers, errors, compiled models and several processes."""

import copy
import io
import itertools
import subprocess
import sys

import pytest
import torch
from torch import nn

from gbn.optim import BatchNormPreconditioner
from tests.optim.preconditioned import BARE, close, network, train_once

pytestmark = pytest.mark.usefixtures("float64")


# --- life cycle ---


def test_removal_leaves_nothing_behind():
    model, x = network(), torch.randn(4, 3, 8, 8)
    untouched = {name: list(vars(module)) for name, module in model.named_modules()}
    preconditioner = BatchNormPreconditioner(model)
    with pytest.raises(ValueError, match=r"0 \(Conv2d\) already has a preconditioner"):
        BatchNormPreconditioner(model)
    preconditioner.remove()
    preconditioner.remove()
    assert untouched == {name: list(vars(module)) for name, module in model.named_modules()}
    assert not any(module._forward_pre_hooks for module in model.modules())
    torch.save(model, buffer := io.BytesIO())
    model(x).sum().backward()
    preconditioner.precondition()
    BatchNormPreconditioner(model).remove()
    assert buffer.tell()


def test_copies_of_a_hooked_model_collect_nothing():
    model, x = network(), torch.randn(4, 3, 8, 8)
    preconditioner = BatchNormPreconditioner(model)
    torch.save(model, buffer := io.BytesIO())
    buffer.seek(0)
    for twin in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        twin(x).sum().backward()
        assert all(layer.rows == 0 for layer in preconditioner._layers)
        BatchNormPreconditioner(twin).remove()
    model(x)
    assert all(layer.rows for layer in preconditioner._layers)


def test_a_restored_state_goes_on_bit_for_bit():
    batches = [torch.randn(3, 3, 8, 8) for _ in range(6)]

    def run(model, preconditioner, optimizer, batches):
        for x in batches:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            preconditioner.precondition()
            optimizer.step()

    def parts(model):
        return model, BatchNormPreconditioner(model), torch.optim.SGD(model.parameters(), 0.01, 0.9)

    whole = parts(network())
    start = copy.deepcopy(whole[0])
    run(*whole, batches)
    first = parts(start)
    run(*first, batches[:3])
    torch.save([part.state_dict() for part in first], buffer := io.BytesIO())
    buffer.seek(0)
    second = parts(network())
    for part, state in zip(second, torch.load(buffer, weights_only=True), strict=True):
        part.load_state_dict(state)
    run(*first, batches[3:4])  # the state is a copy
    run(*second, batches[3:])
    for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="0, 2 differ"):
        BatchNormPreconditioner(network(), statistics="patch").load_state_dict(first[1].state_dict())


def test_frozen_layers_and_those_without_a_gradient_are_left_alone():
    model, x = network(), torch.randn(4, 3, 8, 8)
    for p in model[0].parameters():
        p.requires_grad_(False)
    with BatchNormPreconditioner(model) as preconditioner:
        model(x).sum().backward()
        model[2].weight.grad = None
        bias = model[2].bias.grad.clone()
        preconditioner.precondition()
        assert model[0].weight.grad is None
        assert torch.equal(bias, model[2].bias.grad)
        assert not preconditioner.moments()["0"][0].any()
        model[0].requires_grad_(True)  # thawed
        model(x).sum().backward()
        preconditioner.precondition()
        close(preconditioner.moments()["0"][0], x.mean((0, 2, 3)))


# --- errors ---


def tied_weight_only():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


def tied_embedding():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.BatchNorm2d, {}, "nothing to precondition: the model has no nn.Linear"),
        (network, {"exclude": ["*"]}, "nothing to precondition.*outside exclude"),
        (lambda: nn.Sequential(nn.Linear(4, 4, bias=False)), {}, r"^0 \(Linear\) has no bias.*bias=True.*skip"),
        (lambda: nn.Linear(4, 4, bias=False), {"missing_bias": "skip"}, "nothing to precondition"),
        (network, {"missing_bias": "ignore"}, "missing_bias='ignore'.*allowed are error, skip"),
        (network, {"statistics": "patches"}, "did you mean 'patch'"),
        (network, {"fan_in_scale": "row"}, "did you mean 'rows'"),
        (network, {"rho": 1.0}, "rho=1.0 is the weight of the past"),
        (network, {"eps": -1.0}, "must not be negative"),
        (network, {"exclude": ["head"]}, "'head' matches no linear layer or convolution; they are 0, 2, 4"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), {}, "computes its weight"),
        (lambda: nn.LazyLinear(4), {}, "is lazy: pass a batch"),
        (tied_weight_only, {}, "0 and 1 share a weight but not the bias"),
        (tied_embedding, {}, r"1 shares its weight with 0 \(Embedding\)"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_cannot_be_preconditioned_is_one_clear_line(model, options, message):
    build = (lambda: nn.BatchNorm2d(3)) if model is nn.BatchNorm2d else model
    with pytest.raises(ValueError, match=message) as error:
        BatchNormPreconditioner(build(), **options)
    assert "\n" not in str(error.value)


def test_layers_without_a_bias_and_excluded_ones_keep_their_gradients():
    model, x = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4), nn.Linear(4, 4)), torch.randn(6, 4)
    plain = copy.deepcopy(model)
    plain(x).square().sum().backward()
    with BatchNormPreconditioner(model, missing_bias="skip", exclude=["2"]) as preconditioner:
        model(x).square().sum().backward()
        preconditioner.precondition()
    changed = [
        not torch.equal(a.grad, b.grad) for a, b in zip(plain.parameters(), model.parameters(), strict=True)
    ]
    assert changed == [False, True, True, False, False]


# --- compiled, in parallel ---


@pytest.mark.slow
def test_a_compiled_model_has_the_same_gradients():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).float()
    batches = [torch.randn(4, 3, 8, 8).float() for _ in range(3)]
    found = []
    for compiled in (False, True):
        one = copy.deepcopy(model)
        with BatchNormPreconditioner(one) as preconditioner:
            forward = torch.compile(one, backend="aot_eager", fullgraph=True) if compiled else one
            for x in itertools.chain(batches, batches):
                one.zero_grad()
                forward(x).square().mean().backward()
                preconditioner.precondition()
            with torch.no_grad():
                forward(batches[0])
        found.append([p.grad for p in one.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


# A script, since a spawned process can't import a test's module.
_ONE_PROCESS = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from gbn.optim import BatchNormPreconditioner

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
x = torch.load(f"{folder}/x.pt")
torch.manual_seed(0)
model = nn.Linear(4, 3)
with BatchNormPreconditioner(model, rho=0.9) as preconditioner:
    out = model(x[:5] if rank == 0 else x[5:])
    (out.square().sum() + out.sin().sum()).backward()
    for p in model.parameters():
        dist.all_reduce(p.grad)
    preconditioner.precondition()
torch.save([p.grad for p in model.parameters()], f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_add_up_their_moments(tmp_path):
    x = torch.randn(8, 4) + torch.arange(8.0)[:, None]  # unequal parts of unequal means
    torch.manual_seed(0)
    expected = train_once(
        nn.Linear(4, 3), x, **{**BARE, "eps": 1e-4, "eps_relative": 1e-2, "fan_in_scale": "rows"}
    )
    torch.save(x, tmp_path / "x.pt")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _ONE_PROCESS, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, error = process.communicate(timeout=600)
            assert process.returncode == 0, error
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    for rank in range(2):
        for a, b in zip(expected, torch.load(tmp_path / f"{rank}.pt"), strict=True):
            close(a, b)
