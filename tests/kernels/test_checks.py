"""What the kernels refuse before they read memory, and what they make plain; test_strange.py tries the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DeviceMesh, Replicate, distribute_tensor

from gbn import kernels, risk
from gbn.kernels.mixture import Mixture, fitted, normalize_by_batch, normalize_by_mixture
from gbn.nn import InstanceEnhancementBatchNorm2d, MixtureNorm2d
from gbn.nn.functional import generalized_batch_norm

C, EPS = 3, 1e-3
ERRORS = (RuntimeError, ValueError)
PAIR = risk.quadrangle("cvar")
X = torch.randn(4, C, 4, 4, generator=torch.Generator().manual_seed(0))
ONES = torch.ones(C)
MIXTURE = Mixture(torch.tensor([[0.4], [0.6]]), torch.randn(2, C), torch.ones(2, C))

#: Every entrance as a function of its vectors, which are named as the messages name them.
ENTRANCES: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "normalize": (
        lambda weight=ONES, bias=ONES: kernels.normalize(X, weight, bias, PAIR.S, PAIR.D, EPS),
        ("weight", "bias"),
    ),
    "normalize, gated": (
        lambda weight=ONES, gate_weight=ONES, gate_bias=ONES: kernels.normalize(
            X, weight, None, PAIR.S, PAIR.D, EPS, None, (gate_weight, gate_bias)
        ),
        ("weight", "gate_weight", "gate_bias"),
    ),
    "normalize_with": (
        lambda weight=ONES, bias=ONES, statistic_value=ONES, deviation_value=ONES: kernels.normalize_with(
            X, statistic_value, deviation_value, weight, bias, PAIR.D, EPS
        ),
        ("weight", "bias", "statistic_value", "deviation_value"),
    ),
    "normalize_with, gated": (
        lambda gate_weight=ONES, gate_bias=ONES: kernels.normalize_with(
            X, ONES, ONES, None, None, PAIR.D, EPS, None, (gate_weight, gate_bias)
        ),
        ("gate_weight", "gate_bias"),
    ),
    "generalized_batch_norm": (
        lambda **vectors: generalized_batch_norm(X, training=True, **vectors),
        ("weight", "bias", "running_statistic", "running_deviation"),
    ),
    "gbn::normalize": (
        lambda weight=ONES, bias=ONES, gate_weight=ONES, gate_bias=ONES: torch.ops.gbn.normalize(
            X, weight, bias, gate_weight, gate_bias, PAIR.S.text, PAIR.D.text, EPS, False
        ),
        ("weight", "bias", "gate_weight", "gate_bias"),
    ),
    "normalize_by_batch": (
        lambda weight=ONES, bias=ONES, center=ONES: normalize_by_batch(
            X, MIXTURE, weight, bias, EPS, center=center
        ),
        ("weight", "bias", "center"),
    ),
    "normalize_by_mixture": (
        lambda weight=ONES, bias=ONES, floor=ONES: normalize_by_mixture(X, MIXTURE, weight, bias, EPS, floor),
        ("weight", "bias", "floor"),
    ),
    "gbn::mixture_normalize": (
        lambda weight=ONES, bias=ONES, center=ONES: torch.ops.gbn.mixture_normalize(
            X, weight, bias, *MIXTURE, center, EPS, False
        ),
        ("weight", "bias", "center"),
    ),
    "fitted": (lambda floor=ONES: fitted(X[:, :, 0, 0], MIXTURE, 1, floor), ("floor",)),
    "gbn::mixture_fit": (
        lambda floor=ONES, mean=ONES, var=ONES: torch.ops.gbn.mixture_fit(
            X[:, :, 0, 0], *MIXTURE, 1, floor, None, mean, var
        ),
        ("floor", "mean", "var"),
    ),
}
VECTORS = [
    pytest.param(name, which, id=f"{name}: {which}")
    for name, (_, all_) in ENTRANCES.items()
    for which in all_
]
# What torch 2.13 itself says of nested tensors and of its own tools.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]
needs_numba = pytest.mark.skipif(
    kernels.selected() != "numba", reason="the compiled kernels do not work here"
)


@pytest.fixture(params=kernels.KERNELS)
def choice(request: pytest.FixtureRequest) -> Iterator[str]:
    with kernels.using(request.param):
        yield request.param


@needs_numba
@pytest.mark.parametrize(("name", "which"), VECTORS)
def test_every_vector_of_every_entrance_is_checked(name: str, which: str, choice: str) -> None:
    call, _ = ENTRANCES[name]
    for wrong in (torch.ones(1), torch.ones(C - 1), torch.ones(C + 1), torch.ones(C, 1), torch.ones(())):
        with pytest.raises(RuntimeError, match=rf"{which} should have shape \(3,\)"):
            call(**{which: wrong})
    for wrong in (ONES.long(), ONES.bool(), ONES + 0j, ONES.to_sparse()):
        with pytest.raises(RuntimeError, match=f"{which} has dtype"):
            call(**{which: wrong})
    with pytest.raises(RuntimeError, match=f"{which} is on meta, the input on cpu"):
        call(**{which: ONES.to("meta")})
    with pytest.raises(RuntimeError):  # torch's own, which has no sizes for it
        call(**{which: torch.nested.nested_tensor([ONES])})


def test_batch_norm_refuses_the_same_inputs_by_the_same_kinds_of_error(choice: str) -> None:
    def ours(x: Tensor) -> Tensor:
        return kernels.normalize(x, None, None, PAIR.S, PAIR.D, EPS)[0]

    for wrong in (X.long(), X.bool(), X.to_sparse(), torch.nested.nested_tensor([X])):
        for call in (ours, lambda x: F.batch_norm(x, None, None, None, None, True)):
            with pytest.raises(RuntimeError):
                call(wrong)
    for wrong in (torch.ones(()), torch.ones(3), torch.ones(0, 3), torch.ones(2, 0, 4)):
        with pytest.raises(ValueError, match=r"expected an input|Expected more than 1 value"):
            ours(wrong)


def test_running_averages_stay_as_they_were_where_something_is_refused() -> None:
    running = torch.zeros(C), torch.ones(C, 1)
    with pytest.raises(RuntimeError, match="running_deviation should have shape"):
        generalized_batch_norm(X, *running, training=True)
    assert (running[0] == 0).all()


def test_gains_of_another_length_are_refused_by_layers() -> None:
    layer = InstanceEnhancementBatchNorm2d(64)
    layer.weight = nn.Parameter(torch.ones(1))
    with pytest.raises(RuntimeError, match=r"weight should have shape \(64,\)"):
        layer(torch.randn(2, 64, 4, 4))
    with pytest.raises(RuntimeError, match="weight is on meta"):
        InstanceEnhancementBatchNorm2d(C, device="meta")(X)
    with pytest.raises(RuntimeError, match="on meta"):
        MixtureNorm2d(C, components=1, device="meta")(X)


@pytest.fixture
def replicated() -> Iterator[Tensor]:
    """A gain of 5 as a DTensor, whose own memory is nowhere."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield distribute_tensor(5 * ONES, DeviceMesh("cpu", [0]), [Replicate()])
    finally:
        dist.destroy_process_group()


