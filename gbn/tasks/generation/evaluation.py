"""Evaluation of a generator: FID and KID of images from fixed latents, and pictures of them.

Each point generates from the same latents, those of the run's seed, in evaluation mode. The features of the real
images are computed once per process for each network and set.
"""

import io
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gbn.config.schema import Config
from gbn.data import subset
from gbn.seeding import derive
from gbn.tasks.evaluation import Evaluator, Scores, calibration_parts, inference
from gbn.tasks.generation.features import FeatureNetwork
from gbn.tasks.generation.quality import frechet_distance, kernel_distance

if TYPE_CHECKING:
    from gbn.tasks.generation.task import Generation

#: Rows and columns of the grid of samples, and of the interpolation.
GRID = 8

_real: dict[tuple[Any, ...], Tensor] = {}  # features of real images; for the life of the process


def real_features(network: FeatureNetwork, images: Tensor, labels: Tensor, count: int, digest: str) -> Tensor:
    """Return features (n, d) of `count` of the images in the classes' proportions, or of all; on the CPU.

    Args:
        network: computes them.
        images: uint8 (N, C, H, W), on the network's device.
        labels: (N,).
        count: number of images, at most.
        digest: of the data set: the cache's key, together with the network's name, the part and the number.
    """
    key = (network.suffix, network.reference, digest, count)
    if key not in _real:
        indices = torch.arange(len(labels)) if count >= len(labels) else subset(labels.cpu(), count)
        chosen = images[indices.to(images.device)]
        _real[key] = torch.cat([network(part).cpu() for part in chosen.split(Evaluator.batch)])
    return _real[key]


class GenerationEvaluator(Evaluator):
    """Measures the generator of a run, and shows its images.

    There is no whole set to evaluate: the images of a point are already compared with held-out ones.

    Args:
        config: the run's.
        device: of the model.
        task: gives latents.
        network: computes features, always in float32.
        real: features of real images (n, d).
    """

    def __init__(
        self, config: Config, device: torch.device, task: "Generation", network: FeatureNetwork, real: Tensor
    ) -> None:
        super().__init__(config, device)
        self.task, self.network, self.real, self.device = task, network, real, device
        self.seed, self.options = config.seed, config.trainer.evaluation

    def evaluated(self, model: nn.Module) -> nn.Module:
        """Return the generator."""
        return model.get_submodule("generator")

    def calibration_batches(self, model: nn.Module) -> Iterable[Tensor]:
        """Return fixed latents, other than those of the points."""
        latents = self._latents(model, "calibration", self.options.calibration_images)
        return calibration_parts(latents, self.batch)

    def measure(self, model: nn.Module) -> Scores:
        """Return KID and FID."""
        images = self._generate(model, self._latents(model, "evaluation", self.options.images))
        features = torch.cat([self.network(part).cpu() for part in images.split(self.batch)])
        suffix = self.network.suffix
        return {
            f"kid_{suffix}": kernel_distance(self.real, features),
            f"fid_{suffix}": frechet_distance(self.real, features),
        }

    def best(self, curve: list[dict[str, Any]]) -> dict[str, Any]:
        """Return under ``best``, for each measure, its lowest value and the first update that has it."""
        keys = dict.fromkeys(key for point in curve for key in point if key.startswith(("kid_", "fid_")))
        found = {}
        for key in keys:
            points = [point for point in curve if point.get(key) is not None]
            if points:
                lowest = min(points, key=lambda point: point[key])
                found[key] = {"update": lowest["update"], "value": lowest[key]}
        return {"best": found}

    def pictures(self, model: nn.Module, *, last: bool) -> dict[str, bytes]:
        """Return ``samples``, images of fixed latents; at the end also ``interpolation``, each row between two.

        Exact statistics are used if they are evaluated, too: with running ones the first pictures are gray.
        """
        latents = self._latents(model, "pictures", GRID * GRID)
        rows = self.task.between(latents[:GRID], latents[GRID : 2 * GRID], GRID).flatten(0, 1)
        shown = {"samples": latents} | ({"interpolation": rows} if last else {})
        with self.exact_statistics(model) if self.exact else nullcontext():
            return {name: _png(self._generate(model, each)) for name, each in shown.items()}

    def _latents(self, model: nn.Module, purpose: str, count: int) -> Tensor:
        size: Any = self.evaluated(model).latent
        return self.task.latents(derive(self.seed, "latent", purpose), count, size).to(self.device)

    def _generate(self, model: nn.Module, latents: Tensor) -> Tensor:
        """Return images uint8 (N, C, H, W), generated in evaluation mode."""
        generator = self.evaluated(model)
        with inference(generator, self.autocast()):
            return torch.cat([to_uint8(generator(part)) for part in latents.split(self.batch)])


def to_uint8(images: Tensor) -> Tensor:
    """Convert images in [-1, 1] to uint8, as in an image file; quality is measured on these."""
    return (images.float() * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)


def _png(images: Tensor) -> bytes:
    """Return images uint8 (GRID^2, 3, H, W) as one picture, row by row, without space between them."""
    from PIL import Image

    _, channels, height, width = images.shape
    grid = images.cpu().view(GRID, GRID, channels, height, width).permute(0, 3, 1, 4, 2)
    picture = grid.reshape(GRID * height, GRID * width, channels)
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "PNG")
    return file.getvalue()
