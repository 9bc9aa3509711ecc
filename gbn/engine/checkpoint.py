"""Checkpoints: everything that a resumed run needs to continue as if it had never stopped.

Random streams are derived from (seed, purpose, step) and the learning rate from the step, so the state is small:
model, optimizer, gradient scaler, the step, the training clock, and the sums since the curve's last point.

A file is torch's own archive followed by its SHA-256: it is written in one pass without a second copy in memory, and
``torch.load`` still reads it. (The archive's own CRCs do not help: torch does not check them, and they do not cover
its directory.) The checkpoint before the newest one is kept beside it until the run is done, so that a damaged file
costs the updates in between and not the run.
"""

import hashlib
import io
import math
import os
import pickle
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from gbn.store.files import StoreError, replace, sync_folder

#: The marker between the archive and its digest.
_MARK = b"\ngbn checkpoint 1\n"
_END = len(_MARK) + hashlib.sha256().digest_size


class CheckpointError(StoreError):
    """A checkpoint cannot be used; the message is one line that says what to do."""


class DamagedError(CheckpointError):
    """A checkpoint is damaged."""


def previous_of(path: Path) -> Path:
    """Return the path at which the checkpoint before the one at `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, read it back, and only then move it to `path`, keeping the one that was there.

    A kill at any moment leaves at least one whole checkpoint, at `path` or at ``previous_of(path)``.

    Raises:
        OSError: it cannot be written (the disk is full, say), or does not read back as written; the checkpoints on
            disk are unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            sink = _Hashed(file)
            try:
                torch.save(state, sink)  # type: ignore[arg-type]  # written sequentially
            except RuntimeError as error:  # how torch reports a failed write
                raise sink.failure or error from None
            file.write(_MARK + sink.sha256.digest())
            file.flush()
            os.fsync(file.fileno())
        _read_back(temporary, sink.sha256.digest())
        if path.exists():
            replace(path, previous_of(path))
        replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


class _Hashed:
    """A file that is written sequentially, with a running digest of its content."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            self.file.write(content)
        except OSError as error:
            self.failure = error
            raise
        self.sha256.update(content)
        return len(content)

    def flush(self) -> None:
        self.file.flush()


def _read_back(path: Path, digest: bytes) -> None:
    with open(path, "rb") as file:
        if hasattr(os, "posix_fadvise"):  # read from the disk, not from the page cache
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        written, left = hashlib.sha256(), os.fstat(file.fileno()).st_size - _END
        while left > 0 and (part := file.read(min(left, 1 << 20))):
            written.update(part)
            left -= len(part)
        if written.digest() != digest or file.read() != _MARK + digest:
            raise OSError(f"{path} does not read back as it was written: check the disk")


def load_checkpoint(path: Path, device: torch.device, run_id: str | None = None) -> dict[str, Any]:
    """Read a checkpoint (tensors and plain containers only: nothing in the file is executed).

    Args:
        path: the file.
        device: where tensors are loaded.
        run_id: the run that it must belong to; None accepts any.

    Raises:
        DamagedError: the file is damaged or cannot be read.
        CheckpointError: it is intact, but not a checkpoint of a run, or another run's.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror}): {_anew(path)}") from error
    end = content[-_END:]
    if not end.startswith(_MARK):
        raise DamagedError(
            f"{path} has no digest at its end (it is damaged or cut, or of an earlier version of gbn): {_anew(path)}"
        )
    if hashlib.sha256(memoryview(content)[:-_END]).digest() != end[len(_MARK) :]:
        raise DamagedError(f"{path} is damaged (its content does not fit its digest): {_anew(path)}")
    try:
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is not a checkpoint of a run ({reason}): {_anew(path)}") from error
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{path} is not a checkpoint of a run: {_anew(path)}")
    owner = state.get("run_id")
    if run_id not in (None, owner):
        raise CheckpointError(
            f"{path} belongs to {owner or 'no run'}, not to {run_id}: put it where it came from, or {_anew(path)}"
        )
    return state


def take_up(
    path: Path, device: torch.device, run_id: str, total: int, points: int
) -> tuple[dict[str, Any] | None, str | None]:
    """Return the state that a run resumes from, and one line about anything wrong with its files.

    If the newest checkpoint is damaged or missing, the one before it takes its place, on disk too.

    Args:
        path: the newest checkpoint.
        device: where tensors are loaded.
        run_id: the run that it must belong to.
        total: updates of the whole run.
        points: number of points of the curve on disk.

    Returns:
        The state, None if there is no checkpoint; and the line, None if nothing is wrong.

    Raises:
        CheckpointError: every checkpoint is damaged; or one belongs to another run, or its counts are impossible.
    """
    previous = previous_of(path)
    if not path.exists() and not previous.exists():
        return None, None
    try:
        return _checked(load_checkpoint(path, device, run_id), path, total, points), None
    except DamagedError as error:
        if not previous.exists():
            raise
        try:
            state = _checked(load_checkpoint(previous, device, run_id), previous, total, points)
        except DamagedError:
            raise DamagedError(f"{path} and {previous.name} are both damaged: {_anew(path)}") from error
        what = str(error).removesuffix(f": {_anew(path)}") if path.exists() else f"{path} is missing"
    replace(previous, path)
    return state, f"{what}: goes on from the checkpoint before it, at update {state['step']}"


def _anew(path: Path) -> str:
    return f"remove the folder {path.parent} to train this run again"


def _checked(state: dict[str, Any], path: Path, total: int, points: int) -> dict[str, Any]:
    step, counted, seconds = (state.get(name) for name in ("step", "points", "seconds"))
    diverged_at: Any = state.get("diverged_at")
    whole = isinstance(diverged_at, Tensor) and diverged_at.dtype == torch.int64 and diverged_at.dim() == 0
    possible = {
        f"step={step!r}, allowed are 0 to {total}": type(step) is int and 0 <= step <= total,
        f"points={counted!r}, the curve has {points}": type(counted) is int and 0 <= counted <= points,
        f"seconds={seconds!r}": type(seconds) is float and 0 <= seconds < math.inf,
        f"diverged_at={diverged_at!r}": whole and -1 <= int(diverged_at) <= total,
    }
    for problem, holds in possible.items():
        if not holds:
            raise CheckpointError(f"{path} has impossible counts ({problem}): {_anew(path)}")
    return state
