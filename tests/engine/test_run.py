"""A run's files and statuses: finished, skipped, diverged, not applicable, failed, interrupted, locked."""

import json

import pytest
import torch

from gbn import kernels
from gbn.data import TrainLoader
from gbn.engine import build
from gbn.engine import run as engine
from gbn.engine.run import run, set_threads
from gbn.store.records import RunStore
from gbn.tasks.evaluation import Evaluator


def test_a_finished_run_leaves_its_files_and_is_skipped_the_second_time(small, tmp_path):
    config = small("norm=gbn_cvar")
    outcome = run(config)
    assert (outcome.status, outcome.skipped, outcome.ok) == ("finished", False, True), outcome.message
    record = RunStore(tmp_path).load(outcome.run_id)
    assert record.status == "finished"
    assert record.config == config.as_dict() == record.summary["config"]
    folder = tmp_path / "runs" / outcome.run_id
    names = {"config.yaml", "metrics.jsonl", "checkpoint.pt", "summary.json", "provenance.json"}
    assert names <= {path.name for path in folder.iterdir()}

    points = record.curve
    updates = [point["update"] for point in points]
    assert updates == sorted(set(updates))
    assert updates[0] == 5
    assert updates[-1] == record.summary["updates"] == 19
    for point in points:
        assert {"epoch", "images", "seconds", "lr", "train_loss", "val_loss", "val_accuracy"} <= point.keys()
        assert 0 <= point["val_accuracy_exact"] <= 1
        assert point["images"] == 64 * point["update"]
    assert [point["update"] for point in points if "test_accuracy" in point] == [19]
    assert record.summary["final"] == points[-1]
    assert record.summary["best_on_test"]["test_accuracy"] == points[-1]["test_accuracy"]
    assert record.summary["clock"] in ("exclusive", "shared")  # as this machine happens to be used

    (segment,) = record.provenance
    assert segment["start_update"] == 0
    assert segment["kernels"] == kernels.selected("cpu")
    assert segment["versions"]["torch"] == torch.__version__

    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = run(config)
    assert (again.status, again.skipped) == ("finished", True)
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_training_reduces_the_loss_and_learns_digits(small, tmp_path):
    outcome = run(small("trainer.epochs=12", "model.width=0.5"))
    curve = RunStore(tmp_path).load(outcome.run_id).curve
    assert curve[-1]["train_loss"] < 0.5 * curve[0]["train_loss"]
    assert curve[-1]["test_accuracy"] > 0.9


def test_a_diverging_run_is_a_result_with_its_step_and_its_curve(small, tmp_path):
    config = small("norm=none", "optimizer.lr=1e30", "optimizer.nesterov=false")
    outcome = run(config)
    assert (outcome.status, outcome.ok) == ("diverged", True)
    record = RunStore(tmp_path).load(outcome.run_id)
    at = record.summary["diverged_at"]
    assert 1 < at <= 19
    assert record.curve[-1]["update"] == at == record.summary["updates"]
    assert record.curve[-1]["diverged"] is True
    assert "val_accuracy" not in record.curve[-1]
    assert run(config).skipped


def test_batch_norm_at_batch_1_is_not_applicable(small, tmp_path):
    outcome = run(small("trainer.batch_size=1", "dataset.subset=20"))
    assert (outcome.status, outcome.ok) == ("not_applicable", True), outcome.message
    gbn = run(small("trainer.batch_size=1", "dataset.subset=20", "norm=gbn_mad"))
    assert gbn.status == "not_applicable"
    assert run(small("trainer.batch_size=1", "dataset.subset=20", "norm=layer")).status == "finished"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")  # torch's own
@pytest.mark.parametrize(
    "norm", [pytest.param("bn", marks=pytest.mark.slow), pytest.param("gbn_mad", marks=pytest.mark.long)]
)
def test_compiled_norms_at_batch_1_are_not_applicable(small, norm):
    outcome = run(small("trainer.batch_size=1", "dataset.subset=20", f"norm={norm}", "trainer.compile=true"))
    torch.compiler.reset()  # code that raised while it was compiled is not compiled again
    assert outcome.status == "not_applicable", outcome.message


