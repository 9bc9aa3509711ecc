"""A segmentation's runs: files, curve, scores of patients, resumption, divergence, pairing, pictures."""

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from gbn import kernels, measures
from gbn.config.compose import compose
from gbn.engine.build import build_model, task_of
from gbn.engine.run import run
from gbn.engine.trainer import Trainer
from gbn.store.records import RunStore
from tests.data.segmentation.acdc_files import row, volume, write_set, write_table, write_volume
from tests.engine.test_resume import assert_same_run

CPU = torch.device("cpu")
TINY = (
    "task=segmentation",
    "model.width=0.0625",
    "model.depth=2",
    "dataset.patients=all",
    "dataset.side=32",
    "trainer.batch_size=4",
    "trainer.epochs=2",
    "trainer.evaluation.images=8",
    "trainer.evaluation.calibration_images=16",
    "trainer.evaluation.points=3",
    "trainer.evaluation.first=2",
    "trainer.evaluation.test_every=0",
    "trainer.record.pictures=2",
    "trainer.progress=quiet",
    "trainer.threads=1",
    "trainer.device=cpu",
    "tracker.mode=disabled",
)


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    root = tmp_path_factory.mktemp("hearts")
    write_set(root, patients=range(6))
    return root


@pytest.fixture
def config(tmp_path, hearts):
    return lambda *overrides: compose(
        [*TINY, f"results_dir={tmp_path}", f"dataset.root={hearts}", *overrides]
    )


def trainer_of(config):
    task = task_of(config)
    data = task.load(config)
    model = build_model(config, data)
    return Trainer(config, model, *task.build(config, data, CPU), writer=None, tracker=None, device=CPU)


def test_a_finished_run_leaves_its_curve_its_patients_and_its_pictures(config, tmp_path):
    outcome = run(config("norm=bn"))
    assert outcome.status == "finished", outcome.message
    assert "test Dice" in outcome.message
    record = RunStore(tmp_path).load(outcome.run_id)
    # Three patients train on six slices each; four slices make a batch.
    assert [point["update"] for point in record.curve] == [2, 4, 8]
    for point in record.curve:
        assert {"train_loss", "train_dice", "val_loss", "val_dice", "val_dice_exact"} <= point.keys()
        assert {"val_dice_cavity", "val_apd_px_epicardium", "val_good_contours_px_exact"} <= point.keys()
        unknown = [
            key for key in point if key.startswith(("train_", "val_", "test_")) and not measures.find(key)
        ]
        assert unknown == []
    last, summary = record.curve[-1], record.summary
    assert summary["best_by_validation"]["test_dice"] == last["test_dice"]
    rows = summary["patients"]
    assert [(one["structure"], one["patient"]) for one in rows] == [
        (structure, patient) for structure in ("cavity", "epicardium") for patient in ("000", "005", "all")
    ]
    assert rows[0]["slices"] == 4
    assert last["test_dice"] == pytest.approx((rows[2]["dice"] + rows[5]["dice"]) / 2)
    folder = RunStore(tmp_path).path(outcome.run_id)
    shown = {path.name for path in folder.glob("*.png")}
    assert shown == {"overlay-000002.png", "overlay-000008.png", "areas-000008.png"}
    for path in folder.glob("*.png"):
        assert np.asarray(Image.open(io.BytesIO(path.read_bytes()))).std() > 10
    assert run(config("norm=bn")).skipped


def test_it_learns(config, tmp_path):
    """Bright discs on dark ground: better than the best that one mask for all slices could do."""
    outcome = run(config("norm=bn", "trainer.epochs=30", "optimizer.lr=0.01", "dataset.augment=none"))
    curve = RunStore(tmp_path).load(outcome.run_id).curve
    assert curve[-1]["val_full_dice"] > 0.85
    assert curve[-1]["val_full_apd_px"] < 1.5


@pytest.mark.parametrize("norm", ["bn", "gbn_cvar"])
def test_stopped_again_and_again_equals_uninterrupted(config, tmp_path, norm):
    overrides = (f"norm={norm}", "schedule=cosine", "trainer.evaluation.first=3")
    whole = run(config(*overrides, f"results_dir={tmp_path}/whole"))
    assert whole.status == "finished", whole.message
    for allowed in itertools.chain([1, 2, 1], itertools.repeat(2)):
        asked = itertools.count()
        outcome = run(
            config(*overrides, f"results_dir={tmp_path}/parts"),
            stop=lambda asked=asked, allowed=allowed: next(asked) >= allowed,
        )
        if outcome.status != "interrupted":
            break
    assert outcome.status == "finished", outcome.message
    one, other = RunStore(tmp_path / "whole"), RunStore(tmp_path / "parts")
    assert_same_run(one, other, whole.run_id)
    summaries = [store.load(whole.run_id).summary["patients"] for store in (one, other)]
    assert summaries[0] == summaries[1]
    for path in one.path(whole.run_id).glob("*.png"):
        assert path.read_bytes() == (other.path(whole.run_id) / path.name).read_bytes(), path.name


