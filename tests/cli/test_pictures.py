"""`gbn plot samples` and `segmentation`: which runs they take, what they write, what they say is missing."""

import numpy as np
import pytest
from PIL import Image

from gbn.config.grid import load_grid
from gbn.engine.run import run
from gbn.store import RunStore
from tests.engine.test_segmentation import config, hearts  # noqa: F401


def test_samples_of_an_experiments_arms(gbn, root, tmp_path):
    experiment = root / "experiments" / "mixture_dcgan"
    grid = load_grid(experiment, "small")
    chosen = [cell for cell in grid.cells if cell.label in ("bn", "mixture_all")]
    for cell in chosen:
        folder = RunStore(tmp_path).path(cell.run_ids[1])
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(folder / "samples-000009.png")
    arguments = ("plot samples", experiment, "--scale", "small", "--results", tmp_path, "--seed", 1)
    status, out, _ = gbn(*arguments, "--arms", "mixture_all", "bn", "--paper")
    assert status == 0
    assert "mixture_dcgan-small-samples.png" in out
    assert (tmp_path / "figures" / "mixture_dcgan-small-samples.pdf").exists()
    for wrong, words in {
        ("--arms", "mixture"): "unknown arm",
        ("--seed", 99): "unknown seed",
        ("--setting", "elu"): "unknown setting",
        ("--arms", "mixture_few"): "no pictures in",
    }.items():
        status, _, err = gbn(*arguments, *wrong)
        assert (status, words in err, err.count("\n")) == (2, True, 1), err


def test_segmentations_of_runs_by_id(gbn, config, tmp_path):  # noqa: F811
    ids = [run(config(f"norm={norm}")).run_id for norm in ("bn", "none")]
    status, out, err = gbn("plot segmentation", *ids, "--results", tmp_path, "--overlay", ids[1])
    assert status == 0, err
    for name in ("runs-overlays", "runs-areas"):
        assert f"{name}.png" in out
        assert np.asarray(Image.open(tmp_path / "figures" / f"{name}.png")).std() > 10
    status, _, err = gbn("plot segmentation", *ids, "--results", tmp_path, "--overlay", "bn")
    assert (status, "among the chosen runs are" in err) == (2, True)


def test_an_untrained_segmentation_is_said(gbn, root, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        experiment = root / "experiments" / "bnunet_cardiac"
        status, _, err = gbn("plot segmentation", experiment, "--scale", "small", "--results", tmp_path)
    assert (status, "no run cardiac-unet-bn-s0-" in err) == (2, True), err


def test_the_committed_table_of_patients_is_what_the_archive_gives(gbn, root, tmp_path):
    tables = sorted((root / "results" / "segmentation").glob("*.md"))
    assert len(tables) >= 2
    for path in tables:
        name, _, scale = path.stem.partition("-")
        arguments = (root / "experiments" / name, "--scale", scale, "--source", "archive")
        status, _, err = gbn("patients", *arguments, "--results", root / "results", "--out", tmp_path)
        assert status == 0, err
        for suffix in (".md", ".csv"):
            assert (tmp_path / path.with_suffix(suffix).name).read_text() == path.with_suffix(
                suffix
            ).read_text()
