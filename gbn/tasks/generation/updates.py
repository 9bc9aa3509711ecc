"""The updates of a generator against a discriminator (Goodfellow et al. 2014, algorithm 1 with k = 1).

In one update, the discriminator makes a step on a batch of real images and a batch of generated ones (in two forward
passes: each batch has its own statistics, as in Radford et al. 2016); then the generator makes a step against the
updated discriminator, with the same latents. So generator, discriminator and run have the same number of updates, and
the images that a run counts are the real ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gbn.optim import build_optimizer
from gbn.seeding import derive
from gbn.tasks.updates import Updates

_PARTS = ("generator", "discriminator")
_SUMS = ("generator_loss", "discriminator_loss", "real", "fake")


class Adversarial(Updates):
    """Two networks, each with an optimizer of the same kind, and the non-saturating losses of the task.

    Latents have their own stream, (seed, "latent", update), so that all arms of a seed get the same ones.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.networks = {part: self.model.get_submodule(part) for part in _PARTS}
        self.optimizers = {
            part: build_optimizer(network, self.optimizer_options) for part, network in self.networks.items()
        }
        self.generate = self._compiled(self.networks["generator"])
        self.judge = self._compiled(self.networks["discriminator"])

    def reset(self) -> None:
        """Set the sums of losses and of correct decisions to zero."""
        self.sums = {name: torch.zeros((), dtype=torch.float64, device=self.device) for name in _SUMS}
        self.count = 0

    def make(self, step: int) -> None:
        """Make the discriminator's step, then the generator's."""
        images, _ = self.loader.batch(step)
        self._begin(step, *self.optimizers.values())
        size = self.networks["generator"].latent
        latents = self.task.latents(derive(self.config.seed, "latent", step), len(images), size)
        latents = latents.to(self.device)
        with self.autocast():
            fakes = self.generate(latents)
            real, fake = self.judge(images), self.judge(fakes.detach())
        discriminator_loss = self.task.discriminator_loss(real, fake)
        self._step("discriminator", discriminator_loss)
        with _frozen(self.networks["discriminator"]):
            with self.autocast():
                verdict = self.judge(fakes)
            generator_loss = self.task.generator_loss(verdict)
            self._step("generator", generator_loss)
        self.scaler.update()
        with torch.no_grad():
            losses = generator_loss.detach(), discriminator_loss.detach()
            self.loss = losses[0] + losses[1]
            found = (*losses, (real > 0).float().mean(), (fake < 0).float().mean())
            for name, value in zip(_SUMS, found, strict=True):
                self.sums[name] += value
            self.count += 1

    def _step(self, part: str, loss: Tensor) -> None:
        optimizer = self.optimizers[part]
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.config.trainer.clip_norm is not None:
            self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self.networks[part].parameters(), self.config.trainer.clip_norm)
        self.scaler.step(optimizer)

    def loss_so_far(self) -> float | None:
        """Return the generator's mean loss."""
        return float(self.sums["generator_loss"]) / self.count if self.count else None

    def measured(self) -> dict[str, float | None]:
        """Return both mean losses since the last point, and the shares of real and generated images recognized."""
        found = {name: float(value) / self.count if self.count else None for name, value in self.sums.items()}
        return {
            "generator_loss": found["generator_loss"],
            "discriminator_loss": found["discriminator_loss"],
            "discriminator_accuracy_real": found["real"],
            "discriminator_accuracy_fake": found["fake"],
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the states of networks, optimizers and scaler, and the sums."""
        optimizers = {part: optimizer.state_dict() for part, optimizer in self.optimizers.items()}
        return super().state_dict() | {"optimizers": optimizers, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        super().load_state_dict(state)
        for part, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][part])
        self.sums = state["sums"]


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Compute no gradients of the network's own parameters, which the generator's step does not need."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
