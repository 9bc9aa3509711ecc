"""Tasks: what they bring along, and what they cannot work with, each in one line."""

import pytest

from gbn.config.compose import compose
from gbn.config.errors import ConfigError
from gbn.store.identity import run_id


def test_a_generator_brings_its_network_data_and_optimizer():
    config = compose(["task=generation", "norm=bn"])
    assert (config.model.name, config.dataset.name, config.dataset.augment) == ("dcgan", "cifar10", "none")
    assert (config.optimizer.name, config.optimizer.lr) == ("adam", 2e-4)
    assert (config.optimizer.beta1, config.optimizer.beta2) == (0.5, 0.999)
    spelt_out = ["task=generation", "model=dcgan", "dataset=cifar10", "norm=bn"]
    ids = {run_id(one.as_dict(), one.defaults()) for one in (config, compose(spelt_out))}
    assert len(ids) == 1


def test_what_is_given_counts():
    given = ["optimizer.lr=0.001", "dataset=svhn", "dataset.augment=flip", "task=generation"]
    config = compose(given)
    assert (config.optimizer.lr, config.optimizer.beta1) == (0.001, 0.5)
    assert (config.dataset.name, config.dataset.augment) == ("svhn", "flip")
    assert compose(["task=generation", "optimizer=adam"]).optimizer.lr == 0.001  # the optimizer's own
    assert compose(["task=generation", "optimizer=sgd"]).optimizer.name == "sgd"


def test_classifiers_are_what_they_were():
    config = compose([])
    assert config.as_dict()["task"] == {"name": "classification", "revision": 1, "label_smoothing": 0.0}
    assert run_id(config.as_dict(), config.defaults()) == run_id(
        compose(["task=classification"]).as_dict(), config.defaults()
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task=generation", "model=cnn"], ["model=cnn belongs to task=classification", "model=dcgan"]),
        (
            ["model=dcgan", "dataset=cifar10"],
            ["model=dcgan belongs to task=generation", "task=classification was"],
        ),
        (
            ["task=generation", "dataset=mnist"],
            ["32x32", "dataset=mnist has none", "cifar10, cifar100, svhn"],
        ),
        (["task=generation", "dataset=digits"], ["32x32", "cifar10"]),
        (["task=generation", "dataset.augment=crop_flip"], ["black", "none or flip"]),
        (["task=generation", "norm=gbn_cvar", "norm.without_act=bn"], ["LeakyReLU(0.2)", "without_act=same"]),
        (["task=generation", "optimizer.precondition=bnp"], ["optimizer.precondition=bnp", "classification"]),
        (["task=generation", "trainer.record.layers=true"], ["trainer.record.layers", "classification"]),
        (["task=generation", "trainer.attack.constant=[0.5,0.2]"], ["trainer.attack", "classification"]),
        (["task=generation", "trainer.evaluation.images=1"], ["at least 2 generated images"]),
        (["task=generation", "task.noise=gauss"], ["task.noise='gauss'", "uniform"]),
        (["task=generation", "task.features=incepton"], ["task.features='incepton'", "inception"]),
        (["task=generation", "task.label_smoothing=0.1"], ["task.label_smoothing", "unknown key"]),
        (["task=generaton"], ["generaton", "did you mean 'generation'"]),
    ],
)
def test_what_cannot_work_is_one_line(overrides, words):
    with pytest.raises(ConfigError) as error:
        compose(overrides)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), str(error.value)
