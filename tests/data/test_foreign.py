"""Foreign images: fitted to one's own, drawn from (seed, step), appended behind the batch."""

import pytest
import torch

from gbn.data import DeviceSet, ForeignImages, TrainLoader, fitted


def test_fitted_centers_crops_and_changes_channels():
    gray = torch.full((2, 1, 4, 4), 7, dtype=torch.uint8)
    framed = fitted(gray, 3, 7)
    assert framed.shape == (2, 3, 7, 7)
    assert framed[:, :, 1:5, 1:5].eq(7).all()
    assert framed.sum() == 7 * 16 * 3 * 2
    assert fitted(framed, 3, 3).eq(7).all()
    colored = torch.tensor([10, 20, 60], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert fitted(colored, 1, 4).eq(30).all()
    with pytest.raises(ValueError, match="2 channels cannot be mixed with images with 3"):
        fitted(torch.zeros(1, 2, 4, 4, dtype=torch.uint8), 3, 4)


def test_joins_each_batch_by_seed_and_step_and_normalizes_alike():
    images = torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1).expand(200, 1, 2, 2).contiguous()
    own = DeviceSet(images[:100], torch.arange(100), (0.5,), (0.25,))

    def loader(seed):
        foreign = ForeignImages(images[100:], (0.5,), (0.25,), count=5, seed=seed)
        return TrainLoader(own, torch.arange(100), 10, seed, foreign.appended)

    batch, labels = loader(0).batch(3)
    plain, plain_labels = TrainLoader(own, torch.arange(100), 10, 0).batch(3)
    assert batch.shape == (15, 1, 2, 2)
    assert torch.equal(batch[:10], plain)
    assert torch.equal(labels, plain_labels)
    pixels = (batch[10:] * 0.25 + 0.5) * 255
    assert ((pixels > 99.5) & (pixels < 199.5)).all()
    assert torch.equal(loader(0).batch(3)[0], batch)
    assert not torch.equal(loader(0).batch(4)[0][10:], batch[10:])
    assert not torch.equal(loader(1).batch(3)[0][10:], batch[10:])
