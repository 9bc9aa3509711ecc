"""Runs brought to W&B from our files: what is decided for each state of the mirror, and what W&B's own file holds."""

from dataclasses import replace

import pytest

from gbn.store.identity import group_of
from gbn.studies.validation.simulate import Arm, SimulatedGrid
from gbn.tracking.mirror import curve_digest
from gbn.tracking.upload import Destination, Ledger, Remote, decide, identity_of, upload

GRID = SimulatedGrid({"bn": Arm()}, seeds=(0,), points=10)
HERE = Destination("team", "gbn")


@pytest.fixture
def record():
    return GRID.record("", "bn", 0)


def remote(record, points, **changes):
    """W&B's side after the first `points` points, not marked complete."""
    last = record.curve[points - 1]["update"] if points else -1
    return replace(Remote("finished", None, None, None, points, last), **changes)


def test_what_is_not_there_is_uploaded(record):
    assert decide(record, None) == "upload"


@pytest.mark.parametrize("points", [0, 1, 9, 10])
def test_what_was_broken_off_is_continued(record, points):
    assert decide(record, remote(record, points)) == "continue"


def test_a_marked_mirror_is_complete_and_other_numbers_are_told(record):
    marked = remote(record, 10, digest=curve_digest(record.curve))
    assert decide(record, marked) == "complete"
    assert decide(record, replace(marked, digest="0123")) == "differs"


def test_a_mirror_from_before_the_mark_is_known_by_status_updates_and_points(record):
    old = remote(record, 10, status="finished", updates=2000)
    assert decide(record, old) == "complete"
    assert decide(record, replace(old, updates=1999)) == "continue"
    assert decide(record, replace(old, points=9)) == "gap"
    assert decide(record, replace(old, points=11)) == "differs"


def test_a_gap_is_not_taken_for_a_beginning(record):
    assert decide(record, replace(remote(record, 6), points=5)) == "gap"


def test_runs_in_training(record):
    running = replace(record, status="running", summary=None, curve=record.curve[:4])
    assert decide(running, remote(record, 4, state="running")) == "running"
    assert decide(running, remote(record, 4)) == "complete"
    assert decide(running, remote(record, 3)) == "continue"
    assert decide(running, remote(record, 10, digest="of its first training")) == "complete"
    # Done since, and its mirror broken off: W&B calls it running until its heartbeat is missed.
    assert decide(record, remote(record, 4, state="running")) == "continue"


def test_the_ledger_knows_a_run_by_its_numbers(tmp_path, record):
    ledger = Ledger(tmp_path / "wandb" / "synced.json")
    assert not ledger.has(HERE, record)
    ledger.add(HERE, record)
    again = Ledger(ledger.path)
    assert again.has(HERE, record)
    assert not again.has(Destination("team", "other"), record)
    assert not again.has(HERE, replace(record, curve=record.curve[:-1]))
    again.path.write_text("[torn")
    assert not Ledger(ledger.path).has(HERE, record)


def test_an_unfinished_run_is_never_noted_as_complete(tmp_path, record):
    ledger = Ledger(tmp_path / "synced.json")
    ledger.add(HERE, replace(record, status="interrupted"))
    assert not ledger.path.exists()


def test_an_unfinished_run_has_its_identity_from_its_configuration(small, record):
    config = small("norm=gbn_cvar", "seed=3")
    unfinished = replace(record, status="interrupted", summary=None, config=config.as_dict())
    assert identity_of(unfinished)["seed"] == 3
    assert group_of(identity_of(unfinished)).startswith("digits-mlp-gbn_cvar_0.75-")
    with pytest.raises(ValueError):
        identity_of(replace(unfinished, config={}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("ending", ["finished", "diverged", "failed"])
def test_wandb_itself_writes_what_our_files_say(tmp_path, monkeypatch, offline_records, small, ending):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))
    record = SimulatedGrid(
        {"bn": Arm(diverges_at=300 if ending == "diverged" else None)}, seeds=(4,), points=10
    )
    record = record.record("", "bn", 4)
    if ending == "failed":
        config = small("seed=4").as_dict()
        record = replace(
            record, status="failed", summary=None, config=config, error="x", curve=record.curve[:5]
        )
    assert upload(record, HERE, tags=["quick"], mode="offline", folder=tmp_path) == len(record.curve)
    (folder,) = (tmp_path / "wandb").glob(f"offline-run-*-{record.run_id}")
    found = offline_records(folder)
    (made,) = [content for kind, content in found if kind == "run"]
    assert (made["run_id"], made["project"], made["entity"]) == (record.run_id, "gbn", "team")
    assert made["run_group"] == group_of(identity_of(record))
    assert made["tags"][:2] == ["quick", "bn"]
    assert made["config"]["update"]["norm"]["method"] == "bn"
    history = [content["item"] for kind, content in found if kind == "history"]
    assert [item["_step"] for item in history] == [point["update"] for point in record.curve]
    assert [item.get("val_accuracy") for item in history] == [
        None if value is None else pytest.approx(value)
        for value in (point["val_accuracy"] for point in record.curve)
    ]
    summary = {
        key: value for kind, content in found if kind == "summary" for key, value in content["update"].items()
    }
    assert summary.get("status") == (None if ending == "failed" else ending)
    assert summary.get("curve_digest") == (None if ending == "failed" else curve_digest(record.curve))
    (closed,) = [content for kind, content in found if kind == "exit"]
    assert closed.get("exit_code", 0) == int(ending == "failed")
