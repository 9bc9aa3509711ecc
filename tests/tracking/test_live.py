"""The W&B mirror: the real offline client's file holds the curve; losing W&B at any moment loses nothing else."""

import itertools

import pytest

from gbn.engine.run import run
from gbn.store.identity import group_of
from gbn.store.records import RunStore
from gbn.tracking import live as tracking
from gbn.tracking.live import Tracker, logged_in, resolve_mode
from gbn.tracking.mirror import curve_digest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_offline_run_holds_config_curve_group_and_axes(small, tmp_path, monkeypatch, offline_records):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))
    groups = set()
    for seed in (0, 1):  # two in one process: the second must not log into the first
        outcome = run(
            small("tracker.mode=offline", "tracker.tags=[mine]", "experiment=trial", f"seed={seed}")
        )
        assert outcome.status == "finished", outcome.message
        record = RunStore(tmp_path).load(outcome.run_id)
        (folder,) = (tmp_path / "wandb").glob(f"offline-run-*-{outcome.run_id}")
        found = offline_records(folder)
        (made,) = [content for kind, content in found if kind == "run"]
        assert made["run_id"] == outcome.run_id
        assert made["job_type"] == "trial"
        assert made["run_group"] == group_of(record.summary["identity"])
        assert set(made["tags"]) == {"mine", "trial", "bn", "mlp", "digits"}
        config = made["config"]["update"]
        assert config["norm"]["method"] == "bn"
        assert "results_dir" not in config
        groups.add(made["run_group"])
        history = [content["item"] for kind, content in found if kind == "history"]
        assert [item["_step"] for item in history] == [point["update"] for point in record.curve]
        for item, point in zip(history, record.curve, strict=True):
            assert {key: item.get(key) for key in point} == pytest.approx(point)
        metrics = [content for kind, content in found if kind == "metric"]
        assert {"step_metric": "update"}.items() <= next(
            m for m in metrics if m.get("glob_name") == "*"
        ).items()
        accuracy = next(metric for metric in metrics if metric.get("name") == "val_accuracy")
        assert accuracy["summary"] == {"last": True, "max": True}
        summary = {k: v for kind, content in found if kind == "summary" for k, v in content["update"].items()}
        assert summary["status"] == "finished"
        assert summary["curve_digest"] == curve_digest(record.curve)
    assert len(groups) == 1  # the seeds of an arm are drawn as one band


class Breaks:
    """A W&B run that is lost at the second point."""

    starting_step = 0

    def __init__(self):
        self.summary = {}
        self.logged = 0

    def log(self, values, step):
        self.logged += 1
        if self.logged > 1:
            raise ConnectionError("the service is gone")

    def finish(self, exit_code):
        raise AssertionError("a lost run is not finished")


@pytest.mark.parametrize("moment", ["start", "log"])
def test_losing_wandb_at_any_moment_never_fails_a_run(small, tmp_path, monkeypatch, capsys, moment):
    def start(self, *_):
        if moment == "start":
            raise TimeoutError("no network")
        return Breaks()

    monkeypatch.setattr(tracking.Tracker, "_start", start)
    outcome = run(small("tracker.mode=online"))
    assert outcome.status == "finished", outcome.message
    assert len(RunStore(tmp_path).load(outcome.run_id).curve) == 5
    said = capsys.readouterr().err
    assert said.count("W&B is lost") == 1
    assert ("no network" if moment == "start" else "the service is gone") in said


VARIABLES = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL")


class Remembers:
    """A W&B run that was resumed behind step 10."""

    starting_step = 11

    def __init__(self):
        self.summary, self.steps, self.closed = {}, [], None

    def log(self, values, step):
        assert values["update"] == step
        self.steps.append(step)

    def finish(self, exit_code):
        self.closed = exit_code


def test_a_resumed_run_leaves_no_gap_and_repeats_no_step(monkeypatch, tmp_path):
    remote = Remembers()
    monkeypatch.setattr(tracking.Tracker, "_start", lambda self, *_: remote)
    curve = [{"update": update, "val_accuracy": update / 100} for update in (5, 10, 15, 20)]
    options = {"mode": "online", "timeout": 20.0}
    tracker = Tracker(options, "id", {}, tmp_path, recorded=lambda: curve)
    for update in (25, 30):  # 15 and 20 were recorded while W&B was away
        curve.append({"update": update, "val_accuracy": update / 100})
        tracker.log(curve[-1])
    assert remote.steps == [15, 20, 25, 30]
    tracker.finish({"status": "finished", "updates": 30})
    assert remote.summary["status"] == "finished"
    assert remote.summary["curve_digest"] == curve_digest(curve)
    assert remote.closed == 0


def test_an_interrupted_run_is_not_marked_complete(monkeypatch, tmp_path):
    remote = Remembers()
    monkeypatch.setattr(tracking.Tracker, "_start", lambda self, *_: remote)
    tracker = Tracker({"mode": "online", "timeout": 20.0}, "id", {}, tmp_path)
    tracker.finish(None)
    assert remote.summary == {}
    assert remote.closed == 0


def test_auto_is_online_where_logged_in_and_offline_elsewhere(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert resolve_mode("auto") == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    assert resolve_mode("auto") == "online"
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert resolve_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode("auto") == "disabled"
    assert resolve_mode("offline") == "offline"


@pytest.mark.parametrize(
    ("entry", "asked"),
    [
        *itertools.product(("api.wandb.ai", "api.forge.coreweave.com"), repeat=2),
        ("wandb.lab.org", "wandb.lab.org"),
    ],
)
def test_a_login_is_found_under_each_name_of_the_server(monkeypatch, tmp_path, entry, asked):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "netrc").write_text(f"machine {entry} login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", f"https://{asked}")
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://elsewhere.org")
    assert not logged_in()
