"""Windows about the center, resampling, intensities."""

import numpy as np
import pytest
import torch

from gbn.data.segmentation.framing import Framing, framed, normalized


def plane(height, width):
    return np.arange(height * width, dtype=np.float32).reshape(height, width)


def test_a_window_of_the_side_is_cut_about_the_center():
    image = plane(9, 12)
    square, masks, scale = framed(image, image[None] > 50, Framing(side=4))
    assert scale == 1
    assert np.array_equal(square.numpy(), image[2:6, 4:8])
    assert np.array_equal(masks.numpy()[0], image[2:6, 4:8] > 50)


def test_beyond_the_edge_is_the_smallest_value_and_background():
    image = plane(3, 4) + 5
    square, masks, _ = framed(image, np.ones((2, 3, 4), bool), Framing(side=6))
    assert np.array_equal(square.numpy()[1:4, 1:5], image)
    assert masks.sum() == 2 * 12
    square[1:4, 1:5] = 5
    assert (square == 5).all()


def test_whole_windows_hold_the_longer_side_and_say_the_scale():
    rows, columns = np.mgrid[:60, :80]
    mask = ((rows - 29.5) ** 2 + (columns - 39.5) ** 2 < 20**2)[None]
    square, masks, scale = framed(mask[0].astype(np.float32), mask, Framing(side=40, window="whole"))
    assert scale == 2
    assert masks.shape == (1, 40, 40)
    assert masks.sum().item() * scale**2 == pytest.approx(mask.sum(), rel=0.03)
    center = masks[0].nonzero().double().mean(0)
    torch.testing.assert_close(center, torch.full((2,), 19.5, dtype=torch.float64), atol=0.1, rtol=0)
    assert square.min() >= 0
    assert square.max() <= 1 + 1e-6


def test_intensities():
    volume = np.random.default_rng(0).gamma(2.0, size=(3, 7, 5)).astype(np.float32)
    volume[1] *= 10
    each = normalized(volume, "slice").astype(np.float64)
    np.testing.assert_allclose(each.mean((1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(each.std((1, 2)), 1, rtol=1e-6)
    together = normalized(volume, "volume").astype(np.float64)
    assert together.mean() == pytest.approx(0, abs=1e-6)
    assert together.std() == pytest.approx(1)
    assert together[1].std() > 5 * together[0].std()
    assert np.array_equal(normalized(volume, "none"), volume)


def test_an_image_without_contrast_is_only_centered():
    assert not normalized(np.full((2, 3, 3), 4, np.float32), "slice").any()


@pytest.mark.parametrize("values", [{"side": 0}, {"side": 8, "window": -3}])
def test_sizes_must_be_positive(values):
    with pytest.raises(ValueError, match="at least 1 pixel"):
        Framing(**values)
