"""Generation of images: a generator against a discriminator, with the non-saturating losses.

Goodfellow et al., Generative Adversarial Networks, arXiv 1406.2661: the discriminator minimizes the binary
cross-entropy of real (1) and generated (0) images; the generator minimizes -log D(G(z)) instead of log(1 - D(G(z))),
whose gradient vanishes while the discriminator wins.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Noise = Literal["uniform", "normal"]

#: What real images are normalized with, so that they lie in [-1, 1] as the generator's tanh does.
MEAN = STD = 0.5


class Generation:
    """Losses of both players and the latents.

    Args:
        noise: distribution of each coordinate of a latent vector: uniform on [-1, 1], or standard normal.
    """

    def __init__(self, noise: Noise = "uniform") -> None:
        self.noise = noise

    @staticmethod
    def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
        """Of logits (N,) of real and (M,) of generated images: the sum of both mean cross-entropies, float32."""
        return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()

    @staticmethod
    def generator_loss(fake: Tensor) -> Tensor:
        """Of logits (M,) of generated images: -log D(G(z)), the mean, float32."""
        return F.softplus(-fake.float()).mean()

    def latents(self, stream: int, count: int, size: int) -> Tensor:
        """Latents (count, size), float32, of a random stream (:func:`gbn.seeding.derive`); drawn on the CPU."""
        generator = torch.Generator().manual_seed(stream)
        if self.noise == "uniform":
            return torch.rand(count, size, generator=generator) * 2 - 1
        return torch.randn(count, size, generator=generator)

    def between(self, start: Tensor, end: Tensor, steps: int) -> Tensor:
        """Latents from `start` to `end`, both (N, size) and both included: (N, steps, size).

        Spherical for normal noise, whose vectors have nearly one length (White, Sampling Generative Networks, arXiv
        1609.04468), straight for uniform noise, whose straight lines stay within its cube.
        """
        share = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[None, :, None]
        a, b = start[:, None], end[:, None]
        if self.noise == "uniform":
            return a + share * (b - a)
        cosine = F.cosine_similarity(a, b, dim=-1).clamp(-1, 1)[..., None]
        angle = cosine.acos().clamp_min(1e-6)  # of equal vectors: the line between them
        return (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8, as a picture file would hold them: what quality is measured on."""
    return (images.float() * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)
