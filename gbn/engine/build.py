"""Builds a run from its configuration: its task, and its network with the normalizers."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from gbn.config.schema import Config
from gbn.models import build, initialize
from gbn.nn import add_constant_noise, norm_layer
from gbn.nn.simple import GroupNormAct, largest_divisor
from gbn.store.identity import part_label
from gbn.tasks.base import Task
from gbn.tasks.classification.task import Classification
from gbn.tasks.generation.task import Generation
from gbn.tasks.segmentation.task import Segmentation

__all__ = ["TASKS", "build_model", "task_of"]

#: Name in the configuration -> task. All that differs between tasks is in its class.
TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "generation": Generation,
    "segmentation": Segmentation,
}


def task_of(config: Config) -> type[Task]:
    """Return the task of a run, which loads its data and builds its loader, evaluator and loss."""
    return TASKS[config.task.name]


def build_model(config: Config, images: Any, device: torch.device | str = "cpu") -> nn.Module:
    """Return the network with its normalizers and the seed's initial values, on the device.

    Args:
        config: the run's.
        images: the loaded data set, of which the network's input and output sizes are taken.
        device: the initial values do not depend on it.

    Raises:
        ValueError: an option does not fit the network: a placement matches no norm, or groups don't divide the
            channels of a layer; a network of another package cannot be built, or does not map these images to logits.
    """
    norm = norm_layer(config.norm.method, **config.norm.options())
    options = config.model.model_dump(exclude={"name", "revision"})
    if config.optimizer.precondition != "none" and config.model.name != "custom":
        options["bias"] = True  # preconditioning moves part of each step into the bias, even before a norm
    model = build(
        config.model.name,
        norm,
        in_channels=images.in_channels,
        num_classes=images.num_classes,
        image_size=images.image_size,
        **options,
    )
    model = norm.place(model)
    if "groups" in config.norm.fields:
        _check_groups(model, config.norm.groups)
    model = initialize(model, config.seed)
    if "custom" in (config.model.name, config.dataset.name):
        _check_logits(config, model, images)
    if config.trainer.attack.constant is not None:
        model = add_constant_noise(model, *config.trainer.attack.constant)
    model = model.to(device)
    if config.trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _check_logits(config: Config, model: nn.Module, images: Any) -> None:
    """Check that the network maps the images to logits of their classes: of custom parts, the schema cannot tell."""
    shape = (images.in_channels, images.image_size, images.image_size)
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            made = model(torch.zeros(2, *shape))
        wrong = None if isinstance(made, Tensor) else f"it returns a {type(made).__name__}"
        if wrong is None and made.shape != (2, images.num_classes):
            wrong = f"for 2 of them it returns {tuple(made.shape)}"
    except Exception as error:  # their code
        wrong = " ".join(str(error).split()) or type(error).__name__
    model.train()
    if wrong:
        network, data = (part_label(part.model_dump()) for part in (config.model, config.dataset))
        raise ValueError(
            f"model={network} does not map images {shape} of dataset={data} to logits of {images.num_classes} "
            f"classes: {wrong}"
        )


def _check_groups(model: nn.Module, groups: int) -> None:
    """Check that groups divide channels: a layer would silently use fewer, and the run's id would be wrong."""
    layers = {name: one for name, one in model.named_modules() if type(one) is GroupNormAct}
    for name, layer in layers.items():
        if layer.num_groups != groups:
            common = math.gcd(*(one.num_channels for one in layers.values()))
            raise ValueError(
                f"norm.groups={groups} does not divide the {layer.num_channels} channels of {name}: "
                f"norm.groups={largest_divisor(common, groups)} fits all layers of this network"
            )
