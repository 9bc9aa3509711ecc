"""The archive: round trip, contradictions, retractions, and nothing private in a committed file."""

import copy
import dataclasses
import re

import pytest
import yaml

from gbn.store import Record, RunStore, StoreError
from gbn.store.archive import Archive, contradiction
from gbn.store.identity import run_id_of

DAY = "2026-01-02"


def record(seed=0, accuracy=0.5, status="finished", device_kind="Some CPU", threads=2, **summary):
    identity = {
        "dataset": {"name": "digits", "revision": 1},
        "model": {"name": "mlp", "revision": 1},
        "norm": {"method": "bn", "revision": 1},
        "seed": seed,
    }
    run_id = run_id_of(identity)
    curve = [
        {"update": 5, "epoch": 0.5, "seconds": 0.1, "val_accuracy": 0.1, "val_accuracy_exact": 0.2},
        {"update": 10, "epoch": 1, "seconds": 0.3, "val_accuracy": accuracy, "test_accuracy": 1 / 3},
    ]
    if status == "diverged":
        curve.append({"update": 11, "epoch": 1.1, "seconds": 0.4, "val_loss": None, "diverged": True})
        summary = {"updates": 11, "diverged_at": 11, **summary}
    config = {**identity, "results_dir": "/home/someone/results", "tracker": {"entity": "someone"}}
    config["dataset"] = {**identity["dataset"], "root": "/home/someone/data", "download": True}
    return Record(
        run_id=run_id,
        status=status,
        config=config,
        summary={
            "run_id": run_id,
            "status": status,
            "config": config,
            "identity": identity,
            "updates": 10,
            "seconds": 0.3,
            "environment": {
                "device": "cpu",
                "device_kind": device_kind,
                "torch": "2.13.0",
                "kernels": "reference",
                "threads": threads,
            },
            **summary,
        },
        curve=curve,
        provenance=[
            {"argv": ["train.py", "results_dir=/home/someone/results", "norm=bn"], "host": "someones"}
        ],
    )


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path)


def test_records_come_back_number_by_number(archive, tmp_path):
    given = [record(seed, accuracy=0.1 + seed / 3) for seed in range(3)]
    added = archive.add(given, "experiments/quick", DAY)
    assert added.added == sorted(r.run_id for r in given)
    assert added.shard.name.startswith(f"quick-{DAY}-")
    back = {r.run_id: r for r in Archive(tmp_path)}
    for before in given:
        after = back[before.run_id]
        assert after.source == "archive"
        assert after.shard == added.shard.name
        assert after.curve == before.curve
        assert after.summary["identity"] == before.summary["identity"]
        assert after.summary["config"] == after.config
        assert after.status == "finished"
        assert contradiction(before, after) is None


def test_nothing_private_is_published(archive):
    shard = archive.add([record()], "quick", DAY).shard
    (after,) = archive
    assert b"someone" not in shard.read_bytes()
    assert after.provenance == [{"argv": ["train.py", "results_dir=<path>/results", "norm=bn"]}]
    assert after.config["dataset"] == {"name": "digits", "revision": 1, "download": True}
    text = str(after)
    assert "someone" not in text
    assert "/home" not in text


def recorded(seed=0, gain=1.5, revision=1, **options):
    """A record with two recordings of its layers."""
    lines = [
        {"update": n, "revision": revision, "images": 8, "layers": {"stem.norm": {"gain": [0.5, gain, None]}}}
        for n in (5, 10)
    ]
    return dataclasses.replace(record(seed, **options), read_layers=lambda: lines)


def test_recordings_of_layers_come_back_beside_records_without(archive, tmp_path):
    archive.add([record(0), recorded(1), recorded(2, gain=2.5)], "quick", DAY)
    archive.add([record(3)], "quick", DAY)
    back = {r.run_id: r for r in Archive(tmp_path)}
    for before in (record(0), recorded(1), recorded(2, gain=2.5), record(3)):
        assert back[before.run_id].layers == before.layers
        assert back[before.run_id].curve == before.curve


def test_a_shard_without_recordings_has_no_column_for_them(archive):
    import pyarrow.parquet as pq

    shard = archive.add([record()], "quick", DAY).shard
    assert not {"layers", "recorded"} & set(pq.read_schema(shard).names)


