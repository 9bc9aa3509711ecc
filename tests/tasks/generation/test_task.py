"""The losses of both players, latents and the lines between them, images as a file holds them."""

import pytest
import torch
import torch.nn.functional as F

from gbn.seeding import derive
from gbn.tasks.generation.evaluation import to_uint8
from gbn.tasks.generation.task import Generation


def logits(count, seed):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 3


def test_losses_are_the_binary_cross_entropies_of_real_and_generated():
    real, fake = logits(7, 0), logits(5, 1)
    expected = F.binary_cross_entropy_with_logits(real, torch.ones(7))
    expected = expected + F.binary_cross_entropy_with_logits(fake, torch.zeros(5))
    torch.testing.assert_close(Generation.discriminator_loss(real, fake), expected)
    non_saturating = -torch.log(torch.sigmoid(fake.double())).mean().float()
    torch.testing.assert_close(Generation.generator_loss(fake), non_saturating)


def test_the_generators_gradient_does_not_vanish_where_the_discriminator_wins():
    fake = torch.full((4,), -20.0, requires_grad=True)
    Generation.generator_loss(fake).backward()
    torch.testing.assert_close(fake.grad, torch.full((4,), -0.25))


def test_losses_of_extreme_logits_are_finite_and_in_float32():
    real, fake = torch.tensor([-60000.0]).half(), torch.tensor([60000.0]).half()
    assert Generation.discriminator_loss(real, fake).item() == pytest.approx(2 * 59999, rel=1e-3)
    assert Generation.generator_loss(-fake).dtype == torch.float32


def test_latents_are_a_function_of_their_stream():
    uniform, normal = Generation("uniform"), Generation("normal")
    for task in (uniform, normal):
        first = task.latents(derive(0, "latent", 3), 500, 20)
        assert torch.equal(first, task.latents(derive(0, "latent", 3), 500, 20))
        assert not torch.equal(first, task.latents(derive(0, "latent", 4), 500, 20))
        assert not torch.equal(first, task.latents(derive(1, "latent", 3), 500, 20))
    z = uniform.latents(1, 500, 20)
    assert z.min() >= -1
    assert z.max() <= 1
    assert z.std().item() == pytest.approx(3**-0.5, abs=0.01)  # 4 standard errors of 10,000 draws
    assert normal.latents(1, 500, 20).std().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("noise", ["uniform", "normal"])
def test_the_line_between_latents_has_its_ends_and_stays_where_latents_are(noise):
    task = Generation(noise)
    a, b = task.latents(1, 6, 100), task.latents(2, 6, 100)
    line = task.between(a, b, 5)
    assert line.shape == (6, 5, 100)
    torch.testing.assert_close(line[:, 0], a)
    torch.testing.assert_close(line[:, -1], b, rtol=1e-4, atol=1e-5)
    if noise == "uniform":
        torch.testing.assert_close(line[:, 2], (a + b) / 2)
    else:
        # Straight lines between nearly orthogonal vectors have 0.71 of their length in the middle; these keep it.
        lengths = line.norm(dim=-1)
        assert (lengths[:, 2] > 0.95 * torch.minimum(lengths[:, 0], lengths[:, -1])).all()
        torch.testing.assert_close(task.between(a, a, 3), a[:, None].expand(6, 3, 100), rtol=1e-3, atol=1e-4)


def test_images_become_what_a_picture_file_holds():
    every = torch.arange(256)
    assert torch.equal(to_uint8(every / 127.5 - 1), every.to(torch.uint8))
    assert to_uint8(torch.tensor([-5.0, -1.0, 1.0, 5.0])).tolist() == [0, 0, 255, 255]