def test_a_distributed_gain_with_a_plain_input_is_refused(replicated: Tensor, choice: str) -> None:
    with pytest.raises(RuntimeError):
        kernels.normalize(X, replicated, None, PAIR.S, PAIR.D, EPS)
    with pytest.raises(RuntimeError):
        F.batch_norm(X, None, None, replicated, None, True)


def gradients(layer: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    leaf = x.detach().requires_grad_()
    y = layer(leaf)
    return torch.autograd.grad(y, leaf, g)


def layers() -> dict[str, Callable[[Tensor], Tensor]]:
    """By name: each kind of fused kernel, fresh, with all that it draws at its start."""
    gate = torch.tensor([1.0, -1.0, 0.5]), torch.zeros(C)
    kept = MIXTURE._replace(weight=MIXTURE.weight.expand(2, C))
    return {
        "plain": lambda x: kernels.normalize(x, ONES, ONES, PAIR.S, PAIR.D, EPS, "relu")[0],
        "gated": lambda x: kernels.normalize(x, ONES, ONES, PAIR.S, PAIR.D, EPS, "relu", gate)[0],
        "joint": lambda x: normalize_by_batch(x, MIXTURE, ONES, ONES, EPS, act="relu")[0],
        "per channel": lambda x: normalize_by_batch(x, kept, ONES, ONES, EPS, act="relu")[0],
    }


@pytest.mark.parametrize("name", layers())
def test_cotangents_without_memory_of_their_own(name: str, choice: str) -> None:
    layer, g = layers()[name], torch.randn(X.shape, generator=torch.Generator().manual_seed(1))
    (wanted,) = gradients(layer, X, g)
    assert torch.equal(gradients(layer, X, (-g)._neg_view())[0], wanted)
    assert (gradients(layer, X, torch._efficientzerotensor(X.shape))[0] == 0).all()
    one = torch.ones(())
    expanded, plain = (gradients(layer, X, part)[0] for part in (one.expand(X.shape), torch.ones(X.shape)))
    assert torch.equal(expanded, plain)


@pytest.mark.parametrize("name", layers())
def test_inputs_without_memory_of_their_own(name: str, choice: str) -> None:
    layer = layers()[name]
    assert torch.equal(layer((-X)._neg_view()), layer(X))
    assert torch.equal(layer(torch._efficientzerotensor(X.shape)), layer(torch.zeros(X.shape)))


@needs_numba
@pytest.mark.parametrize("name", layers())
@pytest.mark.parametrize("shape", [(4, C, 4, 4), (5, C, 3, 3), (2, C, 7, 5)], ids=str)
def test_saved_tensors_may_come_back_in_another_memory_format(name: str, shape: tuple[int, ...]) -> None:
    """Offloading brings them back contiguous; what was kept beside belongs to the first format."""
    make = torch.Generator().manual_seed(2)
    x, g = (torch.randn(shape, generator=make) for _ in range(2))
    x = x.contiguous(memory_format=torch.channels_last)
    (wanted,) = gradients(layers()[name], x, g)
    with torch.autograd.graph.save_on_cpu():
        (got,) = gradients(layers()[name], x, g)
    # the other layout sums in another order
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@needs_numba
@pytest.mark.parametrize("name", layers())
def test_saved_tensors_that_come_back_as_others_are_refused(name: str) -> None:
    spoiling: list[Callable[[Tensor], Tensor]] = [
        lambda t: t[:1] if t.dim() else t,
        lambda t: t.flatten(),
        lambda t: torch.cat((t, t)) if t.dim() else t,
        lambda t: t.to("meta"),
        lambda t: t.to_sparse() if t.is_floating_point() else t,
    ]
    for spoilt in spoiling:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, spoilt), pytest.raises(ERRORS):
            gradients(layers()[name], X, X)


