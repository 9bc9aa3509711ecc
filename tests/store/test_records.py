"""The files of a run, and what is left of them after every kind of end."""

import json
import math
import subprocess
import sys
import textwrap

import pytest

from gbn.store import LockedError, RunStore, StoreError
from gbn.store.record import Record

RUN = "digits-mlp-bn-s0-0123456789"
SUMMARY = {"run_id": RUN, "status": "finished", "updates": 3, "seconds": 1.5}


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "results")


def point(update, **more):
    return {"update": update, "val_accuracy": 0.1 * update, **more}


def end_in(error, store, text=None):
    with store.writer(RUN) as writer:
        writer.append(point(2, betas=(0.9, 0.99)))
        if text:
            writer.write_error(text)
        raise error


def test_a_run_comes_back_as_written(store):
    with store.writer(RUN) as writer:
        writer.write_config({"seed": 0, "optimizer": {"lr": 1e-5, "milestones": [0.5]}, "x": None})
        writer.add_provenance({"device": "cpu", "updates": [0, 2]})
        writer.add_provenance({"device": "cuda", "updates": [2, 3]})
        for update in (1, 2, 3):
            writer.append(point(update))
        assert store.status(RUN) == "running"
        writer.write_summary(SUMMARY)
    record = store.load(RUN)
    assert record.run_id == RUN
    assert record.status == "finished"
    assert record.config == {"seed": 0, "optimizer": {"lr": 1e-5, "milestones": [0.5]}, "x": None}
    assert record.summary == SUMMARY
    assert record.curve == [point(1), point(2), point(3)]
    assert [segment["device"] for segment in record.provenance] == ["cpu", "cuda"]
    assert record.error is None
    assert record.source == "store"


def layers(update, **quantities):
    return {"update": update, "revision": 1, "images": 8, "layers": {"stem.norm": quantities}}


def test_recordings_of_layers_come_back_with_null_for_what_is_not_defined(store):
    with store.writer(RUN) as writer:
        writer.append(point(1))
        assert store.load(RUN).layers == []
        writer.append_layers(layers(1, gain=[math.nan, 1.0, math.inf]))
        writer.append_layers(layers(3, gain=[0.5, 1.0, 1.5]))
    expected = [layers(1, gain=[None, 1.0, None]), layers(3, gain=[0.5, 1.0, 1.5])]
    assert store.load(RUN).layers == expected
    with (store.path(RUN) / "layers.jsonl").open("a") as file:
        file.write('{"update": 4, "lay')  # killed in mid-line
    assert store.load(RUN).layers == expected
    with store.writer(RUN) as writer:
        writer.append_layers(layers(4))
    assert store.load(RUN).layers == [*expected, layers(4)]


def test_truncating_the_curve_drops_the_recordings_behind_it(store):
    with store.writer(RUN) as writer:
        for update in (1, 2, 3):
            writer.append(point(update))
            writer.append_layers(layers(update))
        writer.truncate(2)
        assert store.load(RUN).layers == [layers(1), layers(2)]
        writer.truncate(0)
    assert store.load(RUN).layers == []


def test_statuses(store):
    assert store.status(RUN) == "missing"
    with store.writer(RUN):
        assert store.status(RUN) == "running"
    assert store.status(RUN) == "missing"  # nothing but a lock file was ever written
    with store.writer(RUN) as writer:
        writer.append(point(1))
    assert store.status(RUN) == "interrupted"
    with pytest.raises(ZeroDivisionError, match="boom"):
        end_in(ZeroDivisionError("boom"), store)
    assert store.status(RUN) == "failed"
    assert "ZeroDivisionError: boom" in store.load(RUN).error
    with store.writer(RUN):  # the retry starts with a clean slate
        assert store.load(RUN).error is None
    assert store.status(RUN) == "interrupted"
    for status in ("finished", "diverged", "not_applicable"):
        other = f"{RUN}-{status}"
        with store.writer(other) as writer:
            writer.append(point(1))
            writer.write_summary({"run_id": other, "status": status})
        assert store.status(other) == status
        assert other in store


def test_the_trainers_own_error_text_is_kept(store):
    with pytest.raises(MemoryError):
        end_in(MemoryError(), store, "out of memory at batch 512: lower trainer.batch_size")
    assert store.load(RUN).error == "out of memory at batch 512: lower trainer.batch_size\n"


def test_an_interrupt_is_no_failure(store):
    with pytest.raises(KeyboardInterrupt):
        end_in(KeyboardInterrupt(), store)
    assert store.status(RUN) == "interrupted"
    assert store.load(RUN).error is None


def test_a_done_run_is_never_written_again(store):
    with store.writer(RUN) as writer:
        writer.append(point(3))
        writer.write_summary(SUMMARY)
    with pytest.raises(StoreError, match=r"is done \(finished\)"):
        store.writer(RUN).__enter__()
    assert store.load(RUN).summary == SUMMARY
    assert store.status(RUN) == "finished"  # and its lock was given back