def test_recordings_on_one_side_are_no_contradiction_and_can_be_added_later(archive, tmp_path):
    archive.add([record()], "quick", DAY)
    assert archive.add([record()], "quick", DAY).known == [record().run_id]
    added = archive.add([recorded()], "quick", "2026-01-03")
    assert (added.added, added.refused) == ([record().run_id], [])
    again = Archive(tmp_path)
    (after,) = again
    assert after.layers == recorded().layers
    assert again.add([record()], "quick", DAY).known == [record().run_id]
    assert again.add([recorded()], "quick", DAY).known == [record().run_id]


def test_recordings_made_in_the_same_way_must_agree(archive):
    archive.add([recorded()], "quick", DAY)
    ((_, reason),) = archive.add([recorded(gain=1.6)], "quick", "2026-01-03").refused
    assert reason.startswith("the layers recorded at update")
    assert archive.add([recorded(gain=1.6, revision=2)], "quick", "2026-01-03").refused == []


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_only_done_runs_are_packed(archive, status):
    added = archive.add([record(0, status=status), record(1, status="diverged")], "quick", DAY)
    assert added.unfinished == [(record(0).run_id, status)]
    assert added.added == [record(1).run_id]
    (after,) = archive
    assert after.curve[-1] == {"update": 11, "epoch": 1.1, "seconds": 0.4, "diverged": True}


def test_the_same_record_again_adds_nothing_even_with_other_times(archive):
    archive.add([record()], "quick", DAY)
    again = record()
    again.curve[1]["seconds"] = 77.0
    again.summary["seconds"] = 77.0
    added = archive.add([again], "quick", "2026-01-03")
    assert added.known == [again.run_id]
    assert added.shard is None
    assert len(archive.shards()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r.curve[1].update(val_accuracy=0.5000001),
            r"val_accuracy at update 10 was 0\.5, is 0\.5000001",
        ),
        (lambda r: r.curve[1].pop("test_accuracy"), r"test_accuracy at update 10 was 0\.333.*, is None"),
        (lambda r: r.curve.pop(0), "had 2 points, has 1"),
        (lambda r: r.summary.update(parameters=5), "parameters was None, is 5"),
    ],
)
def test_other_numbers_for_the_same_run_are_refused(archive, change, message):
    archive.add([record()], "quick", DAY)
    other = copy.deepcopy(record())
    change(other)
    added = archive.add([other, record(1)], "quick", DAY)
    ((run_id, reason),) = added.refused
    assert run_id == other.run_id
    assert re.search(message, reason)
    assert added.added == [record(1).run_id]  # the others go in
    assert len(archive) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.curve.pop(), "ended after 10 updates, its curve at update 5"),
        (lambda r: r.summary.update(updates=11), "ended after 11 updates, its curve at update 10"),
        (lambda r: r.summary.update(updates="10"), "updates is '10', expected a whole number"),
        (lambda r: r.summary.update(final={"update": 10}), "at the end is None in the summary"),
        (
            lambda r: r.summary.update(status="diverged"),
            "status diverged and diverged_at=None contradict each other",
        ),
        (lambda r: r.curve[0].update(val_accuracy=7.0), r"is 7\.0, expected a number from 0 to 1"),
        (
            lambda r: r.provenance[0].update(kernels="fused"),
            "kernels is 'reference' in the summary, 'fused' in",
        ),
        (lambda r: r.config.update(seed=1), "seed of the configuration is not that of the run's identity"),
        (lambda r: r.config.update(model={"revision": 1}), "model.name of the configuration is not that"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused_and_the_others_go_in(archive, change, message):
    wrong = copy.deepcopy(record(status="finished", diverged_at=None))
    change(wrong)
    added = archive.add([wrong, record(1)], "quick", DAY)
    ((run_id, reason),) = added.refused
    assert run_id == wrong.run_id
    assert re.search(message, reason)
    assert added.added == [record(1).run_id]


def test_two_records_of_one_call_must_agree_too(archive):
    added = archive.add([record(), record(accuracy=0.6)], "quick", DAY)
    assert len(added.refused) == 1
    assert len(archive) == 1


def test_the_same_run_elsewhere_is_more_evidence_not_a_contradiction(archive):
    archive.add([record()], "quick", DAY)
    for other in (record(accuracy=0.51, device_kind="Some GPU"), record(accuracy=0.52, threads=1)):
        assert archive.add([other], "quick", DAY).added == [other.run_id]
    assert len(archive.find(record().run_id)) == 3


def test_a_record_whose_identity_is_anothers_is_refused(archive):
    renamed = dataclasses.replace(record(), run_id="digits-mlp-gbn_cvar-s0-0123456789")
    assert "it is the summary of 'digits-mlp-bn-s0" in archive.add([renamed], "quick", DAY).refused[0][1]
    renamed.summary["run_id"] = renamed.run_id
    assert "identity is that of digits-mlp-bn-s0" in archive.add([renamed], "quick", DAY).refused[0][1]
    empty = record()
    del empty.summary["identity"]
    assert "no identity" in archive.add([empty], "quick", DAY).refused[0][1]
    pointless = record()
    pointless.curve.clear()
    assert "without a single point" in archive.add([pointless], "quick", DAY).refused[0][1]
    assert archive.shards() == []


def test_a_retraction_takes_a_record_back_and_makes_room_for_another(archive, tmp_path):
    first = archive.add([record(0), record(1)], "quick", DAY).shard
    content = first.read_bytes()
    run_id = record().run_id
    assert archive.retract(run_id, "trained with a leaking split", date=DAY) == [first.name]
    assert archive.find(run_id) == []
    assert len(archive) == 1
    assert first.read_bytes() == content
    added = archive.add([record(accuracy=0.7)], "quick", DAY)
    assert added.added == [run_id]
    (back,) = Archive(tmp_path).find(run_id)
    assert back.curve[1]["val_accuracy"] == 0.7
    (entry,) = yaml.safe_load((archive.folder / "retractions.yaml").read_text())
    assert entry == {
        "run_id": run_id,
        "shard": first.name,
        "date": DAY,
        "reason": "trained with a leaking split",
    }


def test_retractions_need_a_reason_and_a_record(archive):
    archive.add([record()], "quick", DAY)
    with pytest.raises(StoreError, match="needs a reason"):
        archive.retract(record().run_id, "  ")
    with pytest.raises(StoreError, match="holds no record of nothing"):
        archive.retract("nothing", "because")
    with pytest.raises(StoreError, match=r"shard other\.parquet holds no record"):
        archive.retract(record().run_id, "because", shard="other.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {run_id: a, shard: b}", "needs run_id, shard and reason"),
        ("- just text", "needs run_id, shard and reason"),
        ("- {run_id: a, shard: b, reason: c}", "takes back a of b, which is not there"),
    ],
)
def test_a_bad_retraction_list_is_an_error(archive, text, message):
    archive.add([record()], "quick", DAY)
    (archive.folder / "retractions.yaml").write_text(text)
    with pytest.raises(StoreError, match=message):
        list(Archive(archive.folder.parent))


