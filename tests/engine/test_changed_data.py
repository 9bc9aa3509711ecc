"""Files of a data set that change between two runs, or between the parts of one."""

import gzip
import itertools
import shutil

import numpy as np
import pytest

from gbn.analysis.runs.load import load_any
from gbn.config.compose import compose
from gbn.data import digits
from gbn.engine.restore import trained
from gbn.engine.run import run
from gbn.store.files import StoreError
from gbn.store.records import RunStore
from gbn.store.trained_on import short
from tests.data.segmentation.acdc_files import row, write_set, write_table
from tests.engine.test_resume import assert_same_run
from tests.engine.test_segmentation import TINY


def after(updates):
    """A `stop` that lets this many updates be made."""
    asked = itertools.count()
    return lambda: next(asked) >= updates


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A copy of the digits' file, which the runs read."""
    path = tmp_path / "digits.csv.gz"
    shutil.copyfile(digits._file(), path)
    monkeypatch.setattr(digits, "_file", lambda: path)
    return path


def change(path):
    """One pixel of one image."""
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    table[7, 20] = (table[7, 20] + 1) % 17
    with gzip.open(path, "wt") as packed:
        np.savetxt(packed, table, delimiter=",", fmt="%d")


def refused(config):
    outcome = run(config)
    assert outcome.status == "failed"
    assert "\n" not in outcome.message
    assert "allow it with dataset.allow_changed=true" in outcome.message
    return outcome.message


def digests_of(store, run_id):
    return [short(segment["data_digest"]) for segment in store.load(run_id).provenance]


def test_a_run_goes_on_with_its_own_data_alone(small, tmp_path, file):
    whole = run(small(f"results_dir={tmp_path}/whole"))
    config, store = small(), RunStore(tmp_path)
    run(config, stop=after(7))
    kept = file.read_bytes()
    change(file)
    message = refused(config)
    (old,) = digests_of(store, whole.run_id)
    assert f"until update 7 (data digest {old} then, " in message
    assert message.count(old) == 1
    file.write_bytes(kept)
    assert run(config).status == "finished"
    assert_same_run(RunStore(tmp_path / "whole"), store, whole.run_id)


def test_a_run_without_provenance_does_not_go_on(small, tmp_path):
    run_id = run(small(), stop=after(7)).run_id
    (tmp_path / "runs" / run_id / "provenance.json").unlink()
    outcome = run(small())
    assert outcome.status == "failed"
    assert "nothing says what" in outcome.message
    assert run(small("dataset.allow_changed=true")).status == "finished"


def test_it_goes_on_with_other_data_by_the_key_and_tables_say_so(small, tmp_path, file):
    run(small("seed=1"))
    config, store = small(), RunStore(tmp_path)
    run_id = run(config, stop=after(7)).run_id
    change(file)
    assert run(small("dataset.allow_changed=true"), stop=after(5)).status == "interrupted"
    refused(config)  # each resumption needs the key
    assert run(small("dataset.allow_changed=true")).run_id == run_id
    old, new, _ = digests_of(store, run_id)
    assert old != new
    runs = load_any(["*"], tmp_path)
    (note,) = [note for note in runs.notes if "hanged data" in note]
    assert (
        f"1 of 2 runs were trained on data with the digest {old}, not so bn seed 0 ({old} then {new})" in note
    )
    trained(store, run_id)


def test_what_left_no_checkpoint_is_no_earlier_part(small, tmp_path, file):
    run_id = run(small(), stop=after(0)).run_id
    change(file)
    assert run(small()).status == "finished"
    assert len(set(digests_of(RunStore(tmp_path), run_id))) == 2
    assert not [note for note in load_any(["*"], tmp_path).notes if "data" in note]


def test_another_run_on_other_data_is_told_at_its_start(small, tmp_path, file):
    first = run(small())
    change(file)
    message = refused(small("norm=gbn_cvar"))
    assert f"would be trained on other data than {first.run_id}" in message
    assert digests_of(RunStore(tmp_path), first.run_id)[0] in message
    assert run(small("norm=gbn_cvar", "dataset.allow_changed=true")).status == "finished"
    refused(small("norm=gbn_std"))  # what was allowed is not what others compare with
    (note,) = [note for note in load_any(["*"], tmp_path).notes if "hanged data" in note]
    assert "allowed by dataset.allow_changed=true" in note
    assert "not so gbn_cvar_0.75 seed 0" in note


def test_runs_brought_together_from_two_folders_are_no_pair(small, tmp_path, file):
    first = run(small())
    change(file)
    second = run(small("norm=gbn_cvar", f"results_dir={tmp_path}/other"))
    shutil.copytree(tmp_path / "other" / "runs" / second.run_id, tmp_path / "runs" / second.run_id)
    with pytest.raises(StoreError, match="trained on different data") as error:
        load_any(["*"], tmp_path)
    store = RunStore(tmp_path)
    for run_id in (first.run_id, second.run_id):
        assert f"{digests_of(store, run_id)[0]}: {run_id}" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_key_with_unchanged_data_shows_too(small, tmp_path, file):
    run(small("seed=1"))
    run(small("dataset.allow_changed=true"))
    notes = load_any(["*"], tmp_path).notes
    assert "dataset.allow_changed=true was set for 1 of 2 runs; the data of all of them is the same." in notes


def test_weights_are_taken_up_with_their_own_data_alone(small, tmp_path, file):
    run_id = run(small()).run_id
    trained(RunStore(tmp_path), run_id)
    change(file)
    with pytest.raises(StoreError, match="was trained on other data until update 19"):
        trained(RunStore(tmp_path), run_id)


def test_another_split_of_the_same_patients_is_other_data(tmp_path):
    write_set(tmp_path, patients=range(6))
    config = compose([*TINY, f"results_dir={tmp_path}", f"dataset.root={tmp_path}"])
    assert run(config, stop=after(3)).status == "interrupted"
    folds = {0: 3, 3: 0}
    write_table(tmp_path, [row(patient, fold5=folds.get(patient, patient % 5)) for patient in range(6)])
    assert "until update 3 (data digest 2:" in refused(config)
