"""Generation of images: a generator against a discriminator, with the non-saturating losses.

Goodfellow et al., Generative Adversarial Networks, arXiv 1406.2661: the discriminator minimizes the binary
cross-entropy of real (1) and generated (0) images; the generator minimizes -log D(G(z)) instead of log(1 - D(G(z))),
whose gradient vanishes while the discriminator wins.
"""

from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from gbn.config.datasets import LabeledConfig
from gbn.config.schema import Config
from gbn.config.tasks import GenerationConfig
from gbn.data import DeviceSet, ImageSet, TrainLoader
from gbn.tasks.base import Task, training_part
from gbn.tasks.generation.evaluation import GenerationEvaluator, real_features
from gbn.tasks.generation.features import feature_network
from gbn.tasks.generation.updates import Adversarial

Noise = Literal["uniform", "normal"]

#: Mean and deviation by which real images are normalized, so that they are in [-1, 1] like the generator's tanh.
MEAN = STD = 0.5


class Generation(Task):
    """Losses of both players and the latents.

    Args:
        noise: distribution of each coordinate of a latent vector: uniform on [-1, 1], or standard normal.
    """

    updates = Adversarial

    def __init__(self, noise: Noise = "uniform") -> None:
        self.noise = noise

    @classmethod
    def build(
        cls, config: Config, data: ImageSet, device: torch.device
    ) -> tuple[TrainLoader, GenerationEvaluator, Self]:
        """Return (loader, evaluator, task): real images in [-1, 1] to train on, and others to compare with."""
        options = config.task
        assert isinstance(options, GenerationConfig)
        assert isinstance(config.dataset, LabeledConfig)
        train = DeviceSet(
            data.train_images,
            data.train_labels,
            [MEAN] * data.in_channels,
            [STD] * data.in_channels,
            augmentation=config.dataset.augment,
            device=device,
            channels_last=config.trainer.channels_last,
        )
        training, _ = training_part(config.dataset, data.train_labels, config.seed)
        task = cls(options.noise)
        network = feature_network(options.features, device)
        real, labels = data.test_images, data.test_labels
        if network.reference == "train":
            real, labels = data.train_images, data.train_labels
        features = real_features(network, real.to(device), labels, options.real_images, data.digest)
        evaluator = GenerationEvaluator(config, device, task, network, features)
        return TrainLoader(train, training, config.trainer.batch_size, config.seed), evaluator, task

    @staticmethod
    def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
        """Return the sum of the mean cross-entropies of logits (N,) of real and (M,) of generated images, float32."""
        return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()

    @staticmethod
    def generator_loss(fake: Tensor) -> Tensor:
        """Return the mean of -log D(G(z)) for logits (M,) of generated images, float32."""
        return F.softplus(-fake.float()).mean()

    def latents(self, stream: int, count: int, size: int) -> Tensor:
        """Draw latents (count, size), float32, from a random stream (:func:`gbn.seeding.derive`) on the CPU."""
        generator = torch.Generator().manual_seed(stream)
        if self.noise == "uniform":
            return torch.rand(count, size, generator=generator) * 2 - 1
        return torch.randn(count, size, generator=generator)

    def between(self, start: Tensor, end: Tensor, steps: int) -> Tensor:
        """Interpolate latents from `start` to `end`, both (N, size) and both included: (N, steps, size).

        Spherical for normal noise, whose vectors have nearly equal length (White, Sampling Generative Networks, arXiv
        1609.04468); linear for uniform noise, whose straight lines stay within its cube.
        """
        share = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[None, :, None]
        a, b = start[:, None], end[:, None]
        if self.noise == "uniform":
            return a + share * (b - a)
        cosine = F.cosine_similarity(a, b, dim=-1).clamp(-1, 1)[..., None]
        angle = cosine.acos().clamp_min(1e-6)  # for equal vectors: linear
        return (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()
