"""The places where gradients are measured: states of one training run, other arms at its weights, separate batches.

A state is reached by the trainer itself, so it is the run's, bit for bit on the CPU, and does not depend on what is
measured there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gbn.config.schema import Config
from gbn.data import TrainLoader
from gbn.engine.build import build_model, task_of
from gbn.engine.trainer import Trainer
from gbn.seeding import derive
from gbn.store.records import RunStore
from gbn.tracking.live import Tracker

if TYPE_CHECKING:
    from gbn.data import ImageSet

__all__ = ["State", "at_weights", "independent_batches", "trajectory"]


@dataclass(frozen=True)
class State:
    """A run after some updates.

    Attributes:
        update: the number of updates.
        model: the run's own; the next state changes it.
        loader: the run's batches.
        task: the run's loss.
    """

    update: int
    model: nn.Module
    loader: TrainLoader
    task: Any


def trajectory(
    config: Config, images: ImageSet, updates: Sequence[int] | None, device: torch.device
) -> Iterator[State]:
    """Yield the states of a run after the given numbers of updates, in ascending order; 0 is the initial state.

    None means the initial state, a third of the run and its end.

    Raises:
        ValueError: a number of updates is beyond the run's end, or the run diverges earlier.
    """
    # Evaluations change no weight, so do as few as possible.
    few = {"images": 1, "points": 1, "exact": False, "test_every": 0.0}
    evaluation = config.trainer.evaluation.model_copy(update=few)
    options = config.trainer.model_copy(update={"evaluation": evaluation})
    config = config.model_copy(update={"trainer": options})
    model = build_model(config, images, device)
    loader, evaluator, task = task_of(config).build(config, images, device)
    with tempfile.TemporaryDirectory() as folder, RunStore(folder).writer("trajectory") as writer:
        tracker = Tracker({"mode": "disabled"}, writer.run_id, {}, writer.folder)
        trainer = Trainer(config, model, loader, evaluator, task, writer, tracker, device)
        wanted = sorted({0, trainer.total // 3, trainer.total} if updates is None else set(updates))
        if wanted and not 0 <= wanted[0] <= wanted[-1] <= trainer.total:
            raise ValueError(
                f"states after {wanted} updates: choose from 0 to {trainer.total}, the length of the run"
            )
        for update in wanted:
            trainer.stop = lambda update=update: trainer.step >= update  # type: ignore[misc]
            if trainer.train() == "diverged":
                raise ValueError(f"the run diverged at update {int(trainer.diverged_at)}, before {update}")
            yield State(update, model, loader, task)


@torch.no_grad()
def at_weights(model: nn.Module, configs: Mapping[str, Config], images: ImageSet) -> dict[str, nn.Module]:
    """Return each arm's network with the parameters of `model`, on its device.

    Raises:
        ValueError: an arm's parameters have other names or shapes.
    """
    source = dict(model.named_parameters())
    device = next(iter(source.values())).device
    made = {}
    for arm, config in configs.items():
        other = build_model(config, images, device)
        target = dict(other.named_parameters())
        shapes = {name: value.shape for name, value in source.items()}
        if {name: value.shape for name, value in target.items()} != shapes:
            odd = sorted(target.keys() ^ shapes.keys()) or [n for n in shapes if target[n].shape != shapes[n]]
            raise ValueError(
                f"arm {arm!r} lacks the trained network's parameters ({', '.join(odd)} differ): only arms with the "
                "same parameters can be compared at equal weights; choose them with --arms"
            )
        for name, value in source.items():
            target[name].copy_(value)
        made[arm] = other
    return made


def independent_batches(
    loader: TrainLoader, seed: int, size: int, count: int, purpose: str = "gradient noise"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches drawn independently of each other and of training, without replacement within a batch.

    They are augmented as in training.

    Args:
        loader: provides the images.
        seed: the run's.
        size: images per batch, at most the size of the training set.
        count: number of batches.
        purpose: names the random stream.

    Raises:
        ValueError: a batch is larger than the training set.
    """
    if not 1 <= size <= len(loader.indices):
        raise ValueError(
            f"batches of {size} from {len(loader.indices)} training images: take at most all of them"
        )
    for index in range(count):
        generator = torch.Generator().manual_seed(derive(seed, purpose, "images", size, index))
        chosen = torch.randperm(len(loader.indices), generator=generator)[:size]
        indices = loader.indices[chosen.to(loader.indices.device)]
        yield loader.data.batch(indices, derive(seed, purpose, "augment", size, index))
