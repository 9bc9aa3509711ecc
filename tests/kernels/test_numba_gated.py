"""Instance enhancement in the fused CPU kernels, against the float64 reference that test_gate.py tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gbn import kernels, risk
from gbn.kernels.numba import launch
from gbn.kernels.numba.passes_last import pieces_of
from gbn.kernels.plan import lower
from tests.kernels.test_numba import EPS, LAYOUTS, PAIRS, Results, assert_near, build, sample

PARAMETERS = ("weight", "bias", "gate_weight", "gate_bias")
MORE_LAYOUTS = LAYOUTS | {
    "planes of four vectors": ((20, 3, 8, 8), torch.contiguous_format),
    "planes with a tail": ((5, 4, 7, 7), torch.contiguous_format),
    "long planes": ((2, 3, 50, 50), torch.contiguous_format),
    "channels last, short rows": ((19, 20, 4, 4), torch.channels_last),
    "channels last, one image": ((1, 17, 30, 31), torch.channels_last),
}


def inputs(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Those of the tests without a gate, and a gate that is half open, in the middle of the sigmoid."""
    x, g, weight, bias = sample(*shape, seed=seed, dtype=dtype)
    make = torch.Generator().manual_seed(seed + 1)
    gate_weight, gate_bias = (
        torch.randn(shape[1], generator=make),
        torch.randn(shape[1], generator=make) - 0.5,
    )
    return {
        "x": x,
        "weight": weight,
        "bias": bias,
        "gate_weight": gate_weight,
        "gate_bias": gate_bias,
        "g": g,
    }


def results(
    given: dict[str, Tensor | None], pair: risk.Quadrangle, act: str | None = None, eps: float = EPS
) -> Results:
    """y, S, D and all gradients by whatever kernel serves x."""
    leaves = {
        name: value.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        for name, value in given.items()
        if value is not None and name != "g"
    }
    p = {name: leaves.get(name) for name in PARAMETERS}
    gate: Any = (p["gate_weight"], p["gate_bias"])
    y, s, d = kernels.normalize(leaves["x"], p["weight"], p["bias"], pair.S, pair.D, eps, act, gate)
    gradients = torch.autograd.grad(y, list(leaves.values()), given["g"])
    named = {f"d{name}": value for name, value in zip(leaves, gradients, strict=True)}
    return {"y": y.detach(), "S": s, "D": d, **named}


def exact(given: dict[str, Tensor | None], *rest: Any) -> Results:
    """The same in float64, which the reference serves."""
    return results({name: None if value is None else value.double() for name, value in given.items()}, *rest)


def largest_term(given: dict[str, Tensor], wanted: Results) -> float:
    """dx is a difference of terms of the size of g / D."""
    return (given["g"].double().abs().max() / (wanted["D"].min() + EPS)).clamp_min(1.0).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", MORE_LAYOUTS)
@pytest.mark.parametrize("act", [None, "relu"])
@pytest.mark.parametrize("name", ["std", "cvar"])
def test_equals_the_reference(name: str, act: str | None, layout: str, dtype: torch.dtype) -> None:
    pair, (shape, memory_format) = build(name), MORE_LAYOUTS[layout]
    given = inputs(*shape, dtype=dtype)
    given["x"] = given["x"].contiguous(memory_format=memory_format)
    assert kernels.implementation(given["x"], pair.S, pair.D) == "numba"
    got, wanted = results(given, pair, act), exact(given, pair, act)
    assert_near(got, wanted, dtype, largest_term(given, wanted))
    for key in ("y", "dx"):
        assert got[key].dtype == dtype
        assert got[key].stride() == given["x"].stride()


@pytest.mark.parametrize("layout", ["planes of odd size", "channels last, more than 16"])
@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_every_pair(name: str, mode: str | None, layout: str) -> None:
    pair, (shape, memory_format) = build(name, mode), MORE_LAYOUTS[layout]
    given = inputs(*shape)
    given["x"] = given["x"].contiguous(memory_format=memory_format)
    got, wanted = results(given, pair, "relu"), exact(given, pair, "relu")
    assert_near(got, wanted, torch.float32, largest_term(given, wanted))


