"""What the tests of a generator's runs share: a small set of color images and a run of it that takes a moment."""

import torch

from gbn.config.compose import compose
from gbn.data.image_set import image_set

TINY = (
    "task=generation",
    "model.width=0.03125",
    "model.latent=8",
    "trainer.batch_size=16",
    "trainer.epochs=2",
    "trainer.evaluation.images=24",
    "trainer.evaluation.calibration_images=32",
    "trainer.evaluation.points=3",
    "trainer.evaluation.first=2",
    "task.real_images=30",
    "dataset.validation=8",
    "trainer.progress=quiet",
    "trainer.threads=1",
    "trainer.device=cpu",
    "tracker.mode=disabled",
)


def colors():
    """88 + 40 images 32x32 of two classes: a bright half on a dark one, with noise."""
    generator = torch.Generator().manual_seed(0)

    def part(count):
        labels = torch.arange(count) % 2
        images = torch.randint(60, (count, 3, 32, 32), generator=generator)
        images[labels == 0, :, :16] += 180
        images[labels == 1, :, :, 16:] += 150
        return images.to(torch.uint8), labels

    return image_set("cifar10", part(88), part(40), ("up", "right"), "a test's")


def tiny(*overrides):
    """The configuration of a run of ten updates of networks with 4 to 16 channels."""
    return compose([*TINY, *overrides])
