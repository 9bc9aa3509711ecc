"""Warps: image and mask alike, ranges, the elastic field's deviation, determinism."""

import math

import pytest
import torch

from gbn.data.segmentation.warp import Warp, affine_positions, elastic_field, warp

STILL = {"rotation": 0.0, "shift": 0.0, "shear": 0.0, "zoom": 0.0, "alpha": 0.0}


def disc(side, radius, row, column):
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (((rows - row) ** 2 + (columns - column) ** 2) <= radius**2).float()[None, None]


def test_nothing_moves_where_all_ranges_are_zero():
    images, masks = torch.randn(3, 1, 9, 12), (torch.rand(3, 2, 9, 12) < 0.5).float()
    moved, labels = warp(images, masks, Warp(**STILL), seed=0)
    torch.testing.assert_close(moved, images)
    assert torch.equal(labels, masks)


def test_image_and_mask_are_warped_alike():
    mask = torch.cat([disc(96, radius, 44, 50) for radius in (12, 20, 28, 30)])
    images, masks = warp(mask.clone(), mask, Warp(), seed=3)
    moved = (masks != mask).float().mean((1, 2, 3))
    assert (moved > 0.01).all()
    # The bilinear image cut at 1/2 is the nearest mask, but for pixels whose position falls between.
    differ = ((images > 0.5).float() != masks).float().mean((1, 2, 3))
    assert (differ < 0.1 * moved).all()
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert ((images > 0) & (images < 1)).any()  # read between pixels


def test_a_seed_gives_one_warp_and_each_image_its_own():
    images, masks = disc(40, 9, 20, 20).repeat(2, 1, 1, 1), disc(40, 9, 20, 20).repeat(2, 1, 1, 1)
    first, again, other = (warp(images, masks, Warp(sigma=4, alpha=60), seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][0], first[0][1])


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    warp(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), Warp(), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_elastic_displacements_have_the_published_deviation():
    """Alpha 500, sigma 20: about 4.1 pixels, the same at the edge as in the middle."""
    expected = 500 / (2 * 20 * math.sqrt(3 * math.pi))
    assert expected == pytest.approx(4.1, abs=0.05)
    generator = torch.Generator().manual_seed(0)
    field = elastic_field(1500, 33, 41, 500.0, 20.0, generator)
    for part in (field, field[:, :1], field[:, :, -1:], field[:, 16:17, 20:21], field[..., 0]):
        # 3,000 independent values at each position: the deviation's own is 1.3 %.
        assert part.std().item() == pytest.approx(expected, rel=0.05)
    assert abs(field.mean().item()) < 0.2


def test_elastic_field_is_that_of_noise_at_every_pixel():
    """Covariance at a distance d: variance times exp(-d^2 / (4 sigma^2)), as smoothed white noise has."""
    field = elastic_field(4000, 1, 21, 100.0, 6.0, torch.Generator().manual_seed(1)).double()[:, 0]
    variance = (100.0**2 / 3) / (4 * math.pi * 6.0**2)
    for distance in (0, 6, 12, 20):
        covariance = (field[:, 0] * field[:, distance]).mean().item()
        expected = variance * math.exp(-(distance**2) / (4 * 6.0**2))
        assert covariance == pytest.approx(expected, abs=0.05 * variance)


@pytest.mark.parametrize(
    ("name", "value"), [("rotation", 30.0), ("shear", 0.3), ("zoom", 0.2), ("shift", 0.1)]
)
def test_each_range_is_reached_and_kept(name, value):
    how = Warp(**(STILL | {name: value}))
    positions = affine_positions(2000, 11, 21, how, torch.Generator().manual_seed(0))
    down, across = positions[:, 6, 10] - positions[:, 5, 10], positions[:, 5, 11] - positions[:, 5, 10]
    center = positions[:, 5, 10] - torch.tensor([5.0, 10.0])
    measured = {
        "rotation": torch.atan2(across[:, 0], across[:, 1]) * 180 / math.pi,
        "shear": down[:, 1],
        "zoom": across[:, 1] - 1,
        "shift": center[:, 1] / 21,
    }[name]
    assert measured.abs().max() <= value + 1e-9
    assert measured.max() > 0.95 * value
    assert measured.min() < -0.95 * value
    if name == "rotation":  # lengths stay
        torch.testing.assert_close(down.norm(dim=1), torch.ones(2000, dtype=torch.float64))
    if name == "shift":
        assert center[:, 0].abs().max() <= 0.1 * 11 + 1e-9
    else:
        assert center.abs().max() < 1e-9


def test_a_shift_moves_by_whole_pixels_exactly():
    """Positions are sources: a positive shift takes each pixel from further down and right."""
    images = torch.arange(36.0).view(1, 1, 6, 6)
    _, labels = warp(images, images, Warp(**(STILL | {"shift": 0.5})), seed=11)
    draws = 2 * torch.rand(1, 6, generator=torch.Generator().manual_seed(11), dtype=torch.float64) - 1
    row, column = (draws[0, 4:] * 0.5 * 6).tolist()
    source = labels[0, 0, 3, 3].item()  # the nearest pixel's number
    assert divmod(int(source), 6) == (round(3 + row), round(3 + column))


def test_outside_an_image_is_its_edge_and_outside_a_mask_is_background():
    images, masks = torch.full((4, 1, 16, 16), 7.0), torch.ones(4, 1, 16, 16)
    moved, labels = warp(images, masks, Warp(**(STILL | {"shift": 0.4})), seed=2)
    torch.testing.assert_close(moved, images)
    assert (labels == 0).any()


def test_half_precision_images_keep_their_type():
    moved, labels = warp(torch.zeros(1, 1, 8, 8).bfloat16(), torch.zeros(1, 1, 8, 8), Warp(), seed=0)
    assert (moved.dtype, labels.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rotation": -1.0}, "rotation must be 0 or more"),
        ({"alpha": math.nan}, "alpha must be 0 or more and finite, nan"),
        ({"shift": 1.0}, "shift is a fraction"),
        ({"zoom": 2.0}, "zoom is a fraction"),
        ({"sigma": 0.5}, "sigma must be at least 1 pixel"),
    ],
)
def test_wrong_ranges_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Warp(**values)


@pytest.mark.parametrize("shape", [(2, 1, 8, 9), (1, 1, 8, 8), (2, 8, 8), (2, 1, 9, 8)])
def test_masks_that_do_not_match_are_refused(shape):
    with pytest.raises(ValueError, match=r"do not match images \(2, 1, 8, 8\)"):
        warp(torch.zeros(2, 1, 8, 8), torch.zeros(shape), Warp(), seed=0)