@pytest.mark.parametrize("name", layers())
def test_an_input_that_was_changed_in_place_is_refused(name: str, choice: str) -> None:
    leaf = X.detach().clone().requires_grad_()
    x = leaf * 1
    y = layers()[name](x)
    x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@needs_numba
@pytest.mark.parametrize("name", layers())
def test_a_default_device_is_not_that_of_scratch_memory(name: str) -> None:
    wanted = gradients(layers()[name], X, X)
    layer = layers()[name]
    with torch.device("meta"):
        got = gradients(layer, X, X)
    assert torch.equal(got[0], wanted[0])


@needs_numba
@pytest.mark.parametrize("name", layers())
def test_forward_mode_is_refused_rather_than_dropped(name: str) -> None:
    class Subclass(Tensor):
        """What sends eager code through an operator."""

    for x in (X, (-X)._neg_view(), X.as_subclass(Subclass)):
        with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
            layers()[name](torch.autograd.forward_ad.make_dual(x, torch.ones(X.shape)))


@needs_numba
@pytest.mark.parametrize("place", range(6))
def test_the_backward_operators_check_what_they_are_given(place: int) -> None:
    text = PAIR.S.text, PAIR.D.text, EPS, True
    calls: list[tuple[Any, list[Any], tuple[Any, ...]]] = []
    _, *kept = torch.ops.gbn.normalize(X, ONES, ONES, ONES, ONES, *text)
    calls.append((torch.ops.gbn.normalize_backward, [X, X, *[ONES] * 4, *kept], text))
    _, _, _, _, _, planes, *kept = torch.ops.gbn.mixture_normalize(X, ONES, ONES, *MIXTURE, ONES, EPS, True)
    backward = torch.ops.gbn.mixture_normalize_backward
    calls.append((backward, [X, X, ONES, planes, *kept, ONES], (EPS, True)))
    for call, tensors, rest in calls:
        call(*tensors, *rest)
        for at in range(place, len(tensors), 6):
            if tensors[at] is planes:
                continue
            for wrong in (tensors[at][:1], torch.ones(()), tensors[at].to("meta"), tensors[at].to_sparse()):
                given = [*tensors[:at], wrong, *tensors[at + 1 :]]
                with pytest.raises(ERRORS):
                    call(*given, *rest)


