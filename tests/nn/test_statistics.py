"""Precise statistics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from gbn import risk
from gbn.nn import calibrate, norm_layer, precise_statistics, tracking_layers


class Foreign(nn.Module):
    """Works as BatchNorm does, but knows momentum as a number only."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.momentum = 0.1
        self.register_buffer("top", torch.zeros(n))

    def reset_running_stats(self) -> None:
        self.top.zero_()

    def forward(self, x: Tensor) -> Tensor:
        top = x.amax((0, 2, 3))
        if self.training:
            self.top.mul_(1 - self.momentum).add_(self.momentum * top)
        return x - (top if self.training else self.top).view(1, -1, 1, 1)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        norm_layer("gbn", quadrangle="cvar")(4),
        nn.Conv2d(4, 4, 3),
        norm_layer("bn")(4, act=None),
        nn.Dropout(0.5),
        norm_layer("bn_reparam", matched_to={"quadrangle": "cvar"}, momentum=None)(4),
        Foreign(4),
        norm_layer("layer")(4),
        norm_layer("gbn", quadrangle="mad", track_running_stats=False)(4),
        nn.BatchNorm2d(4, track_running_stats=False),
    )


def batches(sizes: tuple[int, ...] = (8, 8, 8)) -> list[Tensor]:
    make = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, 8, 8, generator=make) * 2 + 1 for size in sizes]


def test_layers_that_track_are_found() -> None:
    kinds = [type(layer).__name__ for layer in tracking_layers(model())]
    assert kinds == ["GeneralizedBatchNorm2d", "BatchNorm2d", "ReparametrizedBatchNorm2d", "Foreign"]


@pytest.mark.parametrize("sizes", [(8, 8, 8), (8, 16, 4), (5,)])
def test_averages_over_batches_weighted_by_size(sizes: tuple[int, ...]) -> None:
    net = model()
    assert calibrate(net, batches(sizes)) == sum(sizes)
    first = net[1]
    pair = risk.quadrangle("cvar")
    values = [net[0](x).detach() for x in batches(sizes)]
    weights = torch.tensor(sizes, dtype=torch.float) / sum(sizes)
    for kept, functional in ((first.running_statistic, pair.S), (first.running_deviation, pair.D)):
        expected = sum(w * functional(v, (0, 2, 3)) for w, v in zip(weights, values, strict=True))
        torch.testing.assert_close(kept, expected)
    assert net[6].top.abs().sum() > 0  # the foreign layer too


def test_one_batch_gives_exactly_its_statistics_at_every_depth() -> None:
    """Evaluation mode then equals training mode on that batch (the variance apart, which is the unbiased one)."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), norm_layer("gbn", quadrangle="cvar")(4), nn.Conv2d(4, 4, 3), norm_layer("gbn")(4)
    )
    (x,) = batches((16,))
    with torch.no_grad():
        expected = net.train()(x)
        with precise_statistics(net, [x]):
            torch.testing.assert_close(net.eval()(x), expected)


def test_everything_is_restored() -> None:
    net = model().eval()
    net[4].train()  # a mode that differs from the rest
    net[1].train()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    momenta = [layer.momentum for layer in tracking_layers(net)]
    random = torch.get_rng_state()
    with precise_statistics(net, batches()) as inside:
        assert inside is net
        assert [m.training for m in net.modules()] == modes
        assert [layer.momentum for layer in tracking_layers(net)] == momenta
        assert not torch.equal(net.state_dict()["1.running_statistic"], state["1.running_statistic"])
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(torch.get_rng_state(), random)  # dropout was off
    assert all(p.grad is None for p in net.parameters())


def test_restored_after_an_error() -> None:
    net = model()
    state = {name: value.clone() for name, value in net.state_dict().items()}

    def broken() -> Iterator[Tensor]:
        yield batches()[0]
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"), precise_statistics(net, broken()):
        raise AssertionError("not reached")
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert net[1].momentum == 0.1
    assert net.training


def test_batches_with_labels_and_an_own_forward() -> None:
    net, seen = model(), []
    calibrate(net, [(x, torch.zeros(8)) for x in batches()])
    direct = net[1].running_statistic.clone()

    def forward(batch: tuple[Tensor, Tensor]) -> None:
        seen.append(batch[1])
        net(batch[0])

    calibrate(net, [(x, torch.zeros(8)) for x in batches()], forward)
    assert len(seen) == 3
    assert torch.equal(net[1].running_statistic, direct)


def test_empty_batches_are_passed_over_and_no_image_is_an_error() -> None:
    net = model()
    assert calibrate(net, [torch.empty(0, 3, 8, 8), *batches((4,))]) == 4
    with pytest.raises(ValueError, match="batches is empty"):
        calibrate(net, [])
    assert calibrate(nn.Linear(2, 2), []) == 0  # nothing to calibrate
