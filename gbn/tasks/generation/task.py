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

#: Mean and deviation by which real images are normalized, so that they are in [-1, 1] like the generator's tanh.
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


def to_uint8(images: Tensor) -> Tensor:
    """Convert images in [-1, 1] to uint8, as in an image file; quality is measured on these."""
    return (images.float() * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)
