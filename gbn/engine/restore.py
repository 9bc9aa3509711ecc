"""The network of a finished run, rebuilt with its final weights.

The archive holds no weights: only runs whose folder exists can be restored.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gbn.config.schema import Config
from gbn.engine.build import build_model, task_of
from gbn.engine.checkpoint import load_checkpoint
from gbn.store.files import StoreError
from gbn.store.records import CHECKPOINT, RunStore
from gbn.store.trained_on import check_resumed


@dataclass(frozen=True, eq=False)
class Trained:
    """A restored run.

    Attributes:
        run_id: the run.
        model: its network, in evaluation mode.
        data: the data set.
        evaluator: the evaluator of its curve.
    """

    run_id: str
    model: nn.Module
    data: Any
    evaluator: Any


def trained(store: RunStore, run_id: str, device: torch.device | str = "cpu") -> Trained:
    """Restore a finished run.

    Raises:
        StoreError: the run did not finish here, its data changed, or its weights are gone, damaged or another run's.
        DataError: its data set is missing or broken.
    """
    device = torch.device(device)
    record, path = store.load(run_id), store.path(run_id) / CHECKPOINT
    if record.status != "finished" or not path.exists():
        state = record.status if record.status != "finished" else "without weights"
        raise StoreError(
            f"{run_id} is {state} in {store.path(run_id)}: train it here first (the archive holds no weights)"
        )
    config = Config.model_validate(record.config)
    task = task_of(config)
    data = task.load(config)
    if not config.dataset.allow_changed:
        end = (record.summary or {})["updates"]
        check_resumed(path.parent, record.provenance, end, task.digest(config, data))
    model = build_model(config, data, device)
    model.load_state_dict(load_checkpoint(path, device, run_id)["model"])
    _, evaluator, _ = task.build(config, data, device)
    return Trained(run_id, model.eval(), data, evaluator)