@needs_numba
def test_operators_refuse_what_only_the_reference_serves() -> None:
    text = PAIR.S.text, PAIR.D.text, EPS, True
    with pytest.raises(RuntimeError, match="take float32, bfloat16 and float16"):
        torch.ops.gbn.normalize(X.double(), None, None, None, None, *text)
    nine = Mixture(torch.full((9, 1), 1 / 9), torch.randn(9, C), torch.ones(9, C))
    with pytest.raises(RuntimeError, match="up to 8 components on the CPU, got 9"):
        torch.ops.gbn.mixture_normalize(X, None, None, *nine, ONES, EPS, True)
    each = Mixture(MIXTURE.weight.expand(-1, C).contiguous(), MIXTURE.mean, MIXTURE.var)
    with pytest.raises(RuntimeError, match="one weight per component"):
        torch.ops.gbn.mixture_normalize(X, None, None, *each, ONES, EPS, True)
    with pytest.raises(RuntimeError, match="one weight per component"):
        torch.ops.gbn.mixture_fit(X[:, :, 0, 0], *each, 1, ONES, None, ONES, ONES)
    with pytest.raises(RuntimeError, match="float32 samples"):
        torch.ops.gbn.mixture_fit(X[:, :, 0, 0].bfloat16(), *MIXTURE, 1, ONES, None, ONES, ONES)


@pytest.mark.parametrize("part", range(3))
def test_mixtures_of_other_shapes_are_refused(part: int, choice: str) -> None:
    names = ("weight", "mean", "var")
    for shape in ((), (2,), (0, C), (1, C), (2, C + 1), (2, C, 1)):
        wrong = [*MIXTURE]
        wrong[part] = torch.ones(shape)
        with pytest.raises(RuntimeError, match="the mixture's"):
            normalize_by_batch(X, Mixture(*wrong), None, None, EPS)
        with pytest.raises(RuntimeError, match="the mixture's"):
            fitted(X[:, :, 0, 0], Mixture(*wrong), 1, ONES)
    assert Mixture._fields == names


def test_draws_of_another_number_are_refused(choice: str) -> None:
    with pytest.raises(RuntimeError, match=r"draws should have shape \(2,\)"):
        fitted(X[:, :, 0, 0], MIXTURE, 1, ONES, torch.rand(1))


@needs_numba
@pytest.mark.slow
@pytest.mark.parametrize("name", layers())
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_code_checks_too(name: str) -> None:
    torch._dynamo.reset()

    def call(weight: Tensor) -> Tensor:
        gate = (ONES, weight + 1) if name == "gated" else None
        if "channel" in name or name == "joint":
            return normalize_by_batch(X, MIXTURE, weight, None, EPS)[0]
        return kernels.normalize(X, weight, None, PAIR.S, PAIR.D, EPS, None, gate)[0]

    compiled = torch.compile(call, backend="aot_eager")
    torch.testing.assert_close(compiled(ONES), call(ONES))
    with pytest.raises(RuntimeError, match="should have shape"):
        compiled(torch.ones(C + 1))
