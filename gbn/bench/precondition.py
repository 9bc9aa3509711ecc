"""Training steps with and without batch normalization preconditioning: the arms, their check, their timing.

The command is ``gbn bench precondition``.
"""

import argparse
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gbn import models
from gbn.nn import norm_layer
from gbn.optim import BatchNormPreconditioner

from .environment import COLUMNS as ENVIRONMENT
from .names import PRECONDITIONED_ARMS as ARMS
from .names import PRECONDITIONED_IMAGES as IMAGES
from .providers import started
from .timing import Step, columns, interleave, ratios, spread, wall_clock

COLUMNS = (
    *("net", "width", "batch", "arm", "status", "first_losses", "rounds", "step_ms", "p20", "p80"),
    *("ratio", "ratio_p20", "ratio_p80", "others", *ENVIRONMENT),
)


@dataclass(frozen=True)
class Setting:
    """The settings shared by the arms."""

    net: str
    width: float
    batch: int


class Arm:
    """One network in training on fixed images."""

    def __init__(self, name: str, setting: Setting, device: torch.device) -> None:
        channels, side = IMAGES[setting.net]
        model = models.build(
            setting.net,
            norm_layer("none"),
            in_channels=channels,
            num_classes=10,
            image_size=side,
            width=setting.width,
        )
        self.model = models.initialize(model, 0).to(device)
        # A rate so low that the network hardly changes: the timing does not depend on how well an arm trains.
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-5, momentum=0.9)
        options = ARMS[name]
        self.preconditioner = None if options is None else BatchNormPreconditioner(self.model, **options)
        make = torch.Generator().manual_seed(0)
        self.images = torch.randn(setting.batch, channels, side, side, generator=make).to(device)
        self.labels = torch.randint(10, (setting.batch,), generator=make).to(device)

    def step(self) -> Tensor:
        """Make one update; return the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(self.images), self.labels)
        loss.backward()
        if self.preconditioner is not None:
            self.preconditioner.precondition()
        self.optimizer.step()
        return loss.detach()


def _advance(arm: Arm, _: int) -> None:
    arm.step()


def rows_of(
    setting: Setting, names: list[str], device: torch.device, known: dict[str, Any], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return one row per arm; one that fails, at its check or otherwise, is not timed, and its row says so."""
    head = {"net": setting.net, "width": setting.width, "batch": setting.batch}
    rows = {name: head | {"arm": name, "status": "ok"} | known for name in names}

    def start(name: str) -> tuple[Arm, list[float]]:
        arm = Arm(name, setting, device)
        return arm, [arm.step().item() for _ in range(3)]

    arms, losses = started(rows, start)
    base = names[0]
    plain = losses[base][0] if base in losses else math.nan
    for name, values in losses.items():
        if not all(map(math.isfinite, values)) or abs(values[0] - plain) > 1e-4 * abs(plain):
            rows[name]["status"] = (
                f"check failed: losses {rows[name]['first_losses']}, the plain step's first is {plain:g}"
            )
            del arms[name]
    if base not in arms:
        return list(rows.values())
    samples = interleave(
        {name: Step(partial(_advance, arm)) for name, arm in arms.items()},
        wall_clock(device),
        blocks=args.blocks,
        block_seconds=args.block_seconds,
        warm_up=2,
        exclusive=device.type == "cpu",
    )
    for name in arms:
        step = spread([1e3 * second for second in samples.seconds[name]])
        rows[name] |= {"rounds": samples.rounds, "others": samples.others, "step_ms": step.median}
        rows[name] |= {"p20": step.p20, "p80": step.p80}
        rows[name] |= columns("ratio", ratios(samples.seconds[name], samples.seconds[base]))
    return list(rows.values())
