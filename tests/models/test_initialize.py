"""Initial values come from (seed, name) only: paired across norms, and the global random state stays put."""

import math

import pytest
import torch
from torch import nn

from gbn.models import MODELS, build, initialize
from tests.models.networks import COMMON, SMALL

GOLDEN_STEM = [0.013452178798615932, -0.06254544854164124, -0.0568622387945652, -0.3073967695236206]
GOLDEN_HEAD = [-0.0431843101978302, -0.04557393491268158, -0.0895935595035553, 0.025545015931129456]


def batch_norm(num_features, act="relu", dim=2, role="body"):
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dim](num_features)
    return nn.Sequential(norm, nn.ReLU()) if act else norm


class RandomNorm(nn.Module):
    """A foreign norm with random and constant parameters, drawing from the global generator when built."""

    def __init__(self, num_features):
        super().__init__()
        self.mix = nn.Parameter(torch.empty(3, num_features))
        self.weight = nn.Parameter(torch.empty(num_features))
        self.register_buffer("running", torch.full((num_features,), 5.0))
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.normal_(self.mix)
        nn.init.ones_(self.weight)
        self.running.zero_()

    def forward(self, x):
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return torch.relu(x * self.weight.view(shape) * self.mix.mean(0).view(shape))


def random_norm(num_features, act="relu", dim=2, role="body"):
    return RandomNorm(num_features)


def shared_tensors(model):
    owners = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    own = {parameter for m in owners for parameter in m.parameters(recurse=False)}
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter in own}


@pytest.mark.parametrize("name", MODELS)
def test_arms_share_the_initial_values_of_all_that_they_share(name):
    options = COMMON | {"width": 0.25} | SMALL.get(name, {})
    torch.manual_seed(1)
    one = shared_tensors(initialize(build(name, batch_norm, **options), 0))
    torch.manual_seed(2)
    other = shared_tensors(initialize(build(name, random_norm, **options), 0))
    assert one.keys() == other.keys()
    assert one
    for path in one:
        assert torch.equal(one[path], other[path]), path


def test_seeds_and_names_have_their_own_streams():
    zero, one = (shared_tensors(initialize(build("resnet", batch_norm, **COMMON), seed)) for seed in (0, 1))
    weights = [path for path in zero if not path.endswith("bias")]
    for path in weights:
        assert not torch.equal(zero[path], one[path]), path
    equal_shapes = [zero[path] for path in weights if zero[path].shape == (64, 64, 3, 3)]
    assert len(equal_shapes) == 5
    for i, first in enumerate(equal_shapes):
        for second in equal_shapes[:i]:
            assert not torch.equal(first, second)


def test_values_are_fixed_for_ever():
    # Golden: archived runs started from these; torch's generator is documented as fixed on the CPU.
    model = initialize(build("resnet", batch_norm, **COMMON), 0)
    torch.testing.assert_close(
        model.stem.conv.weight.detach().flatten()[:4], torch.tensor(GOLDEN_STEM), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(
        model.head.weight.detach().flatten()[:4], torch.tensor(GOLDEN_HEAD), rtol=1e-5, atol=0
    )


def test_distributions():
    model = initialize(build("cnn", batch_norm, **COMMON), 3)
    weight = model.layer3.conv.weight.detach()
    fan_in = 128 * 25
    # The standard deviation of n normal draws is known to 1/sqrt(2n): five of those.
    assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=5 / math.sqrt(2 * weight.numel()))
    head = model.head.weight.detach()
    bound = 1 / math.sqrt(256)
    assert 0.95 * bound < head.abs().max() <= bound
    assert head.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.08)
    assert not model.head.bias.any()


def test_grouped_convolutions_use_their_own_fan_in():
    model = initialize(nn.Sequential(nn.Conv2d(64, 512, 3, groups=32)), 0)
    assert model[0].weight.std().item() == pytest.approx(math.sqrt(2 / 18), rel=0.05)
    assert not model[0].bias.any()


def test_norms_keep_what_their_constructor_gave():
    norm = nn.BatchNorm2d(8)
    nn.init.constant_(norm.weight, 0.7867)
    nn.init.constant_(norm.bias, -0.5306)
    norm.running_mean.fill_(3.0)
    norm.num_batches_tracked.fill_(4)
    initialize(nn.Sequential(nn.Conv2d(3, 8, 3), norm), 0)
    assert (norm.weight == 0.7867).all()
    assert (norm.bias == -0.5306).all()
    assert (norm.running_mean == 3).all()
    assert norm.num_batches_tracked == 4


def test_foreign_modules_draw_from_their_own_stream_and_keep_the_rest():
    def made(seed, extra):
        parts = [RandomNorm(4)] if extra else []
        model = nn.ModuleDict({"norm": RandomNorm(4), "parts": nn.ModuleList(parts)})
        model["norm"].weight.data.fill_(0.5)
        model["norm"].running.fill_(9.0)
        return initialize(model, seed)

    a, b, c = made(0, extra=False), made(0, extra=True), made(1, extra=False)
    assert torch.equal(a["norm"].mix, b["norm"].mix)
    assert not torch.equal(a["norm"].mix, c["norm"].mix)
    assert not torch.equal(b["norm"].mix, b["parts"][0].mix)
    assert (a["norm"].weight == 0.5).all()
    assert (a["norm"].running == 9).all()


def test_modules_without_reset_parameters_are_left():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.full((3,), 2.0))

    model = initialize(nn.Sequential(Bare()), 0)
    assert (model[0].scale == 2).all()


def test_global_random_state_is_left_alone():
    model = build("lenet", random_norm, in_channels=1, num_classes=10, image_size=28)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    initialize(model, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_precision_only_rounds():
    plain = initialize(build("lenet", batch_norm, **COMMON), 0)
    half = initialize(build("lenet", batch_norm, **COMMON).to(torch.bfloat16), 0)
    assert half.layer1.conv.weight.dtype == torch.bfloat16
    assert torch.equal(half.layer1.conv.weight, plain.layer1.conv.weight.to(torch.bfloat16))


def test_tied_weights_are_drawn_once_under_the_first_name():
    first, second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
    alone = initialize(nn.Sequential(nn.Linear(6, 6, bias=False)), 0)[0].weight
    second.weight = first.weight
    assert torch.equal(initialize(nn.Sequential(first, second), 0)[1].weight, alone)


def test_a_whole_module_shared_by_two_places_is_drawn_once():
    shared = nn.Linear(6, 6)
    model = initialize(nn.Sequential(shared, nn.ReLU(), shared), 0)
    alone = initialize(nn.Sequential(nn.Linear(6, 6)), 0)
    assert torch.equal(model[2].weight, alone[0].weight)


@pytest.mark.gpu
def test_devices_start_from_the_same_values():
    cpu = initialize(build("lenet", random_norm, **COMMON), 0).state_dict()
    gpu = initialize(build("lenet", random_norm, **COMMON).cuda(), 0).state_dict()
    for name, value in cpu.items():
        assert torch.equal(value, gpu[name].cpu()), name