def test_a_torn_last_line_is_dropped_and_the_next_point_stands_on_its_own_line(store):
    with store.writer(RUN) as writer:
        writer.append(point(1))
        writer.append(point(2))
    metrics = store.path(RUN) / "metrics.jsonl"
    whole = metrics.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first + 1, len(whole) - 1):
        metrics.write_bytes(whole[:length])
        assert store.load(RUN).curve == [point(1)], length
    with store.writer(RUN) as writer:
        writer.append(point(3))
        assert writer.curve() == [point(1), point(3)]
    metrics.write_bytes(whole[:-1])  # only the newline is lost: the point is whole
    with store.writer(RUN) as writer:
        writer.append(point(3))
    assert store.load(RUN).curve == [point(1), point(2), point(3)]


def test_damage_inside_a_curve_is_an_error_that_names_the_line(store):
    with store.writer(RUN) as writer:
        writer.append(point(1))
    metrics = store.path(RUN) / "metrics.jsonl"
    metrics.write_text('{"update": 1}\n{"upd\n{"update": 3}\n')
    with pytest.raises(StoreError, match=r"metrics\.jsonl line 2 is damaged"):
        store.load(RUN)


def test_a_writer_that_finds_damage_gives_its_lock_back(store):
    with store.writer(RUN) as writer:
        writer.append(point(1))
    metrics = store.path(RUN) / "metrics.jsonl"
    sound = metrics.read_bytes()
    metrics.write_bytes(sound.replace(b"0.1", b"0.2"))
    with pytest.raises(StoreError, match=r"metrics\.jsonl line 1 is damaged"):
        store.writer(RUN).__enter__()
    metrics.write_bytes(sound)
    assert store.status(RUN) == "interrupted"


def test_nan_and_infinity_become_null_and_mark_the_point(store):
    with store.writer(RUN) as writer:
        writer.append(point(1, val_loss=math.nan, lr=0.1))
        writer.append(point(2, val_loss=-math.inf))
        writer.append(point(3, val_loss=0.5))
        writer.append(point(4, betas=(0.9, 0.99)))
    first, second, third, fourth = store.load(RUN).curve
    assert first["val_loss"] is None
    assert first["diverged"] is True
    assert first["lr"] == 0.1
    assert second["val_loss"] is None
    assert second["diverged"] is True
    assert "diverged" not in third
    assert "diverged" not in fourth
    for line in (store.path(RUN) / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_truncate_goes_back_to_the_checkpoint(store):
    with store.writer(RUN) as writer:
        for update in range(1, 6):
            writer.append(point(update))
        writer.truncate(2)
        assert writer.curve() == [point(1), point(2)]
        writer.append(point(3))
        with pytest.raises(StoreError, match=r"cannot keep 4 points of a curve that has 3"):
            writer.truncate(4)
        writer.truncate(0)
    assert store.load(RUN).curve == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "running"}, "status 'running'"),
        ({"run_id": "other"}, "the summary of 'other'"),
        ({"identity": {"seed": 0}}, "its identity is invalid"),
        ({"updates": "3"}, "updates is '3', expected a whole number"),
        ({"seconds": "1.5"}, "seconds is '1.5', expected a number"),
        ({"updates": 4}, "ended after 4 updates, its curve at update 3"),
        ({"diverged_at": 3}, "status finished and diverged_at=3"),
        ({"final": 7}, "final is 7, expected a mapping"),
        (
            {"final": {"val_accuracy": 7.0}},
            "val_accuracy at update None is 7.0, expected a number from 0 to 1",
        ),
        ({"final": {"update": 3}}, "val_accuracy at the end is None in the summary, 0.3.* in the curve"),
        ({"best_on_test": {"test_accuracy": "1"}}, "best_on_test: test_accuracy at update None is '1'"),
        ({"config": {"seed": 1}}, "the configuration is not the one in the summary"),
        ({"environment": {"device": "cuda"}}, "device is 'cuda' in the summary, 'cpu' in the provenance"),
    ],
)
def test_a_summary_that_no_reader_would_take_is_not_written(store, changes, message):
    with store.writer(RUN) as writer:
        writer.write_config({"seed": 0})
        writer.add_provenance({"device": "cpu"})
        writer.append(point(3))
        with pytest.raises(StoreError, match=message):
            writer.write_summary(SUMMARY | changes)
        assert store.status(RUN) == "running"
        writer.write_summary(SUMMARY | {"final": point(3, val_loss=math.nan)})
    assert store.load(RUN).summary["final"] == point(3, val_loss=None)


def test_a_finished_run_without_a_point_is_not_written(store):
    with store.writer(RUN) as writer, pytest.raises(StoreError, match="finished without a single point"):
        writer.write_summary(SUMMARY)


