"""Checkpoints defend themselves: damage, foreign files, impossible counts, kills while saving, full disks."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings

import pytest
import torch

from gbn.config.compose import compose
from gbn.engine import checkpoint as module
from gbn.engine import trainer as training
from gbn.engine.checkpoint import CheckpointError, load_checkpoint, previous_of, save_checkpoint
from gbn.engine.run import run
from gbn.store.files import line_of
from gbn.store.records import RunStore, RunWriter
from tests.engine.test_resume import assert_same_run
from tests.small_run import SMALL

CPU = torch.device("cpu")


def after(updates):
    """A `stop` that lets this many updates be made."""
    asked = itertools.count()
    return lambda: next(asked) >= updates


class Half:
    """A run that was stopped twice, so that two checkpoints are there, beside the same run undisturbed."""

    def __init__(self, folder):
        self.whole = RunStore(folder / "whole")
        self.store = RunStore(folder / "half")
        self.config = recorded(folder / "half")
        (self.run_id,) = self.store.run_ids()
        self.folder = self.store.path(self.run_id)
        self.path = self.folder / "checkpoint.pt"
        self.previous = previous_of(self.path)
        self.content = self.path.read_bytes()

    def finish(self):
        """Run to the end; it has to equal the undisturbed run, and to leave nothing behind."""
        outcome = run(self.config)
        assert outcome.status == "finished", outcome.message
        assert_same_run(self.whole, self.store, self.run_id)
        assert self.store.load(self.run_id).layers == self.whole.load(self.run_id).layers
        assert not list(self.folder.glob("*.tmp"))
        assert not self.previous.exists()
        return self.store.load(self.run_id).provenance[-1]

    def refused(self):
        """Run, and have it fail in one line; the line."""
        before = {path.name: path.read_bytes() for path in self.folder.glob("checkpoint*")}
        outcome = run(self.config)
        assert outcome.status == "failed"
        assert "\n" not in outcome.message
        assert {path.name: path.read_bytes() for path in self.folder.glob("checkpoint*")} == before
        return outcome.message


def recorded(folder):
    return compose([*SMALL, "trainer.record.layers=true", f"results_dir={folder}"])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    assert run(recorded(folder / "whole")).status == "finished"
    for updates in (6, 4):
        assert run(recorded(folder / "half"), stop=after(updates)).status == "interrupted"
    return folder


@pytest.fixture
def half(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    return Half(tmp_path)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of 80 kB."""
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"run_id": "some", "step": 3, "model": torch.randn(20_000, generator=generator)})
    return path


def test_any_flipped_bit_is_found(saved):
    content, chosen = saved.read_bytes(), random.Random(0)
    for place in (chosen.randrange(8 * len(content)) for _ in range(300)):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        saved.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=rf"^{saved} .*: remove the folder {saved.parent} to train"):
            load_checkpoint(saved, CPU)
    saved.write_bytes(content)
    assert load_checkpoint(saved, CPU)["step"] == 3


def test_any_cut_is_found(saved):
    content = saved.read_bytes()
    for length in {*range(0, len(content), 499), *range(len(content) - 120, len(content)), 5000, 65_000}:
        saved.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=f"^{saved} "):
            load_checkpoint(saved, CPU)