ONE_LAST_IMAGE = [
    ("model=mlp", "dataset.subset=501"),
    ("model=mlp", "trainer.evaluation.calibration_images=1001"),
    ("model=mlp", "norm=gbn_cvar", "dataset.subset=501"),
    ("model=mlp", "norm=mixture", "dataset.subset=502"),
]


@pytest.mark.parametrize("overrides", ONE_LAST_IMAGE, ids=" ".join)
@pytest.mark.filterwarnings("error")
def test_a_small_last_batch_of_the_calibration_images_does_not_matter(small, tmp_path, overrides):
    outcome = run(small("trainer.evaluation.calibration_images=1024", *overrides))
    assert outcome.status == "finished", outcome.message
    assert all(0 < point["val_accuracy_exact"] < 1 for point in RunStore(tmp_path).load(outcome.run_id).curve)


@pytest.mark.parametrize("norm", ["bn", "custom"])  # custom: torch's own
def test_one_value_per_channel_elsewhere_than_in_a_training_step_is_a_failure(small, monkeypatch, norm):
    """Only the norm's own step decides: neither anybody's words nor the check's error from an evaluation."""
    own = ("norm._target_=torch.nn.BatchNorm1d",) if norm == "custom" else ()
    single = ("trainer.batch_size=1", "dataset.subset=20", f"norm={norm}", *own)
    assert run(small(*single)).status == "not_applicable"

    layer = torch.nn.BatchNorm1d(3)
    words = "Expected more than 1 value per channel when training, got input size [1, 3]"

    def evaluated(*_):
        layer(torch.zeros(1, 3))

    def loaded(*_):
        raise ValueError(words)

    for place, broken, seed in ((Evaluator, evaluated, 1), (TrainLoader, loaded, 2)):
        with monkeypatch.context() as patched:
            patched.setattr(place, "point" if place is Evaluator else "batch", broken)
            outcome = run(small(f"norm={norm}", *own, f"seed={seed}"))
        assert outcome.status == "failed"
        assert outcome.message.startswith("ValueError: Expected more than 1 value per channel")


def test_a_failed_run_keeps_its_error_and_is_retried(small, tmp_path, monkeypatch):
    config = small()
    with monkeypatch.context() as broken:
        broken.setattr(
            build, "build_model", lambda *_: (_ for _ in ()).throw(RuntimeError("no such network"))
        )
        outcome = run(config)
    assert (outcome.status, outcome.ok) == ("failed", False)
    error = tmp_path / "runs" / outcome.run_id / "error.txt"
    assert str(error) in outcome.message
    assert "no such network" in error.read_text()
    assert RunStore(tmp_path).status(outcome.run_id) == "failed"
    assert run(config).status == "finished"
    assert not error.exists()


def empty_summary(folder):
    (folder / "summary.json").write_text("")


def line_of_zeros(folder):
    (folder / "metrics.jsonl").write_bytes(b"\0\0\0\n")


def garbage(folder):
    (folder / "metrics.jsonl").write_bytes(b"garbage\n\xff\xfe\n")


def loop_of_links(folder):
    folder.rmdir()
    folder.symlink_to(folder.name)  # it cannot be read, by root neither


def folder_named_lock(folder):
    (folder / "lock").mkdir()


def folder_named_error(folder):
    (folder / "error.txt").mkdir()


