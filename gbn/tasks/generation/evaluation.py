"""The points of a generator's curve: FID and KID of images from fixed latents, and what one looks at.

Each point generates from the same latents, those of the run's seed, in evaluation mode: with running statistics, and
(``_exact``) with statistics recomputed over fixed batches of other latents, since running ones lag behind the
weights. The features of the real images are computed once a process for each network and set.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from gbn.data import subset
from gbn.nn import precise_statistics, tracking_layers
from gbn.seeding import derive
from gbn.tasks.classification.evaluation import calibration_parts
from gbn.tasks.generation.features import FeatureNetwork
from gbn.tasks.generation.quality import frechet_distance, kernel_distance
from gbn.tasks.generation.task import Generation, to_uint8

BATCH = 500  # images a forward pass in evaluation: results don't depend on it, memory does

#: Rows and columns of the grid of samples, and of the interpolation.
GRID = 8

_real: dict[tuple[Any, ...], Tensor] = {}  # features of real images; for the life of the process


def real_features(network: FeatureNetwork, images: Tensor, labels: Tensor, count: int, digest: str) -> Tensor:
    """Features (n, d) of `count` of the images (all, if they are fewer), in the classes' proportions; on the CPU.

    Args:
        network: gives them.
        images: uint8 (N, C, H, W), on the network's device.
        labels: (N,).
        count: how many images, at most.
        digest: of the data set: the cache's key together with the network's name, the part and the number.
    """
    key = (network.suffix, network.reference, digest, count)
    if key not in _real:
        indices = torch.arange(len(labels)) if count >= len(labels) else subset(labels.cpu(), count)
        chosen = images[indices.to(images.device)]
        _real[key] = torch.cat([network(part).cpu() for part in chosen.split(BATCH)])
    return _real[key]


class GenerationEvaluator:
    """Measures one run's generator, and shows what it makes.

    Args:
        task: gives latents.
        network: gives features.
        real: features of real images (n, d).
        seed: the run's.
        images: how many are generated at each point.
        calibration: latents that exact statistics are computed from.
        exact: whether to evaluate with exact statistics beside the running ones.
        autocast: makes the precision context of the generator's forward pass; features are always float32.
        device: of the model.
    """

    has_test = (
        False  # nothing but the points of the grid: their images are compared with held-out ones already
    )

    def __init__(
        self,
        task: Generation,
        network: FeatureNetwork,
        real: Tensor,
        *,
        seed: int,
        images: int,
        calibration: int,
        exact: bool,
        autocast: Callable[[], AbstractContextManager[object]],
        device: torch.device,
    ) -> None:
        self.task, self.network, self.real, self.device = task, network, real, device
        self.seed, self.images, self.calibration, self.exact = seed, images, calibration, exact
        self.autocast = autocast

    def point(self, model: nn.Module) -> dict[str, float | None]:
        """KID and FID with running and (if asked for and there are any) exact statistics."""
        generator = model.get_submodule("generator")
        latents = self._latents(generator, "evaluation", self.images)
        point = self._quality(generator, latents)
        if self.exact and tracking_layers(generator):
            with self._exactly(generator):
                measured = self._quality(generator, latents)
            point |= {f"{key}_exact": value for key, value in measured.items()}
        return point

    def whole(self, model: nn.Module) -> dict[str, float | None]:
        """Nothing: there is no larger set than the points'."""
        return {}

    def best(self, curve: list[dict[str, Any]]) -> dict[str, Any]:
        """Under ``best``: for each measure its lowest value and the update of it, the first among equals."""
        keys = dict.fromkeys(key for point in curve for key in point if key.startswith(("kid_", "fid_")))
        found = {}
        for key in keys:
            points = [point for point in curve if point.get(key) is not None]
            if points:
                lowest = min(points, key=lambda point: point[key])
                found[key] = {"update": lowest["update"], "value": lowest[key]}
        return {"best": found}

    def final(self, model: nn.Module) -> dict[str, Any]:
        """Nothing that the curve's last point does not hold."""
        return {}

    def pictures(self, model: nn.Module, *, last: bool) -> dict[str, bytes]:
        """PNG files: ``samples``, images of fixed latents; at the end also ``interpolation``, each row between two.

        Generated with exact statistics where they are evaluated too: with running ones the first pictures are gray.
        """
        generator = model.get_submodule("generator")
        latents = self._latents(generator, "pictures", GRID * GRID)
        rows = self.task.between(latents[:GRID], latents[GRID : 2 * GRID], GRID).flatten(0, 1)
        shown = {"samples": latents} | ({"interpolation": rows} if last else {})
        with self._exactly(generator) if self.exact else contextlib.nullcontext():
            return {name: _png(self._generate(generator, each)) for name, each in shown.items()}

    @contextlib.contextmanager
    def _exactly(self, generator: nn.Module) -> Iterator[None]:
        """With statistics recomputed over fixed latents, other than those that are measured; none: as it is."""

        def forward(latents: Tensor) -> Tensor:
            with self.autocast():
                images: Tensor = generator(latents)
                return images

        batches = calibration_parts(self._latents(generator, "calibration", self.calibration))
        with precise_statistics(generator, batches if tracking_layers(generator) else (), forward):
            yield

    def _latents(self, generator: nn.Module, purpose: str, count: int) -> Tensor:
        size: Any = generator.latent
        return self.task.latents(derive(self.seed, "latent", purpose), count, size).to(self.device)

    def _quality(self, generator: nn.Module, latents: Tensor) -> dict[str, float | None]:
        images = self._generate(generator, latents)
        features = torch.cat([self.network(part).cpu() for part in images.split(BATCH)])
        suffix = self.network.suffix
        return {
            f"kid_{suffix}": kernel_distance(self.real, features),
            f"fid_{suffix}": frechet_distance(self.real, features),
        }

    @torch.no_grad()
    def _generate(self, generator: nn.Module, latents: Tensor) -> Tensor:
        """Images uint8 (N, C, H, W), in evaluation mode; the generator's mode is put back afterwards."""
        training = generator.training
        generator.eval()
        try:
            with self.autocast():
                return torch.cat([to_uint8(generator(part)) for part in latents.split(BATCH)])
        finally:
            generator.train(training)


def _png(images: Tensor) -> bytes:
    """Images uint8 (GRID^2, 3, H, W) as one picture, row by row, without space between them."""
    from PIL import Image

    _, channels, height, width = images.shape
    grid = images.cpu().view(GRID, GRID, channels, height, width).permute(0, 3, 1, 4, 2)
    picture = grid.reshape(GRID * height, GRID * width, channels)
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "PNG")
    return file.getvalue()
