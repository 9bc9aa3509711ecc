"""Checkpoints: everything that a resumed run needs to go on as if it had never stopped.

Random streams are derived from (seed, purpose, step) and the learning rate from the step, so the state is small:
model, optimizer, gradient scaler, the step, the training clock, and the sums since the curve's last point.
"""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from gbn.store.files import replace


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message is one line that says what to do."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: a kill at any moment leaves the previous checkpoint or the new one, never half a file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint (tensors and plain containers only: nothing in the file is executed).

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} is damaged ({reason}): remove the folder to start this run anew"
        ) from error
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{path} is no checkpoint of a run: remove the folder to start this run anew")
    return state
