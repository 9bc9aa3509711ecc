"""Crops and flips against a plain loop over images, and their distribution."""

import pytest
import torch
import torch.nn.functional as F

from gbn.data import augment


def windows(image, pad):
    """All crops of one image (C, H, W) with their offsets, and each one's mirror image."""
    size = image.shape[-1]
    padded = F.pad(image, (pad, pad, pad, pad))
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = padded[:, top : top + size, left : left + size]
            yield (top, left, False), crop
            yield (top, left, True), crop.flip(2)


def drawn(image, result, pad):
    """The draws that make ``result`` of ``image``: exactly one for a random image."""
    found = [draw for draw, window in windows(image, pad) if torch.equal(window, result)]
    assert len(found) == 1, found
    return found[0]


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (300, 3, 16, 16), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("kind", ["flip", "crop", "crop_flip"])
def test_each_image_is_one_of_its_windows_and_draws_are_uniform(kind, images):
    result = augment(images, kind, seed=7)
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    draws = [drawn(image, out, pad=2) for image, out in zip(images, result, strict=True)]
    flips = sum(flipped for _, _, flipped in draws)
    offsets = torch.tensor([(top, left) for top, left, _ in draws])
    if kind == "crop":
        assert flips == 0
    else:
        assert abs(flips - 150) < 44  # Binomial(300, 1/2), five standard deviations
    if kind == "flip":
        assert (offsets == 2).all()
    else:
        for axis in range(2):
            counts = offsets[:, axis].bincount(minlength=5)
            assert ((counts - 60).abs() < 35).all(), counts  # Binomial(300, 1/5), five standard deviations
        # Rows and columns are drawn apart: all 25 pairs occur.
        assert len({(top, left) for top, left, _ in draws}) == 25


def test_kinds_share_their_draws(images):
    by_kind = {}
    for kind in ("flip", "crop", "crop_flip"):
        result = augment(images, kind, seed=3)
        by_kind[kind] = [drawn(image, out, pad=2) for image, out in zip(images, result, strict=True)]
    for flip, crop, both in zip(*by_kind.values(), strict=True):
        assert both == (*crop[:2], flip[2])


def test_the_seed_decides(images):
    one = augment(images, "crop_flip", 1)
    assert torch.equal(one, augment(images, "crop_flip", 1))
    assert not torch.equal(one, augment(images, "crop_flip", 2))
    state = torch.get_rng_state()
    augment(images, "crop_flip", 2**63 - 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_none_gives_the_images_back(images):
    assert augment(images, "none", 0) is images


def test_the_input_is_left_alone(images):
    before = images.clone()
    augment(images, "crop_flip", 0)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("size", "pad"), [(32, 4), (28, 3), (8, 1), (33, 4)])
def test_the_padding_is_an_eighth_of_the_side(size, pad):
    image = torch.full((400, 1, size, size), 9, dtype=torch.uint8)
    black_rows = (augment(image, "crop", 0) == 0).all(dim=(1, 3)).sum(1)
    assert set(black_rows.tolist()) == set(range(pad + 1))


def test_any_memory_format_and_shape():
    images = torch.randint(0, 256, (6, 4, 8, 16), dtype=torch.uint8)
    result = augment(images, "crop_flip", 0)
    assert torch.equal(augment(images.contiguous(memory_format=torch.channels_last), "crop_flip", 0), result)
    assert result.shape == images.shape
    assert augment(images[:0], "crop_flip", 0).shape == (0, 4, 8, 16)


def test_unknown_kind(images):
    with pytest.raises(
        ValueError, match="unknown augmentation 'rotate'; allowed: none, flip, crop, crop_flip"
    ):
        augment(images, "rotate", 0)


@pytest.mark.gpu
def test_devices_see_the_same_augmentations(images):
    for kind in ("flip", "crop", "crop_flip"):
        assert torch.equal(augment(images.cuda(), kind, 5).cpu(), augment(images, kind, 5))
