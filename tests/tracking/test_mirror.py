"""What a run looks like in W&B: groups are arms, filters reach nested keys, nothing of the machine is told."""

import pytest

from gbn.store.identity import identity, run_id_of
from gbn.tracking.mirror import curve_digest, description, log, summarize


@pytest.fixture
def described(small):
    def make(*overrides):
        config = small(*overrides)
        kept = identity(config.as_dict(), config.defaults())
        return description(run_id_of(kept), config.as_dict(), kept, ["shared"])

    return make


def test_a_group_is_an_arm_in_a_setting(described):
    one = described("norm=gbn_cvar", "seed=0")
    assert one["group"].startswith("digits-mlp-gbn_cvar_0.75-")
    assert described("norm=gbn_cvar", "seed=7")["group"] == one["group"]
    assert described("norm=gbn_cvar", "seed=0", "experiment=x", "trainer.threads=2")["group"] == one["group"]
    for other in ("norm=bn", "norm.alpha=0.6", "optimizer.lr=0.3", "trainer.epochs=2"):
        assert described("norm=gbn_cvar", other)["group"] != one["group"]


def test_experiment_tags_and_configuration(described):
    made = described("norm=bn", "experiment=quick", "dataset.root=/home/somebody/data")
    assert made["job_type"] == "quick"
    assert made["tags"] == ["shared", "quick", "bn", "mlp", "digits"]
    assert made["config"]["norm"]["method"] == "bn"
    assert "somebody" not in str(made)
    assert not {"results_dir", "tracker", "launcher"} & made["config"].keys()
    assert described("norm=bn")["job_type"] is None


def test_the_configuration_has_the_keys_of_its_method_alone(described):
    assert not {"components", "em_steps", "alpha"} & described("norm=bn")["config"]["norm"].keys()
    earlier = {"name": "bn", "method": "bn", "eps": 1e-5, "components": 3, "quadrangle": None, "groups": None}
    published = description("id", {"norm": earlier}, None)["config"]["norm"]
    assert published == {"name": "bn", "method": "bn", "eps": 1e-5}


def test_long_tags_are_cut_and_none_is_there_twice():
    made = description("id", {"experiment": "e" * 80}, None, ["e" * 80, "a", "a"])
    assert made["tags"] == ["e" * 64, "a"]
    assert made["group"] is None


def test_a_digest_tells_numbers_apart_and_ignores_times():
    curve = [
        {"update": 5, "val_accuracy": 0.5, "seconds": 1.0},
        {"update": 10, "val_accuracy": 0.75, "lr": None},
    ]
    again = [{"update": 5, "val_accuracy": 0.5, "seconds": 2.0}, {"update": 10.0, "val_accuracy": 0.75}]
    assert curve_digest(curve) == curve_digest(again)
    again[1]["val_accuracy"] += 1e-12
    assert curve_digest(curve) != curve_digest(again)
    assert curve_digest(curve) != curve_digest(curve[:1])


class Run:
    def __init__(self, starting_step):
        self.starting_step, self.logged, self.summary = starting_step, [], {}

    def log(self, values, step):
        self.logged.append((step, values))


def test_only_later_steps_are_logged_and_nothing_unmeasured():
    run = Run(6)
    points = [{"update": 5, "a": 1}, {"update": 6, "a": None, "b": 2, "diverged": True}]
    assert log(run, points) == 1
    assert run.logged == [(6, {"update": 6, "b": 2, "diverged": True})]


def test_the_mark_of_completeness_comes_last():
    run = Run(0)
    summary = {
        "status": "diverged",
        "updates": 7,
        "environment": {"device_kind": "CPU"},
        "best_on_test": None,
    }
    summarize(run, summary, [])
    assert list(run.summary)[-1] == "curve_digest"
    assert run.summary["status"] == "diverged"
    assert run.summary["device_kind"] == "CPU"