def test_shards_that_disagree_after_a_merge_are_an_error(tmp_path):
    here, there = Archive(tmp_path / "here"), Archive(tmp_path / "there")
    here.add([record()], "quick", DAY)
    shard = there.add([record(accuracy=0.6)], "quick", DAY).shard
    shard.rename(here.folder / shard.name)
    with pytest.raises(StoreError, match=r"disagree on digits.*val_accuracy at update 10"):
        len(Archive(tmp_path / "here"))


def test_a_damaged_shard_is_named(archive):
    shard = archive.add([record()], "quick", DAY).shard
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"quick-.*\.parquet is not a readable shard"):
        list(Archive(archive.folder.parent))


def test_an_empty_archive_is_empty(archive):
    assert len(archive) == 0
    assert list(archive) == []


def test_a_run_goes_from_the_store_into_the_archive(tmp_path, archive):
    before = record()
    with RunStore(tmp_path).writer(before.run_id) as writer:
        writer.write_config(before.config)
        writer.add_provenance(before.provenance[0])
        for point in before.curve:
            writer.append(point)
        writer.write_summary(before.summary)
    archive.add(RunStore(tmp_path), "quick", DAY)
    (after,) = archive
    assert after.curve == before.curve
    assert archive.add(RunStore(tmp_path), "quick", DAY).known == [before.run_id]


def test_shards_are_compact(archive):
    many = [record(seed) for seed in range(60)]
    for one in many:
        one.curve[:] = [
            {"update": u, "seconds": u * 0.0123, **{f"k{k}": (u * k % 997) / 997 for k in range(16)}}
            for u in range(40)
        ]
        one.summary["updates"] = 39
    shard = archive.add(many, "quick", DAY).shard
    assert shard.stat().st_size < 60 * 8_000  # 40 points x 18 numbers are 5.8 kB raw