def test_zeroed_blocks_are_found(saved):
    content = saved.read_bytes()
    blocks = [start for start in range(0, len(content), 64) if any(content[start : start + 64])]
    for start in blocks[:: len(blocks) // 150]:
        block = content[start : start + 64]
        saved.write_bytes(content[:start] + bytes(len(block)) + content[start + 64 :])
        with pytest.raises(CheckpointError, match=r"is damaged|has no digest"):
            load_checkpoint(saved, CPU)


def test_what_follows_the_end_is_found(saved):
    saved.write_bytes(saved.read_bytes() + b"\0" * 64)
    with pytest.raises(CheckpointError, match="has no digest at its end"):
        load_checkpoint(saved, CPU)


def test_torch_reads_a_checkpoint_without_us(saved):
    assert torch.load(saved, weights_only=True)["step"] == 3


def test_a_checkpoint_of_an_earlier_version_is_refused_in_one_line(half):
    torch.save(load_checkpoint(half.path, CPU), half.path)
    half.previous.unlink()
    assert "of an earlier version of gbn): remove the folder" in half.refused()


@pytest.mark.parametrize("damage", ["a bit", "cut", "empty", "missing"])
def test_a_damaged_checkpoint_costs_the_updates_since_the_one_before(half, damage, capfd):
    before = load_checkpoint(half.previous, CPU)["step"]
    flipped = half.content[:5000] + bytes([half.content[5000] ^ 4]) + half.content[5001:]
    contents = {"a bit": flipped, "cut": half.content[:5000], "empty": b""}
    if damage == "missing":  # killed between the two renames
        half.path.unlink()
    else:
        half.path.write_bytes(contents[damage])
    segment = half.finish()
    assert segment["start_update"] == before == 6
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "checkpoint" in line]
    assert said == f"{half.run_id}: {segment['checkpoint']}"
    assert str(half.path) in said
    assert said.endswith("goes on from the checkpoint before it, at update 6")


def test_where_no_checkpoint_is_good_one_line_says_what_to_do(half):
    for path in (half.path, half.previous):
        path.write_bytes(path.read_bytes()[:-100])
    message = half.refused()
    assert f"{half.path} and checkpoint.previous.pt are both damaged" in message
    assert f"remove the folder {half.folder} to train this run again" in message
    shutil.rmtree(half.folder)
    half.finish()


@pytest.mark.parametrize("other", ["seed=1", "optimizer.lr=0.07"])
@pytest.mark.parametrize("place", ["path", "previous"])
def test_another_runs_checkpoint_is_refused_by_name(half, small, tmp_path, other, place):
    config = small(f"results_dir={tmp_path}/other", other)
    run_id = run(config, stop=after(5)).run_id
    shutil.copyfile(RunStore(tmp_path / "other").path(run_id) / "checkpoint.pt", getattr(half, place))
    if place == "previous":
        half.path.write_bytes(b"damaged")
    message = half.refused()
    assert str(getattr(half, place)) in message
    assert f"belongs to {run_id}, not to {half.run_id}" in message


