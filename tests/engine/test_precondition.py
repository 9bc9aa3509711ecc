"""Preconditioned runs: biases where they are needed, the order of a step, and a resume that changes nothing."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gbn.config.compose import compose
from gbn.data import load
from gbn.engine.build import build_model
from gbn.engine.checkpoint import load_checkpoint
from gbn.engine.run import run
from gbn.models import MODELS
from gbn.optim import BatchNormPreconditioner
from gbn.store.records import RunStore

BNP = "optimizer.precondition=bnp"


def checkpoint(folder, run_id):
    return load_checkpoint(RunStore(folder).path(run_id) / "checkpoint.pt", torch.device("cpu"))


@pytest.fixture(scope="module")
def digits():
    return load("digits", None, False)


def finished(config):
    outcome = run(config)
    assert outcome.status == "finished", outcome.message
    return outcome.run_id


@pytest.mark.parametrize("norm", ["none", "group", "bn"])
@pytest.mark.parametrize("clip", ["null", "0.5"])
def test_stopped_again_and_again_equals_uninterrupted(small, tmp_path, norm, clip):
    overrides = (f"norm={norm}", BNP, f"trainer.clip_norm={clip}")
    run_id = finished(small(*overrides, f"results_dir={tmp_path}/whole"))
    for allowed in itertools.chain([1, 3, 1], itertools.repeat(5)):
        asked = itertools.count()
        outcome = run(
            small(*overrides, f"results_dir={tmp_path}/parts"),
            stop=lambda asked=asked, allowed=allowed: next(asked) >= allowed,
        )
        if outcome.status != "interrupted":
            break
    assert outcome.status == "finished", outcome.message
    one, other = (checkpoint(tmp_path / part, run_id) for part in ("whole", "parts"))
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, other["model"][name]), name
    assert torch.equal(one["preconditioner"]["running"], other["preconditioner"]["running"])
    curves = [RunStore(tmp_path / part).load(run_id).curve for part in ("whole", "parts")]
    assert [p["val_loss"] for p in curves[0]] == [p["val_loss"] for p in curves[1]]


def test_it_trains_and_changes_the_run(small):
    plain, preconditioned = (
        RunStore(config.results_dir).load(finished(config)).summary
        for config in (small("norm=none"), small("norm=none", BNP))
    )
    assert plain["final"]["val_loss"] != preconditioned["final"]["val_loss"]
    assert preconditioned["final"]["val_accuracy"] > 0.5


@pytest.mark.parametrize("batch", [1, 2])
def test_tiny_batches_train(small, batch):
    config = small("norm=none", BNP, f"trainer.batch_size={batch}", "dataset.subset=200", "optimizer.lr=0.01")
    summary = RunStore(config.results_dir).load(finished(config)).summary
    assert summary["final"]["val_loss"] < 2.2  # of guessing: 2.30


@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_layer_has_a_bias_and_no_run_without_preconditioning_gets_one_more(model, norm):
    images = SimpleNamespace(in_channels=3, num_classes=10, image_size=32)
    depth = {"densenet": 10, "preact_resnet": 8, "resnet": 8, "mlp": 2}.get(model)
    depth = 11 if "bottleneck" in model or model == "resnext" else depth
    overrides = ["dataset=cifar10", f"model={model}", "model.width=0.125", f"norm={norm}"]
    overrides += [f"model.depth={depth}"] if depth else []
    overrides += (
        ["norm.groups=1"] if norm == "group" else []
    )  # so narrow, some layers have an odd number of channels
    preconditioned, plain = (build_model(compose([*overrides, *more]), images) for more in ((BNP,), ()))
    BatchNormPreconditioner(preconditioned).remove()  # refuses a layer without a bias
    layers = [module for module in plain.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert all(layer.bias is not None for layer in layers) == (norm == "none")
    shared = dict(preconditioned.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, shared[name]), name


def test_the_loss_scale_of_half_precision_is_taken_out_first(small, tmp_path, monkeypatch):
    overrides = ("norm=none", BNP, "trainer.clip_norm=0.5")
    plain = finished(small(*overrides, f"results_dir={tmp_path}/plain"))
    scaler = torch.amp.GradScaler
    # A power of two: every gradient is scaled and unscaled without rounding.
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda device, enabled: scaler(device, init_scale=1024.0, enabled=True)
    )
    scaled = finished(small(*overrides, f"results_dir={tmp_path}/scaled"))
    one, other = checkpoint(tmp_path / "plain", plain), checkpoint(tmp_path / "scaled", scaled)
    assert other["scaler"]["scale"] == 1024.0
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, other["model"][name]), name


def test_what_is_clipped_is_the_preconditioned_gradient(small, tmp_path, digits):
    rate, clip = 0.5, 0.01
    sgd = ("optimizer.momentum=0.0", "optimizer.nesterov=false", f"optimizer.lr={rate}")
    config = small("norm=none", BNP, *sgd, f"trainer.clip_norm={clip}")
    start = build_model(config, digits).state_dict()
    asked = itertools.count()
    outcome = run(config, stop=lambda: next(asked) >= 1)
    state = checkpoint(config.results_dir, outcome.run_id)
    assert state["step"] == 1
    change = sum(float((state["model"][name] - tensor).square().sum()) for name, tensor in start.items())
    # Clipped before, its length would be what the preconditioner makes of it: ten times as long here.
    assert change**0.5 == pytest.approx(rate * clip, rel=1e-3)


def test_no_hook_outlives_the_training(small, monkeypatch):
    from gbn.tasks import updates

    made = []
    build = updates.build_preconditioner
    monkeypatch.setattr(
        updates, "build_preconditioner", lambda model, options: made.append(model) or build(model, options)
    )
    finished(small("norm=none", BNP))
    assert not any(module._forward_pre_hooks for module in made[0].modules())


def test_a_recording_sees_the_preconditioned_gradient_and_changes_nothing(small, tmp_path):
    overrides = ("norm=group", BNP)
    plain = finished(small(*overrides, f"results_dir={tmp_path}/plain"))
    record = ("trainer.record.layers=true", "trainer.record.points=3")
    finished(small(*overrides, *record, f"results_dir={tmp_path}/recorded"))
    one, other = (checkpoint(tmp_path / part, plain)["model"] for part in ("plain", "recorded"))
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    assert RunStore(tmp_path / "recorded").load(plain).layers


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_run_is_near_the_eager_one(small, tmp_path, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile_(model, backend="aot_eager"))
    ids = [
        finished(small("norm=none", BNP, f"trainer.compile={mode}", f"results_dir={tmp_path}/{mode}"))
        for mode in ("false", "true")
    ]
    losses = [
        RunStore(tmp_path / mode).load(run_id).summary["final"]["val_loss"]
        for mode, run_id in zip(("false", "true"), ids, strict=True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
