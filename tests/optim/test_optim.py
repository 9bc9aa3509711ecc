"""Optimizers take their options; schedules are pure functions of the update with the shapes they are named for."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from gbn.config.compose import compose
from gbn.optim import build_optimizer, schedule_factor

OPTIMIZERS = ("sgd", "adam", "adamw", "nadam", "rmsprop")


def section(group, *overrides):
    return compose([*overrides]).model_dump()[group]


def model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW"), ("nadam", "NAdam"), ("rmsprop", "RMSprop")],
)
def test_optimizers_are_torchs_own_with_the_options_given(name, kind):
    options = section("optimizer", f"optimizer={name}", "optimizer.lr=0.123", "optimizer.weight_decay=0.01")
    optimizer = build_optimizer(model(), options)
    assert type(optimizer).__name__ == kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.123, 0.01, 6)
    if name == "sgd":
        assert (group["momentum"], group["nesterov"]) == (0.9, True)
    elif name != "rmsprop":
        assert group["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_torchs_own_bit_for_bit(name):
    options = section("optimizer", f"optimizer={name}", "optimizer.weight_decay=0.01")
    runs = []
    for kind in (lambda model: build_optimizer(model, options), lambda model: torchs(model, options)):
        torch.manual_seed(0)
        net, x = model().double(), torch.randn(8, 3, 3, 3).double()
        optimizer = kind(net)
        for _ in range(3):
            optimizer.zero_grad()
            assert all(p.grad is None for p in net.parameters())
            net(x).square().mean().backward()
            optimizer.step()
            # Half-way into another optimizer, as a run that goes on from its checkpoint.
            saved, optimizer = copy.deepcopy(optimizer.state_dict()), kind(net)
            optimizer.load_state_dict(saved)
        runs.append([*net.parameters(), saved])
    assert all(torch.equal(a, b) for a, b in zip(runs[0][:-1], runs[1][:-1], strict=True))
    assert repr(runs[0][-1]) == repr(runs[1][-1])


def torchs(model, options):
    """A torch optimizer with the options of one that was built."""
    built = build_optimizer(model, options)
    kind = getattr(torch.optim, type(built).__name__)
    assert isinstance(built, kind)
    return kind(built.param_groups)


def test_no_optimizer_loads_torchs_compiler():
    code = """
import sys
import torch
from gbn.optim import build_optimizer

parameter = torch.nn.Linear(2, 2)
options = {"lr": 0.1, "weight_decay": 0.0, "decay": "all", "momentum": 0.9, "nesterov": True}
options |= {"alpha": 0.9, "eps": 1e-8}
for name in sys.argv[1:]:
    optimizer = build_optimizer(parameter, {"name": name, **options})
    optimizer.zero_grad()
    parameter(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, *OPTIMIZERS], check=True, timeout=600)


def test_decay_weights_spares_biases_and_the_gain_and_bias_of_norms():
    options = section("optimizer", "optimizer.weight_decay=0.1", "optimizer.decay=weights")
    decayed, spared = build_optimizer(model(), options).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert all(p.ndim == 1 for p in spared["params"])
    assert len(spared["params"]) == 4


def test_a_model_with_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match="nothing to optimize"):
        build_optimizer(nn.ReLU(), section("optimizer"))


def curve(*overrides, total=100, per_epoch=10):
    options = section("schedule", *overrides)
    return [schedule_factor(options, update, total, per_epoch) for update in range(total)]


def test_schedules_have_their_shapes():
    assert set(curve()) == {1.0}
    step = curve("schedule=step")
    assert step[49] == 1.0
    assert step[50] == step[74] == pytest.approx(0.1)
    assert step[75] == step[99] == pytest.approx(0.01)
    cosine = curve("schedule=cosine")
    assert (cosine[0], cosine[50]) == (1.0, pytest.approx(0.5))
    assert cosine == sorted(cosine, reverse=True)
    one_cycle = curve("schedule=one_cycle")
    assert one_cycle[0] == pytest.approx(0.04)
    assert max(one_cycle) == one_cycle[30] == 1.0
    assert one_cycle[99] == pytest.approx(1 / 70)


def test_the_cosine_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    for ours in curve("schedule=cosine"):
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        theirs.step()


def test_warm_up_rises_to_the_full_rate_and_the_schedule_runs_over_the_rest():
    warm = curve("schedule=cosine", "schedule.warmup_epochs=2")
    assert warm[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert warm[20] == 1.0
    assert warm[60] == pytest.approx(0.5)
    assert curve("schedule=warmup")[9:11] == [1.0, 1.0]
    with pytest.raises(ValueError, match="shorten the warm-up"):
        curve("schedule.warmup_epochs=10")
