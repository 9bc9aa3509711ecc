"""Attacked trainings: what enters statistics and loss, resume, identity, and errors before anything is loaded."""

import pytest
import torch

from gbn.config.compose import compose
from gbn.config.errors import ConfigError
from gbn.data import load
from gbn.engine.build import build_model, task_of
from gbn.engine.run import run
from gbn.store.identity import run_id
from gbn.store.records import RunStore

SHORT = [
    "dataset=digits", "model=cnn", "model.width=0.125", "trainer.epochs=1", "trainer.batch_size=100", "tracker=none",
    "trainer.progress=quiet", "trainer.device=cpu", "trainer.evaluation.points=3", "dataset.subset=500",
]  # fmt: skip
MIXED = ["trainer.attack.dataset=digits", "trainer.attack.images=20"]
CONSTANT = ["trainer.attack.constant=[0.5,0.2]"]


@pytest.mark.parametrize("norm", ["bn", "iebn", "gbn_cvar"])
@pytest.mark.parametrize("attack", [MIXED, CONSTANT, MIXED + CONSTANT])
def test_trains_under_attack(norm, attack, tmp_path):
    config = compose([*SHORT, f"norm={norm}", *attack, f"results_dir={tmp_path}"])
    clean = compose([*SHORT, f"norm={norm}", f"results_dir={tmp_path}"])
    losses = {}
    for one in (config, clean):
        outcome = run(one)
        assert outcome.status == "finished", outcome.message
        losses[outcome.run_id] = RunStore(tmp_path).load(outcome.run_id).curve[-1]["train_loss"]
    assert len(set(losses.values())) == 2


def test_loss_and_accuracy_are_those_of_the_own_images(tmp_path):
    """With a norm over single images the foreign ones cannot matter."""
    curves = []
    for attack in ([], MIXED):
        config = compose([*SHORT, "norm=group", "norm.groups=1", *attack, f"results_dir={tmp_path}"])
        curves.append(RunStore(tmp_path).load(run(config).run_id).curve)
    for plain, mixed in zip(*curves, strict=True):
        assert plain["train_loss"] == pytest.approx(mixed["train_loss"], rel=1e-3)


def test_stops_and_goes_on_bit_for_bit(tmp_path):
    def curve(folder, stop_after=None):
        config = compose([*SHORT, "norm=iebn", *MIXED, *CONSTANT, f"results_dir={tmp_path / folder}"])
        if stop_after is not None:
            asked = iter(range(stop_after + 1))
            assert run(config, stop=lambda: next(asked) >= stop_after).status == "interrupted"
        outcome = run(config)
        assert outcome.status == "finished"
        return [
            {key: value for key, value in point.items() if key != "seconds"}
            for point in RunStore(tmp_path / folder).load(outcome.run_id).curve
        ]

    assert curve("whole") == curve("parts", stop_after=2)


def test_evaluation_and_initial_values_are_those_without_attack():
    images = load("digits")
    plain, attacked = (compose([*SHORT, *extra]) for extra in ([], MIXED + CONSTANT))
    models = [build_model(config, images) for config in (plain, attacked)]
    for (name, a), (other, b) in zip(
        models[0].state_dict().items(), models[1].state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(a, b)
    points = [
        task_of(config).build(config, images, torch.device("cpu"))[1].point(model)
        for config, model in zip((plain, attacked), models, strict=True)
    ]
    assert points[0] == points[1]


def test_an_attack_makes_another_run():
    ids = {
        run_id((c := compose([*SHORT, *extra])).as_dict(), c.defaults()) for extra in ([], MIXED, CONSTANT)
    }
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.attack.dataset=mnist"], ["trainer.attack.images=32", "need both"]),
        (["trainer.attack.images=3"], ["trainer.attack.dataset=mnist", "need both"]),
        (["trainer.attack.dataset=mnst", "trainer.attack.images=3"], ["'mnst'", "did you mean 'mnist'"]),
        (["trainer.attack.constant=[0.5]"], ["trainer.attack.constant", "at least 2"]),
        (
            ["trainer.attack.constant=[0.5,0.2]", "norm=group"],
            ["statistics of the batch", "norm=group has none"],
        ),
        (["trainer.atack.images=3"], ["trainer.atack", "did you mean 'attack'"]),
    ],
)
def test_an_error_is_one_line_that_says_what_is_allowed(overrides, words):
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    for word in words:
        assert word in str(caught.value)
