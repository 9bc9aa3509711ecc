"""A flipped bit in any file of a run: what is read is what was written, or the file is named."""

import dataclasses
import json

import pytest
import yaml

from gbn.analysis.runs.load import load_any
from gbn.store import RunStore, StoreError
from gbn.store.files import read_curve
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs
from gbn.sweep.watch.run_state import WatchedRun
from gbn.sweep.watch.snapshot import Watch

COUNTS = [12, pytest.param(400, marks=pytest.mark.long)]
GRID = SimulatedGrid({"bn": Arm(final=0.8)}, seeds=[0], points=8)
#: Files that hold no number: whatever is in them, the rest of the run is read.
FREE = ("error.txt", "stderr.txt", "lock")


def recordings():
    return [{"update": n, "layers": {"stem": {"gain": [0.5, n / 7, None]}}} for n in (5, 2000)]


def finished(results):
    record = dataclasses.replace(GRID.records()[0], read_layers=recordings)
    write_runs([record], results)
    return record.run_id


def interrupted(results):
    record = GRID.records()[0]
    with RunStore(results).writer(record.run_id) as writer:
        writer.write_config(record.config)
        for segment in (*record.provenance, {"device": "cpu", "start_update": 20}):
            writer.add_provenance(segment)
        for point in record.curve[:3]:
            writer.append(point)
        for recording in recordings():
            writer.append_layers(recording)
    return record.run_id


def failed(results):
    run_id = interrupted(results)
    with RunStore(results).writer(run_id) as writer:
        writer.write_error("Traceback ...\nValueError: µ is negative\n")
    return run_id


def seen(results, run_id):
    """What a reader gets of a run, or the one line that refuses it."""
    try:
        record = RunStore(results).load(run_id)
        return dataclasses.replace(record, error=None, read_layers=None), record.layers
    except StoreError as error:
        message = str(error)
        return message if "\n" not in message else pytest.fail(message)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("make", [finished, interrupted, failed])
def test_a_flipped_bit_changes_nothing_in_silence(tmp_path, flips, make, count):
    run_id = make(tmp_path)
    folder = RunStore(tmp_path).path(run_id)
    (folder / "stderr.txt").write_text("a warning\n")
    sound = seen(tmp_path, run_id)
    assert sound[1] == recordings()
    named = {path.name: 0 for path in folder.iterdir()}
    assert len(named) == {finished: 7, interrupted: 6, failed: 7}[make]
    for name in named:
        for where in flips(folder / name, count):
            found = seen(tmp_path, run_id)
            named[name] += isinstance(found, str)
            assert found == sound or (name not in FREE and f"{run_id}/{name}" in found), (name, where, found)
            Watch(tmp_path, patterns=["*"]).look()  # never raises
    assert seen(tmp_path, run_id) == sound
    for name, times in named.items():
        assert (times == 0) == (name in FREE), named


@pytest.mark.parametrize("count", COUNTS)
def test_a_flipped_bit_changes_no_table_in_silence(tmp_path, flips, count):
    run_id = finished(tmp_path)
    sound = load_any(["*"], tmp_path)
    curves = sound.curves
    for name in ("config.yaml", "metrics.jsonl", "provenance.json", "summary.json"):
        refused = 0
        for where in flips(RunStore(tmp_path).path(run_id) / name, count):
            try:
                runs = load_any(["*"], tmp_path)
            except StoreError as error:
                assert f"{run_id}/{name}" in str(error), where  # noqa: PT017
                refused += 1
            else:
                assert runs.runs.equals(sound.runs), (name, where)
                assert runs.curves.equals(curves), (name, where)
        assert refused > count / 2


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "layers.jsonl", "provenance.json"])
def test_a_missing_or_longer_file_of_a_finished_run_is_refused(tmp_path, name):
    run_id = finished(tmp_path)
    path = RunStore(tmp_path).path(run_id) / name
    content = path.read_bytes()
    path.unlink()
    assert f"{run_id}/{name} is missing, and the run had one when it ended" in seen(tmp_path, run_id)
    path.write_bytes(content + b"\n")
    assert f"{run_id}/{name} was changed after the run ended, which had another" in seen(tmp_path, run_id)


def test_watch_shows_a_damaged_finished_run_as_failed(tmp_path):
    run_id = finished(tmp_path)
    path = RunStore(tmp_path).path(run_id) / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"update": 5,', b'"update": 4,'))
    state = WatchedRun(path.parent, "val_accuracy").look()
    assert state.status == "failed"
    assert f"{run_id}/metrics.jsonl was changed after the run ended" in state.error


def test_an_interrupted_run_of_an_earlier_version_is_read_and_goes_on_with_digests(tmp_path):
    run_id = interrupted(tmp_path)
    folder = RunStore(tmp_path).path(run_id)
    sound = seen(tmp_path, run_id)
    for name in ("metrics.jsonl", "layers.jsonl"):
        lines = read_curve(folder / name)
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "provenance.json").write_text(json.dumps(sound[0].provenance))
    (folder / "config.yaml").write_text(yaml.safe_dump(sound[0].config))
    assert seen(tmp_path, run_id) == sound
    with RunStore(tmp_path).writer(run_id):
        pass
    assert seen(tmp_path, run_id) == sound
    assert all('"digest": ' in line for line in (folder / "metrics.jsonl").read_text().splitlines())
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"update": 99, "val_accuracy": 0.5}\n')
    assert "some lines have a digest and others have none" in seen(tmp_path, run_id)


def test_a_file_that_came_after_the_end_is_refused(tmp_path):
    write_runs(GRID.records(), tmp_path)
    run_id = GRID.records()[0].run_id
    (RunStore(tmp_path).path(run_id) / "layers.jsonl").write_text(json.dumps(recordings()[0]) + "\n")
    assert "layers.jsonl was changed after the run ended, which had none" in seen(tmp_path, run_id)
