"""Affine and elastic warps of images and their masks, a whole batch at once, on the device.

Image and mask use the same field of source positions: the image is sampled bilinearly, the mask at the nearest pixel.
Each batch's draws come from its own seed and from a CPU generator, whatever the device, so that CPU and GPU see the
same warps and a resumed run needs no generator state.

BNU-Net states affine and elastic augmentation; shift, shear, zoom, alpha and sigma are the reconstruction's, the
range of the rotation is ours. The elastic field is that of Simard, Steinkraus, Platt (ICDAR 2003): uniform noise
on [-1, 1] at each pixel, smoothed by a Gaussian of standard deviation sigma, times alpha. Its displacements have
standard deviation alpha / (2 sigma sqrt(3 pi)): 4.07 pixels at alpha 500, sigma 20.
"""

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_NOISE_STEP = (
    0.25  # spacing of the noise in sigmas, far finer than the spectrum of the smoothed field requires
)
_REACH = 4.0  # sigmas beyond which the Gaussian is treated as 0


@dataclass(frozen=True)
class Warp:
    """The ranges of the warps, drawn anew for each image; with all of them 0 there is no warp.

    Attributes:
        rotation: largest angle in degrees, in either direction.
        shift: largest shift along each axis, as a fraction of the side.
        shear: largest shear of columns against rows, in pixels across per pixel along.
        zoom: largest relative change of size, independently along each axis.
        alpha: factor of the elastic field, in pixels.
        sigma: standard deviation of the Gaussian that smooths it, in pixels, at least 1.

    Raises:
        ValueError: a number is negative or not finite, shift or zoom is 1 or more, or sigma is below 1.
    """

    rotation: float = 10.0
    shift: float = 0.1
    shear: float = 0.1
    zoom: float = 0.05
    alpha: float = 500.0
    sigma: float = 20.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{field.name} must be 0 or more and finite, {value} was given")
        for name in ("shift", "zoom"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} is a fraction and must be below 1, {getattr(self, name)} was given")
        if self.sigma < 1:
            raise ValueError(
                f"sigma must be at least 1 pixel, {self.sigma} was given; for no elastic warp set alpha=0"
            )


def warp(images: Tensor, masks: Tensor, how: Warp, seed: int) -> tuple[Tensor, Tensor]:
    """Return warped copies of a batch of images and their masks, with one draw per image.

    Positions outside an image repeat its edge; positions outside a mask are background.

    Args:
        images: floating (B, C, H, W), on any device.
        masks: floating (B, K, H, W), on the same device.
        how: the ranges.
        seed: the batch's seed, :func:`gbn.seeding.derive` of the run's seed and the step.

    Returns:
        images and masks of the same shapes and types.

    Raises:
        ValueError: masks do not match their images.
    """
    batch, _, height, width = images.shape
    if masks.dim() != 4 or masks.shape[::2] != images.shape[::2] or masks.shape[3] != width:
        raise ValueError(
            f"masks {tuple(masks.shape)} do not match images {tuple(images.shape)}: needed (B, K, H, W) both"
        )
    generator = torch.Generator().manual_seed(seed)
    positions = affine_positions(batch, height, width, how, generator)
    if how.alpha:
        positions = positions + elastic_field(batch, height, width, how.alpha, how.sigma, generator)
    # grid_sample counts from -1 to 1 over the pixels' outer edges, x before y.
    sizes = torch.tensor([height, width], dtype=positions.dtype)
    grid = ((2 * positions + 1) / sizes - 1).flip(-1).to(images.device)
    grid = grid.to(torch.float32)
    moved = F.grid_sample(images.float(), grid, "bilinear", padding_mode="border", align_corners=False)
    labels = F.grid_sample(masks.float(), grid, "nearest", padding_mode="zeros", align_corners=False)
    return moved.to(images.dtype), labels.to(masks.dtype)


def affine_positions(batch: int, height: int, width: int, how: Warp, generator: torch.Generator) -> Tensor:
    """Return the source position of each output pixel, in pixels (row, column): (B, H, W, 2), float64.

    With the image's center c, source = c + R S Z (output - c) + shift, with rotation R, shear S, zoom Z.
    """
    draws = 2 * torch.rand(batch, 6, generator=generator, dtype=torch.float64) - 1
    angle = draws[:, 0] * math.radians(how.rotation)
    shear = draws[:, 1] * how.shear
    zoom = 1 + draws[:, 2:4] * how.zoom
    shift = draws[:, 4:6] * how.shift * torch.tensor([height, width], dtype=torch.float64)
    cos, sin, one, zero = angle.cos(), angle.sin(), torch.ones_like(angle), torch.zeros_like(angle)
    rotate = torch.stack((cos, -sin, sin, cos), 1).view(-1, 2, 2)
    skew = torch.stack((one, zero, shear, one), 1).view(-1, 2, 2)
    matrix = rotate @ skew @ torch.diag_embed(zoom)

    rows, columns = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    center = torch.tensor([(height - 1) / 2, (width - 1) / 2], dtype=torch.float64)
    pixels = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1) - center
    return torch.einsum("bij,hwj->bhwi", matrix, pixels) + (center + shift)[:, None, None]


def elastic_field(
    batch: int, height: int, width: int, alpha: float, sigma: float, generator: torch.Generator
) -> Tensor:
    """Return Simard's displacements in pixels (row, column): (B, H, W, 2), float64.

    The noise is on a grid with spacing ``sigma / 4`` (never finer than a pixel), and one value, times the step,
    represents the sum of those in its square: the same covariance from a fraction of the draws. It extends beyond the
    image, so that the field has the same deviation everywhere.
    """
    step = max(1.0, sigma * _NOISE_STEP)
    down, across = _smoothing(height, sigma, step), _smoothing(width, sigma, step)
    shape = (batch, 2, down.shape[1], across.shape[1])
    noise = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
    return (alpha * step * (down @ noise @ across.T)).permute(0, 2, 3, 1)


@lru_cache(maxsize=8)
def _smoothing(size: int, sigma: float, step: float) -> Tensor:
    """Return the Gaussian's density at each pixel about each noise position: (size, positions)."""
    reach = math.ceil(_REACH * sigma / step)
    positions = torch.arange(-reach, math.floor((size - 1) / step) + reach + 1, dtype=torch.float64) * step
    distance = torch.arange(size, dtype=torch.float64)[:, None] - positions
    return torch.exp(-0.5 * (distance / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
