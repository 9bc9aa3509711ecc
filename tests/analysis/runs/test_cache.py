"""The cache gives what the files give, whatever happened to either; and spares reading them."""

import os
import random
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from gbn.analysis.runs import cache
from gbn.analysis.runs.load import load_any, load_grid_runs
from gbn.store import RunStore, StoreError
from gbn.store.archive import Archive
from gbn.store.files import provenance_text, write_atomically
from gbn.store.finished import COVERED, read_summary
from gbn.store.records import summary_text
from gbn.studies.validation.simulate import Arm, Machine, write_files, write_runs

_opened: list[str] | None = None


def _listen(event, arguments):
    if _opened is not None and event == "open" and isinstance(arguments[0], str | os.PathLike):
        _opened.append(os.fspath(arguments[0]))


sys.addaudithook(_listen)


@pytest.fixture
def opened():
    """The files that were opened since."""
    global _opened
    _opened = []
    yield _opened
    _opened = None


def frames(runs):
    return runs.runs, runs.curves.sort_index(axis=1), runs.notes


def same(one, other):
    for ours, theirs in zip(frames(one)[:2], frames(other)[:2], strict=True):
        pd.testing.assert_frame_equal(ours, theirs)
    assert one.notes == other.notes


def parts(results, kind="runs"):
    return sorted((results / "cache").glob(f"{kind}-*.parquet"))


def summary(results, run_id, **changes):
    """Change a summary as its writer would: by replacing the file, with its digests."""
    folder = results / "runs" / run_id
    said, _ = read_summary(folder)
    write_atomically(folder / "summary.json", summary_text(said | changes, contents(folder)))


