"""Checks and statistics of a set of images."""

import pytest
import torch

from gbn.data import DataError
from gbn.data.image_set import channel_statistics, image_set


def test_statistics_are_those_of_the_pixels():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1203, 2, 5, 5), dtype=torch.uint8, generator=generator)
    images[:, 1] //= 3
    mean, std = channel_statistics(images)
    pixels = images.double() / 255
    torch.testing.assert_close(
        torch.tensor(mean, dtype=torch.float64), pixels.mean((0, 2, 3)), rtol=1e-13, atol=0
    )
    expected = pixels.std((0, 2, 3), correction=0)
    torch.testing.assert_close(torch.tensor(std, dtype=torch.float64), expected, rtol=1e-13, atol=0)


def test_a_constant_channel_has_no_spread():
    _, std = channel_statistics(torch.full((3, 1, 2, 2), 77, dtype=torch.uint8))
    assert std[0] == pytest.approx(0, abs=1e-12)


IMAGES, LABELS = torch.zeros(4, 1, 6, 6, dtype=torch.uint8), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.float(), LABELS, "train images are torch.float32"),
        (IMAGES[:, :, :5], LABELS, r"\(4, 1, 5, 6\)"),
        (IMAGES[:, 0], LABELS, r"\(4, 6, 6\)"),
        (IMAGES, LABELS[:3], r"labels \(3,\)"),
        (IMAGES[:0], LABELS[:0], "at least one"),
        (IMAGES, LABELS + 1, "labels go from 1 to 3; allowed: 0 to 2"),
        (IMAGES, LABELS - 1, "labels go from -1 to 1"),
    ],
)
def test_what_a_set_must_be(images, labels, message):
    with pytest.raises(DataError, match=message):
        image_set("mine", (images, labels), (IMAGES, LABELS), ("a", "b", "c"), "0")


def test_facts_follow_from_the_images():
    made = image_set("mine", (IMAGES, LABELS), (IMAGES[:1], LABELS[:1]), ("a", "b", "c"), "0")
    assert (made.num_classes, made.in_channels, made.image_size) == (3, 1, 6)
    assert (made.mean, made.std) == ((0.0,), (0.0,))