@pytest.mark.parametrize("act", [None, "relu"])
@pytest.mark.parametrize("layout", MORE_LAYOUTS)
def test_an_open_gate_changes_no_bit(layout: str, act: str | None) -> None:
    """gate_bias = 30: sigmoid is 1 in float32, so y is that without a gate; sums are taken in another order."""
    pair, (shape, memory_format) = build("cvar"), MORE_LAYOUTS[layout]
    given = inputs(*shape)
    x = given["x"].contiguous(memory_format=memory_format).requires_grad_()
    arguments = (given["weight"], given["bias"], pair.S, pair.D, EPS, act)
    gate = torch.zeros(shape[1]), torch.full((shape[1],), 30.0)
    plain, y = (kernels.normalize(x, *arguments, *one) for one in ((), (gate,)))
    for a, b in zip(plain, y, strict=True):
        assert torch.equal(a, b)
    (wanted,), (got,) = (torch.autograd.grad(one[0], x, given["g"]) for one in (plain, y))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("missing", ["weight", "bias", "both"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gain_and_bias_may_be_missing(missing: str, memory_format: torch.memory_format) -> None:
    given: dict[str, Any] = inputs(4, 3, 5, 20)
    given["x"] = given["x"].contiguous(memory_format=memory_format)
    given |= dict.fromkeys(("weight", "bias") if missing == "both" else (missing,))
    wanted = exact(given, build("cvar"), "relu")
    assert_near(results(given, build("cvar"), "relu"), wanted, torch.float32, largest_term(given, wanted))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_what_needs_no_gradient_gets_none(memory_format: torch.memory_format) -> None:
    """As in the first layer, whose images need none."""
    pair, given = build("cvar"), inputs(4, 3, 5, 6)
    given["x"] = given["x"].contiguous(memory_format=memory_format)
    wanted = results(given, pair, "relu")
    leaves = [given[name].requires_grad_() for name in PARAMETERS[::3]]
    gate = given["gate_weight"], given["gate_bias"]
    y, _, _ = kernels.normalize(given["x"], given["weight"], given["bias"], pair.S, pair.D, EPS, "relu", gate)
    got = torch.autograd.grad(y, leaves, given["g"])
    assert torch.equal(got[0], wanted["dweight"])
    assert torch.equal(got[1], wanted["dgate_bias"])


def test_half_precision_parameters_get_their_gradients_in_kind() -> None:
    given = inputs(8, 3, 5, 4, dtype=torch.bfloat16)
    given = {name: value.bfloat16() for name, value in given.items()}
    got = results(given, build("cvar"))
    assert all(got[f"d{name}"].dtype == torch.bfloat16 for name in PARAMETERS)


@pytest.mark.parametrize("given_as", ["strided", "expanded", "channels_last"])
def test_inputs_in_any_memory_format(given_as: str) -> None:
    pair, given = build("cvar"), inputs(4, 6, 8, 10)
    if given_as == "strided":
        wide, space = torch.zeros(4, 12, 8, 30), torch.zeros(4, 12, 8, 30)
        given["x"] = wide[:, ::2, :, 1::3].copy_(given["x"])
        given["g"] = space[:, 1::2, :, ::3].copy_(given["g"])
    if given_as == "expanded":  # as y.sum() gives it
        given["g"] = torch.ones(()).expand_as(given["x"])
    if given_as == "channels_last":  # the cotangent in another format than x
        given["g"] = given["g"].contiguous(memory_format=torch.channels_last)
    wanted = exact(given, pair)
    assert_near(results(given, pair), wanted, torch.float32, largest_term(given, wanted))


@pytest.mark.parametrize("shape", [(40, 16, 32, 32), (32, 80, 16, 16), (300, 128, 4, 4)])
def test_large_tensors_are_written_past_the_caches(shape: tuple[int, ...]) -> None:
    given = inputs(*shape)
    assert 4 * given["x"].numel() >= 2 << 20
    got, wanted = results(given, build("std"), "relu"), exact(given, build("std"), "relu")
    assert_near(got, wanted, torch.float32, largest_term(given, wanted))


@pytest.mark.parametrize("shape", [(2, 24, 90, 95), (40, 24, 21, 20)])
@pytest.mark.parametrize("name", ["std", "cvar", "entropic"])
def test_channels_side_by_side_are_worked_on_in_pieces_of_images(name: str, shape: tuple[int, ...]) -> None:
    """Few large images are cut, many are not; the gradient of a mean is that of all of an image's pieces."""
    images, channels, height, width = shape
    assert (pieces_of(images, channels, height * width) > 1) == (images == 2)
    given = inputs(*shape)
    given["x"] = given["x"].contiguous(memory_format=torch.channels_last)
    got, wanted = results(given, build(name), "relu"), exact(given, build(name), "relu")
    for key, value in wanted.items():
        # in norm: sums over rows of g x_hat cancel to a tenth of their terms, which are within 40 eps
        error = torch.linalg.vector_norm(got[key] - value)
        assert error <= 1e-5 * torch.linalg.vector_norm(value), key


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_large_offset_does_not_cancel(memory_format: torch.memory_format) -> None:
    """Values around 1e4: S and rows' means are kept in float32, and off by half an ulp of 1e4, 5e-4, at most."""
    given = inputs(16, 2, 16, 16)
    given["x"] = (given["x"] + 1e4).contiguous(memory_format=memory_format)
    given["gate_bias"] = -1e4 * given["gate_weight"].bfloat16().float()  # products with 1e4 stay exact
    given["gate_weight"] = given["gate_weight"].bfloat16().float()
    got, wanted = results(given, build("std")), exact(given, build("std"))
    for key in ("y", "dx"):
        error = torch.linalg.vector_norm(got[key] - wanted[key])
        assert error < 2e-3 * torch.linalg.vector_norm(wanted[key]), key


def test_far_ends_of_the_gate() -> None:
    """Where the sigmoid is 0 or 1 to rounding, however far its argument lies; no overflow."""
    given, pair = inputs(4, 6, 8, 8), build("std")
    given["gate_bias"] = torch.tensor([-1e30, -200.0, -90.0, 90.0, 200.0, 1e30])
    given["gate_weight"] = torch.zeros(6)
    got, wanted = results(given, pair), exact(given, pair)
    assert_near(got, wanted, torch.float32, largest_term(given, wanted))
    assert torch.equal(got["y"][:, :3], given["bias"][:3].view(1, 3, 1, 1).expand(4, 3, 8, 8))


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    for shape, memory_format in (
        ((8, 7, 20, 20), torch.contiguous_format),
        ((8, 40, 4, 4), torch.contiguous_format),
        ((8, 40, 9, 9), torch.channels_last),
        ((2, 24, 90, 95), torch.channels_last),
    ):
        given = inputs(*shape)
        given["x"] = given["x"].contiguous(memory_format=memory_format)
        runs = []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                runs.append(results(given, build("cvar"), "relu"))
            with monkeypatch.context() as without:  # without an OpenMP runtime
                without.setattr(launch, "_parallel", lambda: None)
                runs.append(results(given, build("cvar"), "relu"))
        finally:
            torch.set_num_threads(before)
        for run in runs[1:]:
            assert all(torch.equal(run[key], runs[0][key]) for key in run)


def test_keeps_no_more_for_the_backward_pass_than_x_the_record_and_the_means() -> None:
    pair, given = build("cvar"), inputs(8, 3, 16, 16)
    p = {name: value.requires_grad_() for name, value in given.items()}
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        kernels.normalize(
            p["x"], p["weight"], p["bias"], pair.S, pair.D, EPS, "relu", (p["gate_weight"], p["gate_bias"])
        )
    assert [t.data_ptr() for t in kept if t.numel() > 100] == [p["x"].data_ptr()]
    assert sum(t.numel() for t in kept) - p["x"].numel() <= 8 * 3 + 3 * (
        6 + lower(pair.S, pair.D, 2048).record
    )


def test_a_backend_without_a_gate_of_its_own_is_composed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalised by the fused kernels, gated by torch: the same numbers to rounding."""
    given, pair = inputs(8, 3, 6, 5), build("cvar")
    wanted = results(given, pair, "relu")
    monkeypatch.setattr("gbn.kernels.numba.FUSES_GATE", False)
    monkeypatch.setattr("gbn.kernels.numba.launch._row_numbers", None)
    got = results(given, pair, "relu")
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
