"""Segmentation's schema: what a task brings along, the files' defaults, what is refused."""

import pytest

from gbn.config.compose import compose
from gbn.config.datasets import CardiacConfig, SunnybrookConfig
from gbn.config.errors import ConfigError
from gbn.data.segmentation.framing import Framing
from gbn.data.segmentation.warp import Warp
from gbn.store.identity import identity, run_id


def id_of(*overrides):
    config = compose(["task=segmentation", *overrides])
    return run_id(config.as_dict(), config.defaults())


def test_the_task_brings_its_network_its_data_and_its_optimizer():
    config = compose(["task=segmentation", "norm=gbn_cvar"])
    assert (config.model.name, config.dataset.name, config.optimizer.name) == ("unet", "cardiac", "adam")
    assert config.trainer.batch_size == 16
    assert id_of() == id_of("model=unet", "dataset=cardiac", "optimizer=adam", "trainer.batch_size=16")
    given = compose(["task=segmentation", "optimizer=sgd", "trainer.batch_size=4", "dataset=sunnybrook"])
    assert (given.optimizer.name, given.trainer.batch_size) == ("sgd", 4)
    assert isinstance(given.dataset, SunnybrookConfig)


def test_defaults_are_those_of_the_code():
    """Those of the schema, the files and the classes behind them are one."""
    config = compose(["task=segmentation"]).dataset
    assert isinstance(config, CardiacConfig)
    assert config.warp.model_dump() == vars(Warp())
    shown = Framing(config.side, config.window, config.normalise, config.empty_slices)
    assert shown == Framing()
    kept = identity(compose(["task=segmentation"]).as_dict(), compose(["task=segmentation"]).defaults())
    assert kept["dataset"] == {"name": "cardiac", "revision": 1}


def test_what_changes_a_number_changes_the_id_and_the_root_does_not():
    assert id_of("dataset.root=elsewhere") == id_of()
    for changed in (
        "side=64",
        "window=144",
        "test_fold=1",
        "augment=none",
        "warp.alpha=100",
        "structures=cavity",
    ):
        assert id_of(f"dataset.{changed}") != id_of(), changed
    assert id_of().startswith("cardiac-unet-bn-s0-")


def test_lists_and_words_of_keys():
    chosen = compose(["task=segmentation", 'dataset.patients=["001","007"]', "dataset.window=whole"]).dataset
    assert (chosen.patients, chosen.window) == (["001", "007"], "whole")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=cnn"], ["model=cnn belongs to task=classification", "model=unet"]),
        (["dataset=cifar10"], ["needs masks, dataset=cifar10 has labels", "cardiac or sunnybrook"]),
        (["dataset.test_fold=5"], ["dataset.test_fold=5", "less than or equal to 4"]),
        (["dataset.test_fold=2", "dataset.validation_fold=2"], ["are both 2"]),
        (["dataset.split=split_70_10_20", "dataset.test_fold=1"], ["belong to dataset.split=fold5"]),
        (["dataset.side=8"], ["dataset.side=8 is less than the 16 pixels", "model.depth=4"]),
        (["dataset.side=16", "norm=instance"], ["single value per channel", "dataset.side=16"]),
        (["dataset.structures=ventricle"], ["dataset.structures='ventricle'", "'cavity'"]),
        (["dataset.subset=100"], ["dataset.subset", "unknown key"]),
        (["dataset.warp.sigma=0.5"], ["dataset.warp.sigma=0.5", "greater than or equal to 1"]),
        (["task.dice_over=image"], ["task.dice_over='image'", "'batch' or 'slice'"]),
        (["task.cross_entropy=-1"], ["task.cross_entropy=-1", "greater than or equal to 0"]),
        (["optimizer.precondition=bnp"], ["optimizer.precondition=bnp", "classification"]),
        (["trainer.record.layers=true"], ["trainer.record.layers", "classification"]),
        (["model.activation=gelu"], ["model.activation='gelu'", "'relu' or 'elu'"]),
    ],
)
def test_what_cannot_work_is_one_line(overrides, words):
    with pytest.raises(ConfigError) as error:
        compose(["task=segmentation", *overrides])
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), str(error.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["dataset=cardiac"], ["dataset=cardiac has masks, task=classification needs labels"]),
        (["model=unet"], ["model=unet belongs to task=segmentation"]),
        (["task=generation", "dataset=cardiac"], ["dataset=cardiac has masks, task=generation needs labels"]),
    ],
)
def test_masks_are_for_segmentation(overrides, words):
    with pytest.raises(ConfigError) as error:
        compose(overrides)
    for word in words:
        assert word in str(error.value), str(error.value)
