"""Finished runs taken up again, and what their networks draw side by side."""

import pytest
import torch

from gbn.engine.restore import trained
from gbn.engine.run import run
from gbn.store.files import StoreError
from gbn.store.records import RunStore
from gbn.studies import drawings
from gbn.tasks.segmentation.contours import score_slices
from tests.engine.test_segmentation import config, hearts  # noqa: F401


@pytest.fixture
def runs(config, tmp_path):  # noqa: F811
    arms = {name: run(config(f"norm={name}")) for name in ("bn", "none", "mixture")}
    return {arm: outcome.run_id for arm, outcome in arms.items()}


def test_a_finished_run_scores_again_what_it_scored(runs, tmp_path):
    store = RunStore(tmp_path)
    for run_id in runs.values():
        one = trained(store, run_id)
        assert not one.model.training
        last = store.load(run_id).curve[-1]
        assert one.evaluator.whole(one.model)["test_dice"] == pytest.approx(last["test_dice"], abs=1e-9)


def test_overlays_and_areas_of_all_arms(runs, tmp_path):
    found = drawings.drawings({arm: trained(RunStore(tmp_path), run_id) for arm, run_id in runs.items()})
    slices, _, side, _ = found.drawn.shape
    assert (slices, side) == (12, 32)
    assert not torch.equal(found.predicted["bn"], found.predicted["none"])
    overlays = drawings.overlays(found, ["none", "bn"])
    assert [axes.get_title() for axes in overlays.axes[:3]] == ["", "none", "bn"]
    assert len(drawings.areas(found).axes) == 3
    dice = score_slices(found.predicted["bn"], found.drawn, found.data.test.pixel_size).dice
    shown = {axes.texts[-1].get_text() for axes in overlays.axes[2::3]}
    assert shown <= {f"Dice {value:.2f}" for value in dice.nanmean(1).tolist()}


def test_what_cannot_be_drawn(runs, config, tmp_path):  # noqa: F811
    store = RunStore(tmp_path)
    other = run(config("norm=bn", "dataset.test_fold=1")).run_id
    with pytest.raises(ValueError, match="is tested on other slices than the first run"):
        drawings.drawings({"bn": trained(store, runs["bn"]), "other": trained(store, other)})
    with pytest.raises(ValueError, match="no run to draw"):
        drawings.drawings({})
    (store.path(runs["bn"]) / "checkpoint.pt").unlink()
    with pytest.raises(StoreError, match=r"without weights in .*: train it here first"):
        trained(store, runs["bn"])
    with pytest.raises(StoreError, match="no run"):
        trained(store, "cardiac-unet-bn-s0-0123456789")