IMPOSSIBLE = {
    "step": (10**6, 20, -1, 3.0, True, None, "3"),
    "points": (4, -1, 1.0, None),
    "seconds": (float("nan"), float("inf"), -1.0, "1", None),
    "diverged_at": (torch.tensor(99), torch.tensor([1]), 5, None),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_counts_that_cannot_be_are_refused(half, name):
    state = load_checkpoint(half.path, CPU)
    assert (state["step"], state["points"]) == (10, 3)
    for value in IMPOSSIBLE[name]:
        save_checkpoint(half.path, state | {name: value})
        assert f"{half.path} has impossible counts ({name}=" in half.refused(), value


def test_a_state_that_does_not_fit_the_network_is_refused(half):
    state = load_checkpoint(half.path, CPU)
    name, tensor = next((name, tensor) for name, tensor in state["model"].items() if tensor.dim() == 2)
    save_checkpoint(half.path, state | {"model": {**state["model"], name: tensor[:-1]}})
    assert "does not fit this run's network" in half.refused()


@pytest.mark.parametrize("name", ["metrics.jsonl", "layers.jsonl"])
def test_another_curve_beside_the_checkpoint_is_refused(half, name):
    path = half.folder / name
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:  # whole lines with digests of their own, as another run's would be
        del line["digest"]
        line["epoch" if name == "metrics.jsonl" else "images"] += 1
    path.write_text("".join(map(line_of, lines)))
    assert "belongs to another curve" in half.refused()


#: Where a kill falls on a save, and the patched function: (module, name).
MOMENTS = {
    "before the checkpoint": (training, "save_checkpoint"),
    "half a file": (torch, "save"),
    "not read back": (module, "_read_back"),
    "before the renames": (module, "previous_of"),
    "between the renames": (module, "replace"),
    "names not on the disk": (module, "sync_folder"),
    "before the summary": (RunWriter, "write_summary"),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("moment", MOMENTS)
def test_sigkill_while_saving_loses_no_checkpoint(half, moment):
    place, name = MOMENTS[moment]
    original = getattr(place, name)
    calls = itertools.count()
    last = {"between the renames": 3, "before the summary": 0}.get(moment, 1)

    def deadly(*arguments):
        if next(calls) == last:
            if moment == "half a file":
                arguments[1].write(half.content[: len(half.content) // 2])
                arguments[1].flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    config = half.config.model_copy(
        update={"trainer": half.config.trainer.model_copy(update={"checkpoint_seconds": 0.0})}
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of forking with threads about; the child uses none
        child = os.fork()
    if child == 0:
        try:
            setattr(place, name, deadly)
            run(config)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    if moment in ("half a file", "not read back"):
        assert list(half.folder.glob("*.tmp"))
    half.finish()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_FSIZE as on Linux")
def test_a_file_that_takes_no_more_fails_the_run_and_keeps_its_checkpoints(half):
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(half.content) // 2, old[1]))
    try:
        message = half.refused()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "File too large" in message
    assert "checkpoint.pt" in message
    assert not list(half.folder.glob("*.tmp"))
    assert half.finish()["start_update"] == 10


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_fails_the_run_and_keeps_its_checkpoints(small, tmp_path, tiny_disk):
    whole = run(small(f"results_dir={tmp_path}/whole"))
    config, store = small(f"results_dir={tiny_disk}"), RunStore(tiny_disk)
    assert run(config, stop=after(8)).status == "interrupted"
    filler = tiny_disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            if shutil.disk_usage(tiny_disk).free == 0:
                break
    with open(filler, "rb+") as file:
        file.truncate(filler.stat().st_size - 4 * 4096)  # small files fit
    outcome = run(config)
    assert outcome.status == "failed"
    assert "No space left on device" in outcome.message
    assert load_checkpoint(store.path(whole.run_id) / "checkpoint.pt", CPU)["step"] == 8
    assert not list(store.path(whole.run_id).glob("*.tmp"))
    filler.unlink()
    assert run(config).status == "finished"
    assert_same_run(RunStore(tmp_path / "whole"), store, whole.run_id)
    assert store.load(whole.run_id).provenance[-1]["start_update"] == 8


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_points_are_on_the_disk_before_the_checkpoint_that_counts_them(half, monkeypatch):
    seen, fsync, replace = [], os.fsync, os.replace

    def noted(descriptor):
        seen.append(os.readlink(f"/proc/self/fd/{descriptor}").rpartition("/")[2])
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", lambda old, new: (seen.append(f"-> {new.name}"), replace(old, new)))
    half.finish()
    end = seen.index("-> checkpoint.previous.pt")
    last = seen[end - 3 : end + 3]
    assert last[:2] == ["metrics.jsonl", "layers.jsonl"]
    assert last[2].startswith(".checkpoint.pt.")
    assert last[3:] == ["-> checkpoint.previous.pt", "-> checkpoint.pt", half.folder.name]


def test_what_does_not_read_back_never_takes_the_checkpoints_place(half, monkeypatch):
    def rotten(path, digest):
        content = bytearray(path.read_bytes())
        content[1000] ^= 1
        path.write_bytes(content)
        read_back(path, digest)

    read_back = module._read_back
    with monkeypatch.context() as patched:
        patched.setattr(module, "_read_back", rotten)
        assert "does not read back as it was written" in half.refused()
    assert half.finish()["start_update"] == 10
