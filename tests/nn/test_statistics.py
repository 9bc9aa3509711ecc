"""Precise statistics."""

from __future__ import annotations

import copy
from collections import UserDict, namedtuple
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


class Dicts(nn.Module):
    """Takes the dict that its loader gives."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model()

    def forward(self, label: Tensor, image: dict[str, Tensor]) -> Tensor:
        return self.inner(image["pixels"])


def test_batches_are_any_nest_of_containers_with_an_own_forward() -> None:
    net, plain = Dicts(), model()
    given = [{"label": torch.zeros(len(x)), "image": {"pixels": x}} for x in batches((8, 4))]
    assert calibrate(net, given, lambda batch: net(**batch)) == 12
    calibrate(plain, batches((8, 4)))
    for (name, value), expected in zip(net.inner.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(value, expected), name
    pair = namedtuple("pair", "image label")
    seen = []
    calibrate(
        plain, [pair(x, None) for x in batches((4,))], lambda batch: seen.append(batch) or plain(batch.image)
    )
    assert type(seen[0]) is pair


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            {"image": torch.ones(4, 3, 8, 8), "label": 1},
            r"a batch is a dict of image, label, .*forward=lambda batch",
        ),
        (["a.png", torch.ones(4)], "a batch is a list, not images"),
        ("a.png", "a batch of type str holds no tensor"),
        ([], "a batch of type list holds no tensor"),
        ((torch.tensor(3.0),), "holds no tensor"),
    ],
)
def test_batches_that_cannot_be_used_say_what_to_do(batch: object, message: str) -> None:
    net = model()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        calibrate(net, [batches((4,))[0], batch])
    assert_state(net, state)


class Recorder(nn.Module):
    """Its first parameter is on another device than its norm; says where its input is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, device="meta"))
        self.norm = nn.BatchNorm2d(3)
        self.devices: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        self.devices.append(x.device.type)
        return self.norm(torch.ones(x.shape))


class Encoding(UserDict):
    """A container of its own class that moves itself, as transformers' do."""

    def to(self, device: torch.device) -> Encoding:
        return Encoding({key: value.to(device) for key, value in self.items()})


def test_batches_are_moved_to_the_device_of_the_model() -> None:
    net = Recorder()
    (x,) = batches((4,))
    calibrate(net, [x])
    calibrate(net, [[x, torch.zeros(4)]])
    calibrate(net, [{"a": [x]}], lambda batch: net(batch["a"][0]))
    calibrate(net, [Encoding(a=x)], lambda batch: net(batch["a"]))
    assert net.devices == ["meta"] * 4


def assert_state(net: nn.Module, state: dict[str, Tensor]) -> None:
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name


def trained() -> tuple[nn.Sequential, dict[str, Tensor]]:
    net = model()
    net(3 * batches((8,))[0])
    return net, {name: value.clone() for name, value in net.state_dict().items()}


def failing() -> Iterator[Tensor]:
    yield batches()[0]
    raise KeyboardInterrupt


def test_whatever_goes_wrong_leaves_the_statistics_as_they_were() -> None:
    net, state = trained()
    with pytest.raises(ValueError, match="batches is empty"):
        calibrate(net, [])
    assert_state(net, state)
    with pytest.raises(KeyboardInterrupt):
        calibrate(net, failing())
    assert_state(net, state)
    with pytest.raises(RuntimeError, match="channels"):
        calibrate(net, [batches()[0], torch.ones(4, 5, 8, 8)])
    assert_state(net, state)
    assert net.training
    assert [layer.momentum for layer in tracking_layers(net)] == [0.1, 0.1, None, 0.1]
    # A mixture's components too, and where the next batch begins.
    mixture = norm_layer("mixture", subset=64)(3)
    mixture(batches((8,))[0])
    before = {name: value.clone() for name, value in mixture.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        calibrate(mixture, failing())
    assert_state(mixture, before)
    twin = norm_layer("mixture", subset=64)(3)
    twin.load_state_dict(before)
    x = batches((16,))[0]
    assert torch.equal(mixture(x), twin(x))


def test_a_last_batch_of_fewer_samples_than_a_mixtures_components_is_passed_over() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), norm_layer("mixture", components=3)(3, dim=1))
    whole = batches((8, 4))
    twin = copy.deepcopy(net)
    calibrate(twin, whole)
    with pytest.warns(UserWarning, match="a batch of 2 images is skipped: .*components=3"):
        assert calibrate(net, [*whole, batches((2,))[0]]) == 12
    assert_state(net, twin.state_dict())


@pytest.mark.parametrize("norm", ["bn", "gbn_cvar", "iebn"])
def test_a_last_batch_of_one_value_per_channel_is_passed_over(norm: str) -> None:
    torch.manual_seed(0)
    factory = norm_layer(norm)
    net = nn.Sequential(factory(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), factory(3, dim=1))
    whole = batches((8, 4))
    calibrate(net, whole)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.warns(UserWarning, match="a batch of one image is skipped: Expected more than 1 value"):
        assert calibrate(net, [whole[0], batches((1,))[0], whole[1]]) == 12
    assert_state(net, state)
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(ValueError, match="no images"):
        calibrate(net, batches((1,)))
    assert_state(net, state)
    images = nn.Sequential(factory(3))  # one image has a spread here
    assert calibrate(images, batches((8, 1))) == 9


def test_an_error_of_the_model_on_one_image_is_its_own() -> None:
    def refuse(batch: Tensor) -> None:
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        calibrate(model(), batches((1,)), refuse)


class Auxiliary(nn.Module):
    """Has a head in training only, as Inception has."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = norm_layer("gbn_cvar")(3), norm_layer("gbn_cvar")(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.head(x) if self.training else self.norm(x)


def test_layers_that_no_batch_reaches_keep_their_statistics() -> None:
    net = Auxiliary()
    net(batches()[0])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    calibrate(net, [5 * x for x in batches()])
    for name, value in net.named_buffers():
        assert torch.equal(value, before[name]) == name.startswith("head"), name


def test_empty_batches_are_passed_over_and_no_image_is_an_error() -> None:
    net = model()
    assert calibrate(net, [torch.empty(0, 3, 8, 8), *batches((4,))]) == 4
    with pytest.raises(ValueError, match="batches is empty"):
        calibrate(net, [])
    assert calibrate(nn.Linear(2, 2), []) == 0  # nothing to calibrate
