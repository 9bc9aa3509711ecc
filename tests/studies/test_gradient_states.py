"""States of a run, other arms at its weights, batches of their own."""

import pytest
import torch

from gbn.config.compose import compose
from gbn.data import load
from gbn.engine.checkpoint import load_checkpoint
from gbn.engine.run import run
from gbn.store.records import RunStore
from gbn.studies.gradient_variance.measure import Study, rows_of_seed
from gbn.studies.gradient_variance.states import at_weights, independent_batches, trajectory

CPU = torch.device("cpu")
FAMILY = {
    "exact": ("norm=gbn_cvar", "norm.quantile_gradient=exact"),
    "window_centred": ("norm=gbn_cvar",),
    "bn_reparam": ("norm=bn_reparam", "norm.matched_to=gbn_cvar"),
}


@pytest.fixture
def images():
    return load("digits", None, False)


def test_the_last_state_is_the_runs_own(small, images, tmp_path):
    config = small(*FAMILY["window_centred"], "dataset.augment=crop_flip")
    seen = {
        state.update: {name: value.clone() for name, value in state.model.state_dict().items()}
        for state in trajectory(config, images, [19, 0, 7], CPU)
    }
    assert list(seen) == [0, 7, 19]
    outcome = run(config)
    trained = load_checkpoint(RunStore(tmp_path).path(outcome.run_id) / "checkpoint.pt", CPU)
    assert trained["step"] == 19
    for name, value in trained["model"].items():
        assert torch.equal(value, seen[19][name]), name
    assert not torch.equal(seen[0]["head.weight"], seen[7]["head.weight"])


def test_measuring_between_changes_no_state(small, images):
    config = small(*FAMILY["window_centred"])
    (last,) = (state.model for state in trajectory(config, images, [19], CPU))
    for state in trajectory(config, images, [0, 5, 19], CPU):
        arms = at_weights(state.model, {"exact": small(*FAMILY["exact"])}, images)
        for batch, labels in independent_batches(state.loader, 0, 32, 2):
            state.task.loss(arms["exact"].train()(batch), labels).backward()
    for name, value in last.state_dict().items():
        assert torch.equal(value, state.model.state_dict()[name]), name


def test_default_states_and_bounds(small, images):
    config = small(*FAMILY["window_centred"])
    assert [state.update for state in trajectory(config, images, None, CPU)] == [0, 6, 19]
    with pytest.raises(ValueError, match="choose from 0 to 19"):
        list(trajectory(config, images, [20], CPU))


def test_arms_get_the_weights_and_must_fit(small, images):
    (state,) = trajectory(small(*FAMILY["window_centred"]), images, [3], CPU)
    configs = {arm: small(*overrides) for arm, overrides in FAMILY.items()}
    for model in at_weights(state.model, configs, images).values():
        for (name, value), own in zip(model.named_parameters(), state.model.parameters(), strict=True):
            assert torch.equal(value, own), name
            assert value is not own
    with pytest.raises(ValueError, match=r"arm 'none' lacks .*norm"):
        at_weights(state.model, {"none": small("norm=none")}, images)
    with pytest.raises(ValueError, match="arm 'wide'"):
        at_weights(state.model, {"wide": small("norm=gbn_cvar", "model.width=0.25")}, images)


def test_batches_are_their_own_stream(small, images):
    (state,) = trajectory(small(*FAMILY["window_centred"]), images, [0], CPU)

    def draw(**changes):
        options = {"seed": 0, "size": 64, "count": 3} | changes
        return [batch for batch, _ in independent_batches(state.loader, **options)]

    first = draw()
    assert all(torch.equal(a, b) for a, b in zip(first, draw(), strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], draw(seed=1)[0])
    assert not torch.equal(first[0], state.loader.batch(0)[0])
    with pytest.raises(ValueError, match="take at most all"):
        draw(size=10**6)


def test_rows_of_a_seed(tmp_path):
    overrides = (
        *("dataset=digits", "model=cnn", "model.width=0.125", "trainer.epochs=0.2", "trainer.batch_size=32"),
        *("trainer.device=cpu", "trainer.threads=1", "tracker.mode=disabled", f"results_dir={tmp_path}"),
    )
    configs = {arm: compose([*overrides, *own]) for arm, own in FAMILY.items()}
    study = Study(configs, "window_centred", ["bn_reparam"], at=[0, 2], batches=4, sizes=[8, 16])
    rows, made = rows_of_seed(study, 3)
    again, _ = rows_of_seed(study, 3)
    assert repr(rows) == repr(again)  # NaN equals no NaN
    assert made["kernels"]
    assert {row["seed"] for row in rows} == {3}
    assert {(row["update"], row["batch_size"]) for row in rows} == {(0, 32), (2, 32), (0, 8), (0, 16)}
    own = [row for row in rows if row["quantity"] == "statistic_variance"]
    assert {row["arm"] for row in own} == {"exact", "window_centred"}  # a control has no such statistic
    assert {row["layer"] for row in own} == {"layer4"}
    assert not list(tmp_path.iterdir())