def contents(folder):
    """What a summary takes the digests of."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name in COVERED}


def test_the_second_look_opens_no_file_of_a_run(grid, results, opened):
    first = load_grid_runs(grid, results)
    assert sum(path.endswith("metrics.jsonl") for path in opened) == 32
    opened.clear()
    same(load_grid_runs(grid, results), first)
    assert not [path for path in opened if "/runs/" in path]
    assert not [path for path in opened if path.endswith((".yaml", ".yml"))]


def test_the_configuration_is_never_read(grid, results, opened):
    for folder in (results / "runs").iterdir():
        (folder / "config.yaml").write_text("{ not: [yaml")
    opened.clear()
    assert len(load_any(["*"], results).runs) == 32
    assert not [path for path in opened if path.endswith("config.yaml")]


@pytest.mark.parametrize("seed", range(3))
def test_a_mixed_store_gives_the_same_with_and_without_cache(make_grid, tmp_path, seed):
    arms = {"bn": Arm(), "wild": Arm(diverges_at=700), "slow": Arm(speed=0.5, final=0.7)}
    grid = make_grid(arms=arms, controls={}, settings=("cnn", "resnet"), seeds=range(4), points=12)
    store, draw = RunStore(tmp_path), random.Random(seed)
    for record in grid.records():
        fate = draw.choice(["done", "done", "failed", "interrupted", "missing", "elsewhere"])
        if fate in ("done", "elsewhere"):
            key = (record.config["model"]["name"], record.config["norm"]["name"], record.config["seed"])
            machine = Machine(device_kind="Simulated GPU") if fate == "elsewhere" else None
            write_files([grid.record(*key, machine)], tmp_path)
        if fate == "failed":
            with pytest.raises(ZeroDivisionError), store.writer(record.run_id):
                raise ZeroDivisionError
        if fate == "interrupted":
            with store.writer(record.run_id) as writer:
                writer.append(record.curve[0])
    write_files([grid.record("cnn", "bn", 9)], tmp_path)
    grid = make_grid(arms=arms, controls={}, settings=("cnn", "resnet"), seeds=[*range(4), 9], points=12)
    plain = load_grid_runs(grid, tmp_path, cache=False)
    assert not (tmp_path / "cache").exists()
    same(load_grid_runs(grid, tmp_path), plain)
    same(load_grid_runs(grid, tmp_path), plain)
    for entry, row in zip(plain.plan.entries, plain.runs.itertuples(), strict=True):
        assert row.status in (store.status(entry.run_id), "left out")
        if row.status not in ("finished", "diverged"):
            continue
        record = store.load(entry.run_id)
        assert (row.machine, row.updates, row.clock) == (
            record.machine,
            record.summary["updates"],
            "exclusive",
        )
        assert row.last == pytest.approx(
            record.summary["final"].get("test_accuracy") or float("nan"), nan_ok=True
        )
        own = plain.curve(entry.setting, entry.arm, entry.seed)
        assert own["update"].tolist() == [point["update"] for point in record.curve]
        expected = [point.get("val_accuracy") for point in record.curve]
        np.testing.assert_array_equal(own.val_accuracy, np.array(expected, dtype=float))


def test_an_edit_in_place_of_the_same_size_and_date_is_noticed(grid, results):
    run_id = grid.cells[0].run_ids[0]
    load_grid_runs(grid, results)
    path = results / "runs" / run_id / "metrics.jsonl"
    dates = path.stat()
    text = path.read_text()
    path.write_text(text.replace('"update": 5,', '"update": 4,', 1))
    os.utime(path, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    with pytest.raises(StoreError, match=rf"{run_id}/metrics\.jsonl was changed after the run ended"):
        load_grid_runs(grid, results)


def test_a_replaced_summary_and_another_provenance_are_noticed(grid, results):
    load_grid_runs(grid, results)
    first, second = grid.cells[0].run_ids[0], grid.cells[0].run_ids[1]
    summary(results, first, parameters=7)
    path = results / "runs" / second / "provenance.json"
    path.write_text(provenance_text([{"versions": {"numpy": "1.2.3"}}]))
    summary(results, second)
    rows = load_grid_runs(grid, results).runs.set_index("run_id")
    assert rows.parameters[first] == 7
    assert rows.status[second] == "left out" or rows.machine[second].endswith("numpy 1.2.3")


def test_new_and_removed_runs_are_noticed(grid, results, make_grid):
    assert len(load_any(["*"], results).runs) == 32
    shutil.rmtree(results / "runs" / grid.cells[0].run_ids[0])
    assert len(load_any(["*"], results).runs) == 31
    assert "bn: missing: seeds 0." in load_grid_runs(grid, results).notes
    more = make_grid(seeds=[8])
    write_runs(more.records(), results)
    assert len(load_any(["*"], results).runs) == 35


def test_a_run_that_is_trained_anew_is_read_anew(grid, results):
    load_grid_runs(grid, results)
    folder = results / "runs" / grid.cells[0].run_ids[0]
    shutil.rmtree(folder)
    record = grid.record("", "bn", 0)
    with RunStore(results).writer(record.run_id) as writer:
        writer.append(record.curve[0])
        assert "bn: running: seeds 0." in load_grid_runs(grid, results).notes
    assert "bn: interrupted: seeds 0." in load_grid_runs(grid, results).notes
    with RunStore(results).writer(record.run_id) as writer:
        writer.write_summary(
            record.summary | {"updates": record.curve[0]["update"], "final": record.curve[0]}
        )
    assert len(load_grid_runs(grid, results).curve("", "bn", 0)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no parquet",
        lambda content: content[: len(content) // 2],
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda content: content + b"\0",
    ],
)
def test_a_damaged_part_is_made_again(grid, results, damage):
    first = load_grid_runs(grid, results)
    frames(first)  # read before the damage
    (part,) = parts(results)
    sound = part.read_bytes()
    part.write_bytes(damage(sound))
    same(load_grid_runs(grid, results), first)
    assert [path.read_bytes() for path in parts(results)] == [sound]


def test_another_version_s_parts_are_left_alone(grid, results, monkeypatch):
    first = load_grid_runs(grid, results)
    monkeypatch.setattr(cache, "VERSION", "next")
    same(load_grid_runs(grid, results), first)
    assert len(parts(results)) == 2


def test_the_cache_can_be_deleted_at_any_time(grid, results):
    first = load_grid_runs(grid, results)
    second = load_grid_runs(grid, results)
    shutil.rmtree(results / "cache")
    same(second, first)  # what was opened is still read
    same(load_grid_runs(grid, results), first)


def test_a_folder_that_cannot_be_written_has_no_cache(grid, results):
    (results / "cache").write_text("in the way")
    plain = load_grid_runs(grid, results, cache=False)
    same(load_grid_runs(grid, results), plain)
    assert (results / "cache").read_text() == "in the way"


def test_a_full_disk_leaves_nothing_half_written(grid, results, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert len(load_grid_runs(grid, results).runs) == 32
    assert {path.name for path in (results / "cache").iterdir()} <= {".gitignore"}


def test_git_does_not_see_the_cache(grid, results):
    load_grid_runs(grid, results)
    assert (results / "cache" / ".gitignore").read_text() == "*\n"


def test_several_writers_at_once_agree(grid, results, monkeypatch):
    monkeypatch.setattr(cache, "PART_RUNS", 5)
    monkeypatch.setattr(cache, "_SMALL_PARTS", 3)
    plain = load_grid_runs(grid, results, cache=False)
    with ThreadPoolExecutor(6) as pool:
        for runs in pool.map(lambda _: load_grid_runs(grid, results), range(12)):
            same(runs, plain)
    same(load_grid_runs(grid, results), plain)


def test_parts_of_single_runs_are_merged(make_grid, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_SMALL_PARTS", 4)
    grid = make_grid(seeds=range(3), points=8)
    for record in grid.records():
        write_files([record], tmp_path)
        load_any(["*"], tmp_path, reference="bn")
        assert 1 <= len(parts(tmp_path)) <= 5
    same(load_grid_runs(grid, tmp_path), load_grid_runs(grid, tmp_path, cache=False))


def test_rows_that_fit_no_run_any_more_are_dropped(grid, results, monkeypatch):
    monkeypatch.setattr(cache, "PART_RUNS", 8)
    for parameters in range(6):
        for cell in grid.cells:
            for run_id in cell.run_ids.values():
                summary(results, run_id, parameters=parameters)
        runs = load_grid_runs(grid, results)
        assert set(runs.runs.parameters) == {parameters}
    assert len(parts(results)) <= 2 * 32 / 8 + 1


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"status": "odd"}', '{"status": "finished", "updates": "many"}']
)
def test_a_damaged_summary_is_an_error_that_names_it(grid, results, text):
    (results / "runs" / grid.cells[0].run_ids[0] / "summary.json").write_text(text)
    with pytest.raises(StoreError, match=r"summary\.json"):
        load_grid_runs(grid, results)


class TestArchive:
    def test_its_second_look_opens_no_shard(self, grid, tmp_path, opened):
        Archive(tmp_path).add(grid.records(), "x")
        first = load_grid_runs(grid, tmp_path, "archive")
        plain = load_grid_runs(grid, tmp_path, "archive", cache=False)
        opened.clear()
        second = load_grid_runs(grid, tmp_path, "archive")
        assert not [path for path in opened if "/archive/" in path]
        same(second, first)
        same(second, plain)

    def test_a_retraction_is_noticed(self, grid, tmp_path):
        archive = Archive(tmp_path)
        archive.add(grid.records(), "x")
        load_grid_runs(grid, tmp_path, "archive")
        archive.retract(grid.cells[0].run_ids[0], "it was wrong")
        assert "bn: missing: seeds 0." in load_grid_runs(grid, tmp_path, "archive").notes
        assert len(parts(tmp_path, "archive")) == 1

    def test_a_new_shard_is_noticed(self, grid, tmp_path, make_grid):
        Archive(tmp_path).add(grid.records(), "x")
        assert len(load_any(["*"], tmp_path, "archive").runs) == 32
        Archive(tmp_path).add(make_grid(seeds=[8]).records(), "y")
        assert len(load_any(["*"], tmp_path, "archive").runs) == 36

    def test_both_sources_are_cached_side_by_side(self, grid, results, make_grid, opened):
        Archive(results).add(make_grid(seeds=[8]).records(), "y")
        first = load_any(["*"], results, "both")
        assert len(first.runs) == 36
        opened.clear()
        same(load_any(["*"], results, "both"), first)
        assert not [path for path in opened if "/runs/" in path or "/archive/" in path]


@pytest.mark.slow
def test_a_thousand_runs_are_read_once(make_grid, tmp_path, opened):
    arms = {"bn": Arm(), **{f"gbn_{k}": Arm(speed=1 + k / 10) for k in range(9)}}
    grid = make_grid(arms=arms, controls={}, seeds=range(100), points=20)
    write_files(grid.records(), tmp_path)
    opened.clear()
    first = load_grid_runs(grid, tmp_path)
    assert sum(path.endswith("metrics.jsonl") for path in opened) == 1000
    assert set(first.runs.status) == {"finished"}
    assert len(parts(tmp_path)) == 2
    opened.clear()
    second = load_grid_runs(grid, tmp_path)
    assert not [path for path in opened if "/runs/" in path]
    same(second, first)
    assert len(second.curves) == sum(len(record.curve) for record in grid.records())
    summary(tmp_path, grid.cells[3].run_ids[50], parameters=7)
    opened.clear()
    assert (load_grid_runs(grid, tmp_path).runs.parameters == 7).sum() == 1
    assert sum(path.endswith("metrics.jsonl") for path in opened) == 1