def test_writing_needs_the_lock(store):
    writer = store.writer(RUN)
    with pytest.raises(StoreError, match="enter the writer"):
        writer.append(point(1))
    assert store.status(RUN) == "missing"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("summary.json", '{"status": "fin', "summary.json is damaged"),
        ("summary.json", '{"status": "nearly"}', "status 'nearly'"),
        ("summary.json", "[]", "holds a list"),
        ("provenance.json", "{}", "holds a dict"),
        ("config.yaml", "a: [", "config.yaml is damaged"),
        ("config.yaml", "- a", "holds a list"),
    ],
)
def test_a_corrupt_file_is_named(store, name, text, message):
    with store.writer(RUN) as writer:
        writer.append(point(1))
    (store.path(RUN) / name).write_text(text)
    with pytest.raises(StoreError, match=message):
        store.load(RUN)


def test_a_file_that_cannot_be_read_is_named(store):
    with store.writer(RUN) as writer:
        writer.append(point(1))
    for name in ("config.yaml", "metrics.jsonl", "provenance.json", "error.txt", "lock"):
        folder, path = store.path(RUN), store.path(RUN) / name
        path.unlink(missing_ok=True)
        path.mkdir()
        with pytest.raises(StoreError, match=rf"{name}.* cannot be (read|opened)") as error:
            store.load(RUN)
        assert "\n" not in str(error.value)
        path.rmdir()
        (folder / "metrics.jsonl").touch()


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", ".hidden"])
def test_an_id_is_a_folder_name(store, run_id):
    with pytest.raises(StoreError, match="is not a run id"):
        store.path(run_id)


def test_a_missing_run_says_where_it_was_sought(store):
    with pytest.raises(StoreError, match=r"no run digits.* \(0 runs there\)"):
        store.load(RUN)
    assert list(store) == []


def test_iteration_is_sorted_and_skips_empty_folders(store):
    for name in ("b", "a"):
        with store.writer(name) as writer:
            writer.append(point(1))
    store.path("c").mkdir()
    (store.runs_dir / "stray.txt").write_text("")
    assert [record.run_id for record in store] == ["a", "b"]
    assert store.run_ids() == ["a", "b", "c"]


WRITER = textwrap.dedent(
    """
    import sys
    from gbn.store import RunStore
    with RunStore(sys.argv[1]).writer(sys.argv[2]) as writer:
        writer.write_config({"seed": 0})
        update = 0
        while True:
            update += 1
            writer.append({"update": update, "text": "x" * 2000})
            if update == 50:
                print("going", flush=True)
    """
)


def test_kill_9_in_mid_write_loses_at_most_the_last_line(store):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.results_dir), RUN], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "going\n"
    assert store.status(RUN) == "running"
    with pytest.raises(LockedError, match=f"process {process.pid}"):
        store.writer(RUN).__enter__()
    process.kill()
    process.wait()
    process.stdout.close()
    assert store.status(RUN) == "interrupted"
    updates = [entry["update"] for entry in store.load(RUN).curve]
    assert len(updates) >= 50
    assert updates == list(range(1, len(updates) + 1))
    with store.writer(RUN) as writer:
        writer.append({"update": updates[-1] + 1})
        assert len(writer.curve()) == len(updates) + 1


def test_a_machine_is_named_with_the_libraries_that_compute():
    def machine(**changes):
        segment = {"device_kind": "A GPU", "kernels": "triton", "cuda": "12.8", "cudnn": 91002}
        segment["versions"] = {"torch": "2.13.0", "numpy": "2.4.6", "triton": "3.6.0", "wandb": "0.31.0"}
        versions = {**segment["versions"], **changes.pop("versions", {})}
        environment = {"device_kind": "A GPU", "torch": versions["torch"], "kernels": "triton"}
        return Record(
            "r",
            "finished",
            {},
            {"environment": environment},
            [],
            [segment | changes | {"versions": versions}],
        ).machine

    assert (
        machine() == "A GPU, torch 2.13.0, kernels triton, numpy 2.4.6, triton 3.6.0, cuda 12.8, cudnn 91002"
    )
    for changed in (
        {"cudnn": 91100},
        {"cuda": "13.0"},
        {"versions": {"numpy": "2.5.0"}},
        {"versions": {"triton": "3.7"}},
    ):
        assert machine(**changed) != machine()
    assert machine(versions={"wandb": "0.32.0"}) == machine()  # it computes nothing


def test_a_run_resumed_under_another_version_is_of_neither():
    segments = [{"versions": {"torch": torch}, "device_kind": "A CPU"} for torch in ("2.12.0", "2.13.0")]
    environment = {"device_kind": "A CPU", "torch": "2.13.0", "kernels": "reference"}
    record = Record("r", "finished", {}, {"environment": environment}, [], segments)
    assert record.machine == "A CPU, torch 2.12.0 then 2.13.0, kernels reference"
