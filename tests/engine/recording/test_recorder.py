"""Recordings of layers: they change no number of a run, and their numbers are what they say."""

import pytest
import torch
from torch import nn

from gbn.analysis.runs.activations import QUANTITIES
from gbn.config.compose import ConfigError
from gbn.data import DeviceSet
from gbn.engine import trainer
from gbn.engine.checkpoint import load_checkpoint
from gbn.engine.recording import recorder as recording
from gbn.engine.recording.recorder import LayerRecorder, recording_grid
from gbn.engine.run import run
from gbn.models import build
from gbn.nn import norm_layer
from gbn.store import RunStore
from gbn.store.files import line_of
from gbn.tasks.updates import Supervised

RECORD = ("trainer.record.layers=true", "trainer.record.points=3", "trainer.record.images=40")


def timeless(curve):
    return [{key: value for key, value in point.items() if key != "seconds"} for point in curve]


def recorder(norm, *, model="mlp", images=64, **options):
    """A recorder of a small network on random images, and the network."""
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8)
    data = DeviceSet(pictures, torch.arange(100) % 10, [0.5], [0.3])
    options = {"width": 0.25, **options}
    factory = norm if callable(norm) else norm_layer(norm)
    net = build(model, factory, in_channels=1, num_classes=10, image_size=8, **options)
    return LayerRecorder(net, data, torch.arange(100), images, torch.no_grad), net


def close(values):
    """Equal to the digits that a recording keeps."""
    return pytest.approx(values.tolist(), rel=1e-3)


def update(watch, net, lr=0.1, scale=1.0):
    """One update of gradient descent under the recorder's eyes; the recording."""
    images, labels = watch.data.batch(torch.arange(50))
    (scale * nn.functional.cross_entropy(net(images), labels)).backward()
    watch.before_step(scale)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= lr * parameter.grad / scale
    return watch.record(1, lr)


@pytest.mark.parametrize("norm", ["bn", "gbn_cvar", "bn_reparam", "layer", "none"])
def test_a_recorded_run_equals_the_unrecorded_one_bit_for_bit(small, tmp_path, norm):
    overrides = (f"norm={norm}", "dataset.augment=crop_flip", "optimizer=adam", "trainer.clip_norm=5.0")
    plain = run(small(*overrides, f"results_dir={tmp_path}/plain"))
    recorded = run(small(*overrides, *RECORD, f"results_dir={tmp_path}/recorded"))
    assert plain.run_id == recorded.run_id
    one, other = (RunStore(tmp_path / name) for name in ("plain", "recorded"))
    without, having = one.load(plain.run_id), other.load(plain.run_id)
    assert timeless(without.curve) == timeless(having.curve)
    kept = [
        load_checkpoint(store.path(plain.run_id) / "checkpoint.pt", torch.device("cpu"))["model"]
        for store in (one, other)
    ]
    assert kept[0].keys() == kept[1].keys()
    for name, tensor in kept[0].items():
        assert torch.equal(tensor, kept[1][name]), name
    assert without.layers == []
    updates = [line["update"] for line in having.layers]
    assert updates == [5, 10, 19]
    assert set(updates) <= {point["update"] for point in having.curve}
    assert [list(line["layers"]) for line in having.layers] == [["layers.0.norm", "layers.1.norm"]] * 3
    assert {line["images"] for line in having.layers} == {40}


def test_half_precision_is_left_alone_too(small, tmp_path):
    overrides = ("norm=gbn_cvar", "trainer.precision=bf16")
    plain = run(small(*overrides, f"results_dir={tmp_path}/plain"))
    run(small(*overrides, *RECORD, f"results_dir={tmp_path}/recorded"))
    without, having = (RunStore(tmp_path / name).load(plain.run_id) for name in ("plain", "recorded"))
    assert timeless(without.curve) == timeless(having.curve)
    assert len(having.layers) == 3


def test_the_training_clock_does_not_see_it(small, tmp_path, monkeypatch):
    now = 0.0

    def lasting(method, seconds):
        def lasted(*arguments):
            nonlocal now
            now += seconds
            return method(*arguments)

        return lasted

    for owner, name, seconds in (
        (Supervised, "make", 1.0),
        (LayerRecorder, "before_step", 1000.0),
        (LayerRecorder, "record", 1000.0),
    ):
        monkeypatch.setattr(owner, name, lasting(getattr(owner, name), seconds))
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: now)
    outcome = run(small(*RECORD))
    assert RunStore(tmp_path).load(outcome.run_id).summary["seconds"] == 19.0  # updates