def test_a_done_run_whose_curve_was_changed_is_no_result(small, tmp_path):
    done = run(small())
    path = tmp_path / "runs" / done.run_id / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"0.", b"0.9", 1))
    again = run(small())
    assert (again.status, again.ok) == ("failed", False)
    assert f"{path} was changed after the run ended" in again.message
    assert "\n" not in again.message


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (empty_summary, "summary.json"),
        (line_of_zeros, "metrics.jsonl"),
        (garbage, "metrics.jsonl"),
        (loop_of_links, ""),
        (folder_named_lock, "lock"),
        (folder_named_error, "error.txt"),
    ],
)
def test_a_damaged_folder_is_a_failed_run_that_names_it(small, tmp_path, damage, named):
    config = small()
    run_id = engine.run_id_of(engine.identity(config.as_dict(), config.defaults()))
    folder = tmp_path / "runs" / run_id
    folder.mkdir(parents=True)
    damage(folder)
    outcome = run(config)
    assert (outcome.run_id, outcome.status, outcome.ok) == (run_id, "failed", False)
    assert str(folder / named) in outcome.message
    assert "\n" not in outcome.message


def test_on_a_full_disk_the_outcome_says_what_no_file_can(small, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine, "_train", full)
    monkeypatch.setattr(engine.RunWriter, "write_error", full)
    outcome = run(small())
    assert (outcome.status, outcome.message) == ("failed", "OSError: [Errno 28] No space left on device")


def test_a_run_that_another_process_has_just_finished_is_skipped(small, tmp_path, monkeypatch):
    config = small()
    assert run(config).status == "finished"
    statuses, status = iter(["missing"]), RunStore.status
    monkeypatch.setattr(RunStore, "status", lambda store, name: next(statuses, None) or status(store, name))
    again = run(config)
    assert (again.status, again.skipped) == ("finished", True)


def test_a_missing_data_set_is_one_line(small, tmp_path):
    outcome = run(small("dataset=mnist", f"dataset.root={tmp_path}/nowhere", "dataset.download=false"))
    assert outcome.status == "failed"
    assert outcome.message.count("\n") == 0
    assert "nowhere" in outcome.message


def test_a_run_that_another_process_writes_is_left_alone(small, tmp_path):
    config = small()
    run_id = engine.run_id_of(engine.identity(config.as_dict(), config.defaults()))
    with RunStore(tmp_path).writer(run_id):
        assert run(config).status == "locked"
    assert run(config).status == "finished"


def test_statuses_read_back_as_json(small, tmp_path):
    outcome = run(small())
    summary = json.loads((tmp_path / "runs" / outcome.run_id / "summary.json").read_text())
    assert summary["run_id"] == outcome.run_id
    assert summary["environment"]["device"] == "cpu"


def test_threads_are_the_cores_divided_among_jobs(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(engine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for wanted, jobs in ((3, 4), ("auto", 1), ("auto", 2), ("auto", 16)):
        set_threads(wanted, jobs)
    assert asked == [3, 8, 4, 1]


@pytest.mark.parametrize(
    "overrides",
    [
        ("trainer.precision=bf16",),
        ("trainer.clip_norm=0.1", "task.label_smoothing=0.1"),
        ("model=resnet", "model.depth=8", "model.width=0.25", "trainer.channels_last=true"),
        ("optimizer=adam", "schedule=cosine"),
        ("optimizer=adamw", "schedule=one_cycle", "optimizer.decay=weights"),
        ("optimizer=nadam", "schedule=step", "schedule.warmup_epochs=0.2"),
        ("optimizer=rmsprop", "schedule=constant"),
    ],
)
def test_options_train(small, tmp_path, overrides):
    outcome = run(small(*overrides))
    assert outcome.status == "finished", outcome.message


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch 2.13's own, while compiling
def test_a_compiled_run_trains_as_the_eager_one(small, tmp_path):
    store = RunStore(tmp_path)
    eager = store.load(run(small("norm=gbn_cvar")).run_id)
    outcome = run(small("norm=gbn_cvar", "trainer.compile=true"))
    assert outcome.status == "finished", outcome.message
    compiled = store.load(outcome.run_id)
    for one, other in zip(eager.curve, compiled.curve, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_on_a_gpu(small, tmp_path, precision):
    outcome = run(small("trainer.device=cuda", f"trainer.precision={precision}", "norm=gbn_cvar"))
    assert outcome.status == "finished", outcome.message
    record = RunStore(tmp_path).load(outcome.run_id)
    assert record.summary["environment"]["device"] == "cuda"