GOLDEN_RUNS = {
    "bn": ("norm=bn",),
    "unet": ("norm=none", "model.activation=relu"),
    "gbn_cvar": ("norm=gbn_cvar",),
    "gbn_cvar_relu": ("norm=gbn_cvar", "model.activation=relu"),
    "mixture": ("norm=mixture",),
    "by_slice": ("norm=iebn", "task.dice_over=slice", "dataset.augment=affine"),
}
GOLDEN = {
    "bn": [1.473859, 1.465281, 1.534994, 1.493843, 1.545114, 1.511766],
    "unet": [1.524619, 1.509055, 1.570421, 1.534298, 1.574511, 1.546151],
    "gbn_cvar": [1.513047, 1.504100, 1.587978, 1.544053, 1.599735, 1.567030],
    "gbn_cvar_relu": [1.506127, 1.497927, 1.571144, 1.533942, 1.573750, 1.552303],
    "mixture": [1.504165, 1.499022, 1.565250, 1.530155, 1.567502, 1.544239],
    "by_slice": [1.489272, 1.461863, 1.577370, 1.549896, 1.549312, 1.548949],
}


def losses(config):
    trainer = trainer_of(config)
    trainer.model.train()
    recorded = []
    for _ in range(6):
        trainer._update()
        recorded.append(trainer.updates.measured()["train_loss"])
        trainer.updates.reset()
    return recorded


@pytest.mark.parametrize("name", GOLDEN_RUNS)
def test_losses_are_the_recorded_ones(config, name):
    """As in test_golden.py; where a definition changed, the failing test shows what to record."""
    with kernels.using("reference"):
        assert losses(config(*GOLDEN_RUNS[name], "seed=1")) == pytest.approx(GOLDEN[name], rel=2e-4)


def test_divergence_is_a_result(config, tmp_path):
    outcome = run(config("norm=none", "optimizer=sgd", "optimizer.lr=1e30"))
    assert (outcome.status, outcome.ok) == ("diverged", True), outcome.message
    record = RunStore(tmp_path).load(outcome.run_id)
    assert record.curve[-1]["diverged"] is True
    assert "patients" not in record.summary


def test_arms_of_a_seed_share_initial_values_and_warped_batches(config):
    arms = [trainer_of(config(f"norm={norm}")) for norm in ("bn", "gbn_cvar", "bn_reparam", "none", "iebn")]
    reference = {name: value for name, value in arms[0].model.named_parameters() if "norm" not in name}
    images, masks = arms[0].loader.batch(5)
    for arm in arms[1:]:
        own = dict(arm.model.named_parameters())
        assert all(torch.equal(own[name], value) for name, value in reference.items())
        assert all(torch.equal(a, b) for a, b in zip(arm.loader.batch(5), (images, masks), strict=True))
    plain, other = trainer_of(config("dataset.augment=none")), trainer_of(config("seed=1"))
    assert not torch.equal(plain.loader.batch(5)[1], masks)
    assert not torch.equal(other.loader.batch(5)[0], images)


@pytest.mark.parametrize(
    ("augment", "affine", "elastic"),
    [("none", None, None), ("affine", True, False), ("elastic", False, True), ("affine_elastic", True, True)],
)
def test_the_kind_of_augmentation_chooses_its_ranges(config, augment, affine, elastic):
    how = trainer_of(config(f"dataset.augment={augment}")).loader.data.augmentation
    if affine is None:
        assert how is None
    else:
        assert (how.rotation > 0, how.shift > 0, how.shear > 0, how.zoom > 0) == (affine,) * 4
        assert (how.alpha > 0) == elastic


def test_the_slice_takes_from_every_patient(config):
    evaluator = trainer_of(config("dataset.frames=both", "trainer.evaluation.images=4")).evaluator
    assert len(evaluator.slice) == 4
    assert len(evaluator.calibration) == 16


def test_a_network_that_finds_nothing_has_no_distance(config):
    trainer = trainer_of(config("norm=bn"))
    with torch.no_grad():
        trainer.model.head.weight.zero_()
        trainer.model.head.bias.fill_(-9.0)
    point = trainer.evaluator.point(trainer.model)
    assert point["val_dice"] == 0
    assert point["val_apd_px"] is None
    assert point["val_good_contours_px"] == 0
    assert set(trainer.evaluator.pictures(trainer.model, last=True)) == {"overlay", "areas"}


def test_areas_of_one_patient_are_not_drawn(config):
    trainer = trainer_of(config('dataset.patients=["000","001","002"]'))
    assert set(trainer.evaluator.pictures(trainer.model, last=True)) == {"overlay"}


def test_broken_files_fail_the_run_in_one_line(config, tmp_path):
    root = tmp_path / "broken"
    write_table(root, [row(patient) for patient in range(5)])
    for patient in range(5):
        for frame in (1, 7):
            write_volume(root, patient, frame)
    path = write_volume(root, 3, 7, label=volume(3, 7)[1] + 3)
    outcome = run(config(f"dataset.root={root}"))
    assert outcome.status == "failed"
    assert f"DataError: cardiac: {path}: labels are" in outcome.message
    assert "\n" not in outcome.message