def test_stopped_and_resumed_it_records_what_the_uninterrupted_run_does(small, tmp_path):
    whole = run(small("norm=gbn_cvar", *RECORD, f"results_dir={tmp_path}/whole"))
    for _ in range(20):
        asked = iter([False] * 3 + [True])
        parts = run(
            small("norm=gbn_cvar", *RECORD, f"results_dir={tmp_path}/parts"),
            stop=lambda asked=asked: next(asked),
        )
        if parts.status == "finished":
            break
    assert parts.run_id == whole.run_id
    records = [RunStore(tmp_path / name).load(whole.run_id) for name in ("whole", "parts")]
    assert records[0].layers == records[1].layers
    assert len(records[0].layers) == 3


def test_recordings_behind_the_checkpoint_are_dropped_on_resume(small, tmp_path):
    config = small("norm=bn", *RECORD)
    asked = iter([False] * 12 + [True])
    stopped = run(config, stop=lambda: next(asked))
    path = tmp_path / "runs" / stopped.run_id / "layers.jsonl"
    assert stopped.status == "interrupted"
    before = path.read_text()
    with path.open("a") as file:
        file.write(line_of({"update": 19, "layers": {"lost": {}}}) + '{"update": 19, "torn')
    finished = run(config)
    assert finished.status == "finished", finished.message
    assert path.read_text().startswith(before)
    layers = RunStore(tmp_path).load(stopped.run_id).layers
    assert [line["update"] for line in layers] == [5, 10, 19]
    assert "lost" not in layers[-1]["layers"]


def test_a_run_done_without_recordings_says_so(small):
    run(small())
    again = run(small(*RECORD))
    assert again.skipped
    assert "without recording its layers: remove" in again.message
    assert "without recording" not in run(small()).message


def test_recording_a_point_leaves_model_and_random_streams_alone():
    watch, net = recorder("gbn", model="resnet", depth=8)
    net.train()
    net.layer_with_dropout = nn.Dropout()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    watch.before_step()
    watch.record(1, 0.1)
    assert torch.equal(random, torch.get_rng_state())
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_update_is_measured_on_the_weight_that_feeds_the_normalizer(scale):
    watch, net = recorder("bn")
    weight = net.layers[1].linear.weight
    before = weight.detach().clone()
    found = update(watch, net, lr=0.1, scale=scale)["layers"]["layers.1.norm"]
    gradient = weight.grad / scale
    assert found["weight_norm"] == close(before.norm())
    assert found["gradient_weight"] == close(gradient.norm())
    assert found["relative_update"] == close(0.1 * gradient.norm() / before.norm())
    assert found["effective_rate"] == close(0.1 / before.norm().square())
    assert found["gradient_gain"] == close((net.layers[1].norm.weight.grad / scale).norm())
    assert found["gradient_bias"] == close((net.layers[1].norm.bias.grad / scale).norm())
    gain = net.layers[1].norm.weight.detach()
    assert found["gain"] == close(torch.quantile(gain, torch.tensor([0.1, 0.5, 0.9])))


def test_figures_know_every_quantity_that_is_recorded():
    watch, net = recorder("gbn")
    recorded = update(watch, net)["layers"].values()
    assert {name for quantities in recorded for name in quantities} == set(QUANTITIES)


def test_a_normalizer_behind_a_sum_has_no_feeding_weight():
    watch, net = recorder("bn", model="preact_resnet", depth=8)
    found = update(watch, net)["layers"]
    fed = {path for path, quantities in found.items() if "weight_norm" in quantities}
    assert fed
    assert fed < set(found)
    assert all(path.endswith("layer1.norm") or "stem" in path for path in fed), fed
    assert all("gradient_gain" in quantities for quantities in found.values())


def test_grid():
    assert recording_grid([5, 11, 22, 47, 100], 3) == [5, 22, 100]
    assert recording_grid([5, 11], 12) == [5, 11]
    assert recording_grid([5, 11, 22], 1) == [22]
    assert recording_grid([7], 12) == [7]


def test_one_image_is_too_few():
    with pytest.raises(ValueError, match=r"at least 2 images, got 1: raise trainer\.record\.images"):
        recorder("bn", images=1)


def test_the_configuration_names_its_keys(small):
    with pytest.raises(ConfigError, match="images"):
        small("trainer.record.images=1")


def test_a_diverging_run_is_recorded_until_then(small, tmp_path):
    config = small("norm=none", "optimizer.lr=1e30", "optimizer.nesterov=false", *RECORD)
    outcome = run(config)
    assert outcome.status == "diverged"
    record = RunStore(tmp_path).load(outcome.run_id)
    assert all(line["update"] < record.summary["diverged_at"] for line in record.layers)


def test_quantities_survive_channels_without_a_value():
    found = recording._summaries(
        {"active": torch.tensor([0.0, 0.5, 1.0]), "gain": torch.tensor([torch.nan, 2.0])}
    )
    assert found["active"] == [0.1, 0.5, 0.9]
    assert found["gain"] == [2.0, 2.0, 2.0]
    assert found["dead"] == pytest.approx(1 / 3, rel=1e-3)
