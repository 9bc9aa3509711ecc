"""No bit of a shard can change without an error that names the shard."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from gbn.store import StoreError
from gbn.store.archive import Archive
from gbn.store.shards import SUMS
from gbn.studies.validation.simulate import Arm, SimulatedGrid

COMMITTED = Path(__file__).resolve().parents[2] / "results" / "archive"
FEW, MANY = 12, 150
COUNTS = [FEW, pytest.param(MANY, marks=pytest.mark.long)]
WITHOUT_LAYERS, WITH_LAYERS = "competence-2026-11-24-e7ff4341", "quantile_gradient-2026-11-25-4bb807d0"


def recordings():
    return [{"update": 5, "layers": {"stem": {"gain": [0.5, 1.5, None]}}}]


@pytest.fixture
def written(tmp_path):
    """A shard of this version, half of its records with recordings of their layers."""
    grid = SimulatedGrid({"bn": Arm(), "gbn": Arm(speed=2)}, seeds=range(3), points=12)
    records = [
        dataclasses.replace(record, read_layers=recordings if "gbn" in record.run_id else None)
        for record in grid.records()
    ]
    return Archive(tmp_path).add(records, "experiments/quick", "2026-01-02").shard


def committed(folder, name, sums=True):
    """A copy of a shard of an earlier version."""
    (folder / "archive").mkdir()
    if sums:
        shutil.copy(COMMITTED / SUMS, folder / "archive")
    return Path(shutil.copy(COMMITTED / f"{name}.parquet", folder / "archive"))


def everything(folder):
    return [
        (r.run_id, r.status, r.summary["identity"], r.summary["final"], r.curve, r.provenance, r.layers)
        for r in Archive(folder)
    ]


def complaint(folder):
    """What the error says in one line; None where there is none."""
    try:
        everything(folder)
    except StoreError as error:
        message = str(error)
        return message if "\n" not in message else pytest.fail(message)
    return None


def refused(folder, shard):
    message = complaint(folder) or ""
    return str(shard) in message and "check it out again" in message


@pytest.mark.parametrize("count", COUNTS)
def test_any_bit_of_a_shard_is_missed(written, tmp_path, flips, count):
    sound = everything(tmp_path)
    assert any(record[-1] for record in sound)
    for where in flips(written, count):
        assert refused(tmp_path, written), where
    assert everything(tmp_path) == sound


@pytest.mark.parametrize("name", [WITHOUT_LAYERS, WITH_LAYERS])
@pytest.mark.parametrize("count", COUNTS)
def test_any_bit_of_a_committed_shard_is_missed(tmp_path, flips, name, count):
    shard = committed(tmp_path, name)
    for where in flips(shard, count):
        assert refused(tmp_path, shard), where
    assert everything(tmp_path)


@pytest.mark.parametrize("count", COUNTS)
def test_without_its_sum_an_earlier_shard_never_gives_other_numbers(tmp_path, flips, count):
    shard = committed(tmp_path, WITHOUT_LAYERS, sums=False)
    sound, missed = everything(tmp_path), 0
    for where in flips(shard, count):
        if complaint(tmp_path):
            missed += 1
            assert refused(tmp_path, shard)
        else:
            assert everything(tmp_path) == sound, where
    assert missed > count / 5  # the others changed what no number depends on


@pytest.mark.parametrize("earlier", [False, True])
def test_layers_are_checked_when_they_are_read(tmp_path, flips, request, earlier):
    shard = committed(tmp_path, WITH_LAYERS) if earlier else request.getfixturevalue("written")
    sound = shard.read_bytes()
    for where in flips(shard, 3):
        damaged = shard.read_bytes()
        shard.write_bytes(sound)
        (record, *_) = (record for record in Archive(tmp_path) if record.read_layers)
        shard.write_bytes(damaged)
        with pytest.raises(StoreError, match=f"{shard.name} is not a readable shard .it was changed since"):
            pytest.fail(f"{record.layers} in spite of {where}")


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("part", [0, -1])
def test_a_renamed_shard_is_refused(tmp_path, request, earlier, part):
    shard = committed(tmp_path, WITHOUT_LAYERS, sums=False) if earlier else request.getfixturevalue("written")
    words = shard.stem.split("-")
    words[part] = "other" if part == 0 else words[part][::-1]
    renamed = shard.rename(shard.with_name("-".join(words) + ".parquet"))
    assert refused(tmp_path, renamed)


@pytest.mark.parametrize("damage", [b"", b"no parquet", b"PAR1" + bytes(100) + b"PAR1"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_file_that_is_no_shard_is_refused(tmp_path, earlier, damage):
    (tmp_path / "archive").mkdir()
    shard = tmp_path / "archive" / f"quick-2026-01-02-{'0' * (8 if earlier else 16)}.parquet"
    shard.write_bytes(damage)
    assert refused(tmp_path, shard)


def test_every_committed_shard_is_what_was_written(monkeypatch):
    listed = (COMMITTED / SUMS).read_text()
    shards = Archive(COMMITTED.parent).shards()
    assert [line.split()[1] for line in listed.splitlines()] == [
        shard.name for shard in shards if len(shard.stem.rpartition("-")[2]) == 8
    ]
    count = len(Archive(COMMITTED.parent))
    monkeypatch.setattr("gbn.store.shards.sums_of", lambda folder: {})
    assert len(Archive(COMMITTED.parent)) == count  # and by the hash of their content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {run_id: a, shard: b", "is damaged"),
        ("a: [b\n", "is damaged"),
        ("- &a [*a\n", "is damaged"),
        ("run_id: a\n", "holds a dict, expected a list"),
        ("- {run_id: [a], shard: b, reason: c}", "needs run_id, shard and reason"),
        ("- {run_id: a, shard: 2, reason: c}", "needs run_id, shard and reason"),
        ("\xff\x00", "is damaged"),
    ],
)
def test_a_damaged_list_of_retractions_is_one_line(written, tmp_path, text, message):
    (tmp_path / "archive" / "retractions.yaml").write_bytes(text.encode("latin-1"))
    said = complaint(tmp_path)
    assert message in said
    assert "retractions.yaml" in said


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.long)])
def test_any_bit_of_the_retractions_changes_no_number(written, tmp_path, flips, count):
    archive = Archive(tmp_path)
    for record in list(archive)[:2]:
        archive.retract(record.run_id, "trained on the wrong split", date="2026-01-03")
    sound = everything(tmp_path)
    for where in flips(archive.folder / "retractions.yaml", count):
        message = complaint(tmp_path)
        if message is None:
            assert everything(tmp_path) == sound, where  # a word of a reason
        else:
            assert "retractions.yaml" in message
