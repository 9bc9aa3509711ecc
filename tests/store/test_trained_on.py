"""Digests of data: which segments count, what is comparable, the first run of a folder, races, damaged hints."""

import json
import os
import time
import warnings

import pytest

from gbn.store.identity import run_id_of
from gbn.store.records import RunStore
from gbn.store.trained_on import FOLDER, ChangedDataError, check_first, differ, digests, short

OLD, NEW = "a" * 64, "b" * 64


def segment(start, digest):
    return {"start_update": start, "data_digest": digest}


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([], []),
        ([{}], []),
        ([segment(0, OLD)], [OLD]),
        ([segment(0, OLD), segment(5, OLD)], [OLD]),
        ([segment(0, OLD), segment(5, NEW)], [OLD, NEW]),
        ([segment(0, OLD), segment(0, NEW)], [NEW]),  # the first attempt left no checkpoint
        ([segment(0, OLD), segment(9, NEW), segment(5, OLD)], [OLD]),  # resumed from the checkpoint before
        ([segment(0, OLD), segment(5, NEW), segment(9, OLD)], [OLD, NEW]),
        ([segment(0, OLD), segment(5, NEW), segment(0, NEW)], [NEW]),
    ],
)
def test_a_segment_counts_where_something_is_left_of_it(segments, expected):
    assert digests(segments) == expected


def test_only_digests_made_in_one_way_differ():
    assert differ(OLD, NEW)
    assert not differ(OLD, OLD)
    assert not differ(OLD, f"2:{NEW}")
    assert differ(f"2:{OLD}", f"2:{NEW}")
    assert (short(OLD), short(f"2:{OLD}")) == ("a" * 12, "2:" + "a" * 12)


def identity(seed, **dataset):
    parts = {"model": {"name": "net"}, "norm": {"method": "bn"}}
    return {"dataset": {"name": "digits", "revision": 1, **dataset}, **parts, "seed": seed}


def begun(store, seed, digest, **dataset):
    """A run with a segment, and what :func:`check_first` takes."""
    kept = identity(seed, **dataset)
    run_id = run_id_of(kept)
    with store.writer(run_id) as writer:
        writer.add_provenance(segment(0, digest))
    return store, run_id, kept, digest


def test_runs_compare_with_the_first_of_their_data_set(tmp_path):
    store = RunStore(tmp_path)
    first = begun(store, 0, OLD)
    check_first(*first)
    check_first(*first)
    check_first(*begun(store, 1, OLD))
    check_first(*begun(store, 2, NEW, subset=600))  # read in another way: never compared
    check_first(*begun(store, 2, f"2:{NEW}"))  # nor these
    with pytest.raises(
        ChangedDataError, match=rf"{first[1]}.*b{{12}} now, a{{12}} there.*allow_changed=true"
    ) as e:
        check_first(*begun(store, 3, NEW))
    assert "\n" not in str(e.value)
    assert len(store.run_ids()) == 5  # the hints are no run


def hint_of(store):
    (path,) = (store.results_dir / FOLDER).glob("*.json")
    return path


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 40, b"[]", b'{"run_id": 3}', b'{"run_id": "..", "data_digest": "a"}']
)
def test_a_damaged_hint_is_written_again(tmp_path, content):
    store = RunStore(tmp_path)
    check_first(*begun(store, 0, OLD))
    hint_of(store).write_bytes(content)
    check_first(*begun(store, 1, NEW))
    assert json.loads(hint_of(store).read_text())["data_digest"] == NEW
    assert [path.suffix for path in (store.results_dir / FOLDER).iterdir()] == [".json"]


def test_a_hint_holds_as_long_as_its_run_says_the_same(tmp_path):
    store = RunStore(tmp_path)
    _, run_id, _, _ = first = begun(store, 0, OLD)
    check_first(*first)
    check_first(*begun(store, 0, NEW))  # trained anew, its own first attempt is nothing to compare with
    check_first(*begun(store, 1, NEW))
    with pytest.raises(ChangedDataError):
        check_first(*begun(store, 2, OLD))
    (store.path(run_id) / "provenance.json").unlink()
    check_first(*begun(store, 2, OLD))


def test_a_hint_that_cannot_be_written_stops_no_run(tmp_path):
    store = RunStore(tmp_path)
    first = begun(store, 0, OLD)
    (store.results_dir / FOLDER).write_text("no folder")
    check_first(*first)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_of_four_processes_that_begin_at_once_one_is_the_first(tmp_path):
    for turn in range(8):
        store = RunStore(tmp_path / str(turn))
        runs = [begun(store, seed, str(seed) * 64) for seed in range(4)]
        at = time.monotonic() + 0.05
        children = []
        for one in runs:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads about
                child = os.fork()
            if child == 0:
                status = 2
                try:
                    time.sleep(max(0.0, at - time.monotonic()))
                    check_first(*one)
                    status = 0
                except ChangedDataError:
                    status = 1
                finally:
                    os._exit(status)
            children.append(child)
        ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sorted(ended) == [0, 1, 1, 1]
        assert json.loads(hint_of(store).read_text())["run_id"] == runs[ended.index(0)][1]
