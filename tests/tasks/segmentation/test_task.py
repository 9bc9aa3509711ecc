"""Soft Dice and cross-entropy by hand, and the evaluation's contract."""

import contextlib

import pytest
import torch
from torch import nn

from gbn.tasks.segmentation.contours import score_patients, score_slices, summary
from gbn.tasks.segmentation.task import Segmentation


def by_hand(logits, masks, axes):
    p = logits.double().sigmoid()
    t = masks.double()
    dice = 1 - (2 * (p * t).sum(axes) + 1e-5) / (p.sum(axes) + t.sum(axes) + 1e-5)
    entropy = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    return dice.mean().item(), entropy.item()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 6, 5, generator=generator)
    masks = (torch.rand(4, 2, 6, 5, generator=generator) < 0.3).float()
    masks[1] = 0
    return logits, masks


@pytest.mark.parametrize(("over", "axes"), [("batch", (0, 2, 3)), ("slice", (2, 3))])
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_loss_is_its_formula(batch, over, axes, weight):
    dice, entropy = by_hand(*batch, axes)
    loss = Segmentation(cross_entropy=weight, dice_over=over).loss(*batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(dice + weight * entropy, rel=1e-5)


def test_sums_over_the_batch_do_not_punish_an_empty_slice():
    """A slice without the structure, hardly predicted: over slices its Dice loss is near 1."""
    logits, masks = torch.full((2, 1, 8, 8), -6.0), torch.zeros(2, 1, 8, 8)
    masks[0, :, 2:6, 2:6] = 1
    logits[0, :, 2:6, 2:6] = 6.0
    assert Segmentation(cross_entropy=0).loss(logits, masks).item() < 0.02
    assert Segmentation(cross_entropy=0, dice_over="slice").loss(logits, masks).item() > 0.45


def test_gradients_are_finite_in_half_precision(batch):
    logits = (100 * batch[0]).bfloat16().requires_grad_()
    Segmentation().loss(logits, batch[1]).backward()
    assert logits.grad.isfinite().all()


def test_masks_are_where_logits_are_positive():
    assert Segmentation.predicted(torch.tensor([-0.1, 0.0, 0.1])).tolist() == [False, False, True]


def test_what_training_shows_is_the_dice_of_the_batchs_pixels():
    masks = torch.zeros(3, 2, 4, 4)
    masks[0, 0, :2] = 1  # 8 pixels drawn, 4 of them predicted, 4 others besides
    logits = torch.full((3, 2, 4, 4), -1.0)
    logits[0, 0, 1:3] = 1.0
    # The second structure is neither drawn nor predicted.
    shown = Segmentation().correct(logits, masks)
    assert shown.dtype == torch.float64
    assert shown.item() == pytest.approx(3 * (0.5 + 1) / 2)


class Wrong(nn.Module):
    """Logits of the image's sign, one of them shifted by a row; remembers its mode."""

    def forward(self, x):
        assert not self.training
        return torch.cat((x, x.roll(1, 2)), 1)


def loader(images, masks, size):
    return zip(images.split(size), masks.split(size), strict=True)


def test_evaluation_gives_all_measures_and_keeps_the_mode():
    masks = torch.zeros(5, 2, 24, 24)
    for index in range(5):
        masks[index, :, 6 : 16 + index % 2, 8:18] = 1
    images = 8 * (2 * masks[:, :1] - 1)
    task, model = Segmentation(), Wrong()
    patients, size = torch.tensor([0, 0, 0, 1, 1]), torch.ones(5, 2)
    results = []
    for batch in (2, 5):
        predicted, drawn, loss = task.predict(
            model.train(), loader(images, masks, batch), contextlib.nullcontext()
        )
        rows = score_patients(
            score_slices(predicted, drawn, size), patients, ["a", "b"], ["cavity", "epicardium"]
        )
        results.append({"loss": loss, **summary(rows, "px")})
    assert model.training
    assert results[0] == pytest.approx(results[1])  # not a matter of how slices are cut into batches
    numbers = results[0]
    assert numbers["dice_cavity"] == 1
    assert numbers["apd_px_cavity"] == 0
    # A square of 10 rows shifted by one: 9 of 10 in common; of 11: 10 of 11. Patients: 2 and 1 of 10 rows, 1 and 1.
    expected = ((2 * 9 / 10 + 10 / 11) / 3 + (9 / 10 + 10 / 11) / 2) / 2
    assert numbers["dice_epicardium"] == pytest.approx(expected)
    assert numbers["good_contours_px"] == 1
    assert numbers["loss"] == pytest.approx(task.loss(model.eval()(images), masks).item())


def test_predictions_come_in_order():
    masks = torch.zeros(3, 1, 4, 4)
    masks[1] = 1
    images = 2 * masks - 1
    predicted, drawn, _ = Segmentation().predict(
        nn.Identity(), loader(images, masks, 2), contextlib.nullcontext()
    )
    assert torch.equal(predicted, masks.bool())
    assert torch.equal(drawn, masks.bool())


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="no slice in the given batches"):
        Segmentation().predict(nn.Identity(), [], contextlib.nullcontext())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cross_entropy": -1.0}, "0 or more, -1.0 was given"),
        ({"dice_over": "image"}, "'batch' or 'slice', 'image' was given"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        Segmentation(**options)
