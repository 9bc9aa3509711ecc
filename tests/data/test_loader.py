"""Batches by step: normalization, order, the dropped rest, no state."""

import pytest
import torch

from gbn.data import DeviceSet, TrainLoader, epoch_order, load
from gbn.data.augment import augment
from gbn.seeding import derive

MEAN, STD = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)
ORDER = [9, 0, 7, 5, 8, 2, 4, 6, 1, 3]


@pytest.fixture(scope="module")
def arrays():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.arange(50)


def device_set(arrays, **options):
    return DeviceSet(*arrays, MEAN, STD, **options)


def test_batches_are_normalized(arrays):
    images, _ = arrays
    indices = torch.tensor([4, 40, 4])
    x, y = device_set(arrays).batch(indices)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (MEAN, STD))
    expected = (images[indices].double() / 255 - mean) / std
    assert x.dtype == torch.float32
    # Two roundings of float32 on values up to 10.
    torch.testing.assert_close(x.double(), expected, rtol=3e-7, atol=1e-6)
    assert y.tolist() == [4, 40, 4]


def test_a_whole_set_has_mean_zero_and_variance_one():
    digits = load("digits")
    data = DeviceSet(digits.train_images, digits.train_labels, digits.mean, digits.std)
    x, _ = data.batch(torch.arange(len(data)))
    assert x.double().mean().item() == pytest.approx(0, abs=1e-6)
    assert x.double().std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_a_constant_channel_is_only_centered(arrays):
    images = torch.full((4, 3, 8, 8), 51, dtype=torch.uint8)
    data = DeviceSet(images, torch.arange(4), (0.2, 0.2, 0.2), (0.0, 0.0, 0.1))
    torch.testing.assert_close(data.batch(torch.arange(4))[0], torch.zeros(4, 3, 8, 8), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_dtype_and_memory_format(arrays, dtype, channels_last):
    x, _ = device_set(arrays, dtype=dtype, channels_last=channels_last).batch(torch.arange(5))
    plain, _ = device_set(arrays).batch(torch.arange(5))
    expected = torch.channels_last if channels_last else torch.contiguous_format
    assert x.is_contiguous(memory_format=expected)
    assert torch.equal(x, plain.to(dtype))


def test_augmentation_needs_a_seed_and_a_kind(arrays):
    images, _ = arrays
    indices = torch.arange(20)
    plain, _ = device_set(arrays).batch(indices)
    augmenting = device_set(arrays, augmentation="crop_flip")
    assert torch.equal(augmenting.batch(indices)[0], plain)
    assert torch.equal(device_set(arrays).batch(indices, augment_seed=3)[0], plain)
    crops = DeviceSet(augment(images[:20], "crop_flip", 3), indices, MEAN, STD)
    assert torch.equal(augmenting.batch(indices, augment_seed=3)[0], crops.batch(indices)[0])


def test_evaluation_batches_cover_all_in_order(arrays):
    parts = [y for _, y in device_set(arrays).batches(torch.arange(50), 16)]
    assert [len(part) for part in parts] == [16, 16, 16, 2]
    assert torch.equal(torch.cat(parts), torch.arange(50))
    assert len(device_set(arrays)) == 50


def test_an_epoch_visits_each_image_at_most_once_and_drops_the_rest(arrays):
    indices = torch.arange(3, 50)
    loader = TrainLoader(device_set(arrays), indices, batch_size=10, seed=0)
    assert loader.steps_per_epoch == 4
    for epoch in range(3):
        seen = torch.cat([loader.batch(epoch * 4 + i)[1] for i in range(4)])
        assert len(seen.unique()) == 40
        assert set(seen.tolist()) <= set(indices.tolist())
        assert torch.equal(seen, indices[epoch_order(0, epoch, 47)][:40])


def test_orders_differ_between_epochs_and_seeds():
    orders = [epoch_order(seed, epoch, 100) for seed in range(2) for epoch in range(2)]
    for i, first in enumerate(orders):
        assert torch.equal(first.sort().values, torch.arange(100))
        for second in orders[:i]:
            assert (first == second).sum() < 12  # one in common is expected by chance


def test_orders_are_fixed_for_ever():
    # Archived runs were trained in this order.
    assert epoch_order(0, 0, 10).tolist() == ORDER


def test_a_step_depends_on_nothing_but_its_number(arrays):
    """What exact resume rests on."""
    data = device_set(arrays, augmentation="crop_flip")
    straight = TrainLoader(data, torch.arange(50), batch_size=8, seed=4)
    through = [straight.batch(step) for step in range(20)]
    for step in (19, 0, 7, 6, 12):
        torch.manual_seed(step)
        resumed = TrainLoader(data, torch.arange(50), batch_size=8, seed=4).batch(step)
        again = straight.batch(step)
        for part in range(2):
            assert torch.equal(resumed[part], through[step][part])
            assert torch.equal(again[part], through[step][part])


def test_each_step_has_its_own_augmentation(arrays):
    data = device_set(arrays, augmentation="crop_flip")
    loader = TrainLoader(data, torch.arange(50), batch_size=10, seed=4)
    assert loader.steps_per_epoch == 5
    for step in range(7):
        x, y = loader.batch(step)
        expected, _ = data.batch(y, derive(4, "augment", step))
        assert torch.equal(x, expected)
        other, _ = data.batch(y, derive(4, "augment", step + 1))
        assert not torch.equal(x, other)


@pytest.mark.parametrize("batch_size", [0, -1, 51])
def test_batches_that_would_never_be_full(arrays, batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size} with 50 training images.*1 to 50"):
        TrainLoader(device_set(arrays), torch.arange(50), batch_size, seed=0)


@pytest.mark.gpu
def test_devices_see_the_same_batches(arrays):
    batches = []
    for device in ("cpu", "cuda"):
        data = device_set(arrays, device=device, augmentation="crop_flip")
        x, y = TrainLoader(data, torch.arange(50), batch_size=16, seed=1).batch(5)
        assert x.device.type == device
        batches.append((x.cpu(), y.cpu()))
    torch.testing.assert_close(batches[0][0], batches[1][0], rtol=3e-7, atol=1e-6)
    assert torch.equal(batches[0][1], batches[1][1])
