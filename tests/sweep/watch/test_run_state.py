"""A growing run: every change of its files, at any moment, is seen once and right."""

import json
import os

import pytest

from gbn.store.files import content_of
from gbn.store.records import RunStore
from gbn.sweep.watch import run_state
from gbn.sweep.watch.run_state import WatchedRun

RUN = "digits-mlp-bn-s0-0123456789"


def point(update, value, **more):
    return {
        "update": update,
        "epoch": update / 10,
        "val_accuracy": value,
        "val_loss": 1 - (value or 0),
        **more,
    }


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path)


@pytest.fixture
def watched(store):
    return WatchedRun(store.path(RUN), "val_accuracy")


def test_a_run_is_followed_from_nothing_to_its_summary(store, watched):
    assert watched.look().status == "missing"
    with store.writer(RUN) as writer:
        assert watched.look().status == "running"
        assert watched.look().total is None
        writer.write_config({"trainer": {"epochs": 3.0}})
        writer.append(point(5, 0.2))
        state = watched.look()
        assert (state.update, state.total, state.values) == (5, 30, {5: 0.2})
        assert state.share == pytest.approx(1 / 6)
        writer.append(point(30, 0.6))
        assert watched.look().values == {5: 0.2, 30: 0.6}
        writer.write_summary({"run_id": RUN, "status": "finished", "updates": 30, "wall_seconds": 12.5})
    state = watched.look()
    assert (state.status, state.total, state.took, state.share) == ("finished", 30, 12.5, 1.0)
    assert state.values == {5: 0.2, 30: 0.6}


def test_a_torn_line_is_read_when_it_is_whole(store, watched):
    path = store.path(RUN) / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    whole = json.dumps(point(10, 0.5)) + "\n"
    path.write_text(json.dumps(point(5, 0.2)) + "\n" + whole[:20])
    assert watched.look().values == {5: 0.2}
    assert watched.look().error is None
    with open(path, "a") as file:
        file.write(whole[20:])
    assert watched.look().values == {5: 0.2, 10: 0.5}


def test_a_curve_that_did_not_change_is_not_read_again(store, watched, monkeypatch):
    with store.writer(RUN) as writer:
        writer.write_config({"trainer": {"epochs": 3.0}})
        writer.append(point(5, 0.2))
        first = watched.look()
        read = []
        monkeypatch.setattr(run_state, "content_of", lambda path: read.append(path.name) or content_of(path))
        assert watched.look() == first
        assert read == []
        writer.append(point(6, 0.3))
        assert watched.look().values == {5: 0.2, 6: 0.3}
        assert read == ["metrics.jsonl"]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_resumed_run_forgets_the_points_after_its_checkpoint(store, watched, kept):
    with store.writer(RUN) as writer:
        for update, value in ((5, 0.2), (10, 0.4), (20, 0.6)):
            writer.append(point(update, value))
    assert watched.look().status == "interrupted"
    assert len(watched.look().values) == 3
    with store.writer(RUN) as writer:
        writer.truncate(kept)
        # By the time of the next look the new file may be longer than what was read of the old one.
        for update in (30, 40, 50, 60):
            writer.append(point(update, 0.1234567))
    expected = [*[5, 10][:kept], 30, 40, 50, 60]
    assert list(watched.look().values) == expected
    assert watched.look().error is None


def test_files_that_vanish_are_missing_again(store, watched):
    with store.writer(RUN) as writer:
        writer.append(point(5, 0.2))
        writer.write_summary({"run_id": RUN, "status": "finished", "updates": 5})
    assert watched.look().status == "finished"
    for file in store.path(RUN).iterdir():
        file.unlink()
    assert watched.look().values == {}
    os.rmdir(store.path(RUN))
    assert watched.look().status == "missing"


def test_a_failed_run_says_what_was_raised(store, watched):
    with store.writer(RUN) as writer:
        writer.write_error(
            "Traceback (most recent call last):\n"
            '  File "a.py", line 1, in f\n    f()\nKeyError: 1\n\n'
            "During handling of the above exception, another exception occurred:\n\n"
            'Traceback (most recent call last):\n  File "b.py", line 2, in g\n    g(x)\n    ~^^^\n'
            "ValueError: shapes differ\n  (3,) and (4,)\n"
        )
    state = watched.look()
    assert (state.status, state.error) == ("failed", "ValueError: shapes differ")


def test_damage_is_said_and_the_rest_is_kept(store, watched):
    path = store.path(RUN) / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(point(5, 0.2)) + "\n{broken\n[1]\n" + json.dumps(point(9, 0.3)) + "\n")
    state = watched.look()
    assert state.values == {5: 0.2, 9: 0.3}
    assert state.error == "metrics.jsonl: 2 damaged lines left out"
    (path.parent / "summary.json").write_text('{"status": "finis')
    assert watched.look().status == "failed"
    assert "summary.json" in watched.look().error


def test_divergence_is_no_value(store, watched):
    with store.writer(RUN) as writer:
        writer.append(point(5, 0.2))
        writer.append(point(7, None, train_loss=float("nan")))
    state = watched.look()
    assert state.values == {5: 0.2}
    assert state.diverged
    assert state.update == 7


def test_the_pace_of_a_running_run_is_that_of_its_training(store, watched):
    with store.writer(RUN) as writer:
        writer.write_config({"trainer": {"epochs": 10}})
        writer.append(point(40, 0.2, seconds=10.0))
        writer.append(point(60, 0.3, seconds=30.0))
        assert watched.look().pace == pytest.approx(0.5)
    assert watched.look().pace is None


def test_without_wall_seconds_its_training_tells_how_long_it_took(store, watched):
    with store.writer(RUN) as writer:
        writer.append(point(5, 0.2))
        writer.write_summary({"run_id": RUN, "status": "finished", "updates": 5, "seconds": 30.0})
    assert watched.look().took == pytest.approx(30)
