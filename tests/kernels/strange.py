"""Tensors as strange as a caller can make them, through every entrance of the kernels: what a child process runs.

An example (:mod:`tests.kernels.test_strange` draws them) is an entrance, a shape, and for each tensor its kind, its
dtype and what its length is off by. Whatever can be normalized has to give what the reference gives in float64 on
plain copies; whatever cannot has to raise as BatchNorm would. A kernel that takes a wrong address may end the process
instead, which is why examples do not run in that of the tests.

    python tests/kernels/strange.py      # says that it is ready; an example a line in, a verdict a line out
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

from gbn import kernels, risk
from gbn.kernels.mixture import Mixture, fitted, normalize_by_batch, normalize_by_mixture
from gbn.optim import BatchNormPreconditioner

EPS, COMPONENTS = 1e-2, 3
#: A gradient is compared where rounding cannot decide whether the ReLU lets it through.
KINK = 1e-3
FLOATING = ("float32", "bfloat16", "float16", "float64")

#: Kinds of a tensor that have a value, and kinds that no kernel can serve. ``wrapper``: whatever torch makes of it.
SERVED = (
    "plain",
    "sliced",
    "expanded",
    "transposed",
    "last",
    "offset",
    "negated",
    "zero",
    "subclass",
    "inference",
)
REFUSED = ("meta", "sparse", "quantized", "nested", "wrapper", "freed")


class Subclass(Tensor):
    """Memory of its own, a type of its own."""


def strange(values: Tensor, kind: str, dtype: str) -> Tensor:
    """These float64 values as a tensor of that kind and dtype."""
    plain = values.to(getattr(torch, dtype))
    if kind == "sliced" and plain.dim():
        plain = plain.repeat_interleave(2, -1)[..., ::2]
    elif kind == "expanded" and plain.dim():
        plain = plain[:1].clone().expand(plain.shape)
    elif kind == "transposed":
        plain = plain.mT.contiguous().mT if plain.dim() > 1 else plain
    elif kind == "last":
        plain = plain.movedim(1, -1).contiguous().movedim(-1, 1) if plain.dim() > 1 else plain
    elif kind == "offset":  # no vector of 16 begins where a vector should
        plain = torch.cat((plain.new_zeros(1), plain.flatten()))[1:].view(plain.shape)
    elif kind == "negated" and plain.dtype.is_floating_point:
        plain = (-plain)._neg_view()
    elif kind == "zero":
        plain = torch._efficientzerotensor(plain.shape, dtype=plain.dtype)
    elif kind == "subclass":
        plain = plain.as_subclass(Subclass)
    elif kind == "inference":
        with torch.inference_mode():
            plain = plain.clone()
    elif kind == "meta":
        plain = plain.to("meta")
    elif kind == "sparse":
        plain = plain.to_sparse()
    elif kind == "quantized":
        plain = torch.quantize_per_tensor(values.float(), 0.1, 0, torch.qint8)
    elif kind == "nested":
        plain = torch.nested.nested_tensor([plain])
    elif kind == "freed":
        plain.untyped_storage().resize_(0)
    elif kind == "wrapper":
        plain = TwoTensor(plain, plain.clone())
    return plain


def written_out(tensor: Tensor) -> Tensor:
    """The same values in float64, with nothing strange about them."""
    dense = tensor.detach().to_dense().clone().as_subclass(Tensor)
    return torch.tensor(dense.double().flatten().tolist(), dtype=torch.float64).view(tensor.shape)


def values_of(example: dict[str, Any]) -> dict[str, Tensor]:
    """float64 values of every tensor that an entrance may take, of the right shape."""
    make = torch.Generator().manual_seed(example["seed"])
    shape = example["shape"]
    channels = shape[1] if len(shape) > 1 else 1

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=make, dtype=torch.float64)

    x = 2 * normal(*shape)
    if example["values"] == "constant":
        x = torch.ones_like(x)
    elif example["values"] != "normal" and x.numel():
        x.view(-1)[:: max(1, x.numel() // 3)] = float(example["values"])
    return {
        "x": x,
        "g": normal(*shape),
        "weight": normal(channels).exp(),
        "bias": normal(channels),
        "gate_weight": normal(channels),
        "gate_bias": normal(channels),
        "location": normal(channels),
        "spread": normal(channels).exp(),
        "center": normal(channels),
        "floor": normal(channels).exp() / 10,
        "mean": 2 * normal(COMPONENTS, channels),
        "var": normal(COMPONENTS, channels).exp(),
        "joint_weight": normal(COMPONENTS, 1).softmax(0),
        "channel_weight": normal(COMPONENTS, channels).softmax(0),
    }


#: What each entrance takes beside x; a question mark: or None. A trailing g: and gives gradients.
ENTRANCES = {
    "train": ("weight?", "bias?", "g"),
    "train gated": ("weight?", "bias?", "gate_weight", "gate_bias", "g"),
    "evaluate": ("location", "spread", "weight?", "bias?", "g"),
    "evaluate gated": ("location", "spread", "weight?", "bias?", "gate_weight", "gate_bias", "g"),
    "operator": ("weight?", "bias?", "g"),
    "operator gated": ("weight?", "bias?", "gate_weight", "gate_bias", "g"),
    "joint": ("weight?", "bias?", "joint_weight", "mean", "var", "center", "g"),
    "per channel": ("weight?", "bias?", "channel_weight", "mean", "var", "center", "g"),
    "joint operator": ("weight?", "bias?", "joint_weight", "mean", "var", "center", "g"),
    "evaluate joint": ("weight?", "bias?", "joint_weight", "mean", "var", "floor", "g"),
    "evaluate per channel": ("weight?", "bias?", "channel_weight", "mean", "var", "floor", "g"),
    "fit joint": ("joint_weight", "mean", "var", "floor"),
    "fit per channel": ("channel_weight", "mean", "var", "floor"),
}
#: What is differentiated.
LEAVES = ("x", "weight", "bias", "gate_weight", "gate_bias")
#: The entrances that do the same as an operator.
EAGER = {
    "operator": "train",
    "operator gated": "train gated",
    "joint operator": "joint",
}
#: Those whose backward pass is ours; the others' is torch's.
FUSED = (*EAGER, *EAGER.values())


def computed(example: dict[str, Any], t: dict[str, Any], operators: bool) -> tuple[Tensor, ...]:
    """The results of an entrance; the first is y."""
    entrance, relu = example["entrance"], example["relu"]
    act, x, affine = ("relu" if relu else None), t["x"], (t.get("weight"), t.get("bias"))
    pair = risk.quadrangle(example["pair"])
    gate = (t["gate_weight"], t["gate_bias"]) if "gated" in entrance else None
    if not operators:
        entrance = EAGER.get(entrance, entrance)
    if entrance.startswith("train"):
        return kernels.normalize(x, *affine, pair.S, pair.D, EPS, act, gate)
    if entrance in ("evaluate", "evaluate gated"):
        return (kernels.normalize_with(x, t["location"], t["spread"], *affine, pair.D, EPS, act, gate),)
    if entrance == "operator":
        return torch.ops.gbn.normalize(x, *affine, None, None, pair.S.text, pair.D.text, EPS, relu)[:3]
    if entrance == "operator gated":
        return torch.ops.gbn.normalize(x, *affine, *gate, pair.S.text, pair.D.text, EPS, relu)[:3]
    mixture = Mixture(t["joint_weight"] if "joint" in entrance else t["channel_weight"], t["mean"], t["var"])
    if entrance.startswith("fit"):
        return tuple(fitted(x, mixture, 2, t["floor"]))
    if entrance.startswith("evaluate"):
        return (normalize_by_mixture(x, mixture, *affine, EPS, t["floor"]),)
    if "operator" in entrance:
        return torch.ops.gbn.mixture_normalize(x, *affine, *mixture, t["center"], EPS, relu)[:2]
    y, moments = normalize_by_batch(x, mixture, *affine, EPS, center=t["center"], act=act)
    return y, moments.weight  # means and variances of a component without samples are anything


def outcome(
    example: dict[str, Any], t: dict[str, Any], differentiated: list[str], operators: bool = True
) -> list[Tensor]:
    """Results and gradients."""
    t = dict(t)
    for name in differentiated:
        t[name] = t[name].detach().requires_grad_()
    hooks = HOOKS[example["hooks"]]
    with torch.autograd.graph.saved_tensors_hooks(*hooks):
        results = computed(example, t, operators)
    gradients: tuple[Any, ...] = ()
    if differentiated:
        gradients = torch.autograd.grad(results[0], [t[name] for name in differentiated], t["g"])
    return [result.detach() for result in (*results, *gradients)]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _short(tensor: Tensor) -> Tensor:
    return tensor[:1] if tensor.dim() else tensor


#: What is done to a saved tensor on its way out of the graph and back.
HOOKS = {
    "none": (_same, _same),
    "contiguous": (lambda tensor: tensor.clone(memory_format=torch.contiguous_format), _same),
    "float64": (lambda tensor: tensor.double(), _same),
    "negated": (lambda tensor: (-tensor)._neg_view() if tensor.is_floating_point() else tensor, _same),
    "short": (_same, _short),
    "meta": (_same, lambda tensor: tensor.to("meta")),
}
#: Those that bring back something else.
SPOILING = ("float64", "short", "meta")


def refusals(example: dict[str, Any]) -> set[type[Exception]]:
    """Kinds of the errors that are right; none: it has to work."""
    kinds: set[type[Exception]] = set()
    shape = example["shape"]
    if len(shape) < 2 or (0 in shape and not example["entrance"].startswith("evaluate")):
        kinds.add(ValueError)
    hows = example["tensors"]
    if all(how["kind"] == "meta" for name, how in hows.items() if name != "g"):
        return {Exception}  # and the result may be on the meta device too
    if example["entrance"].startswith("evaluate") and shape[1:2] == [0]:
        return {Exception}  # torch's BatchNorm looks at the first of no channels
    for name, how in hows.items():
        if how["kind"] == "wrapper":
            return {Exception}
        if name != "g" and (how["kind"] in REFUSED or how["dtype"] not in FLOATING or how["off"]):
            kinds.add(RuntimeError)
    return kinds


def more_refusals(example: dict[str, Any], differentiated: list[str]) -> set[type[Exception]]:
    """Kinds of the errors that are allowed beside: it may work."""
    odd = differentiated and (example["tensors"]["g"]["kind"] == "sparse" or example["hooks"] in SPOILING)
    # the operators are the fused kernels, which take no float64
    wide = "operator" in example["entrance"] and example["tensors"]["x"]["dtype"] == "float64"
    return {RuntimeError} if odd or wide else set()


def verdict(example: dict[str, Any]) -> str | None:
    """What is wrong, or None."""
    hows, tensors = example["tensors"], {}
    kinds = [how["kind"] for how in hows.values()]
    if example["relu"] and "g" in hows and hows["g"]["kind"] == "expanded":
        example = {**example, "relu": False}  # it has no zeros of its own to put where the ReLU bends
    values = values_of(example)
    differentiated = [name for name in example["differentiated"] if name in hows and "g" in hows]
    if "inference" in kinds:
        differentiated = []
    differentiated = [name for name in differentiated if hows[name]["dtype"] in FLOATING]
    right = refusals(example)
    for name, how in hows.items():
        value = values[name]
        if how["off"]:
            value = torch.cat((value, value), -1)[..., : value.shape[-1] + how["off"]]
        if name == "g" and example["relu"] and not right:
            plain = {other: written_out(tensor) for other, tensor in tensors.items()}
            with kernels.using("reference"), torch.no_grad():
                y = computed({**example, "relu": False}, plain, False)[0]
            value = value.masked_fill(y.abs() < KINK, 0.0)
        tensors[name] = strange(value, how["kind"], how["dtype"])
    wanted = None
    if not right:
        plain = {name: written_out(tensor) for name, tensor in tensors.items()}
        with kernels.using("reference"):
            wanted = outcome({**example, "hooks": "none"}, plain, differentiated, operators=False)
    for choice in (
        ("auto",) if example["entrance"] in EAGER or example["hooks"] != "none" else kernels.KERNELS
    ):
        try:
            with kernels.using(choice):
                got = outcome(example, tensors, differentiated)
        except Exception as error:
            if not isinstance(error, tuple(right | more_refusals(example, differentiated))):
                return f"{choice} raised {type(error).__name__}: {error}"
        else:
            if right and Exception not in right:
                return f"{choice} gave a result instead of {' or '.join(kind.__name__ for kind in right)}"
            spoilt = example["hooks"] in SPOILING or example["values"] != "normal"
            problem = None if wanted is None or spoilt else _differs(example, got, wanted)
            if problem is not None:
                return f"{choice}: {problem}"
    return None


def _differs(example: dict[str, Any], got: list[Tensor], wanted: list[Tensor]) -> str | None:
    """Numbers from elsewhere in memory are of another size; how exact kernels are is for other tests to say."""
    half = any(how["dtype"] in ("bfloat16", "float16") for how in example["tensors"].values())
    tolerance = 0.05 if half else 2e-3
    for place, (one, other) in enumerate(zip(got, wanted, strict=True)):
        if one.shape != other.shape:
            return f"result {place} has shape {tuple(one.shape)}, not {tuple(other.shape)}"
        if not other.numel() or not other.isfinite().all():
            continue
        error = float((written_out(one) - other).abs().max() / other.abs().max().clamp_min(1.0))
        if not error <= tolerance:
            return f"result {place} is off by {error:.3g} of its largest value"
    return None


def preconditioned(example: dict[str, Any]) -> str | None:
    """Gradients by the compiled step and by torch's operations, for an input and gradients of a kind."""
    made, found = example["tensors"], []
    shape = example["shape"]
    inputs = shape[1] + made["x"]["off"]
    for choice in kernels.KERNELS:
        make = torch.Generator().manual_seed(example["seed"])
        values = torch.randn(shape, generator=make, dtype=torch.float64)
        with kernels.using(choice):
            torch.manual_seed(0)
            layer = nn.Linear(inputs, 3) if len(shape) == 2 else nn.Conv2d(inputs, 3, 1)
            with BatchNormPreconditioner(layer) as preconditioner:
                outcomes: list[Any] = []
                good = torch.randn(shape[0], inputs, *shape[2:], generator=make)
                for x in (strange(values, made["x"]["kind"], made["x"]["dtype"]), good):
                    try:
                        layer.zero_grad()
                        layer(x).square().sum().backward()
                        for parameter in layer.parameters():
                            assert parameter.grad is not None
                            kind = example["gradients"]
                            parameter.grad = strange(parameter.grad.double(), kind, "float32")
                        preconditioner.precondition()
                        outcomes += [p.grad.clone() for p in layer.parameters() if p.grad is not None]
                    except Exception as error:
                        outcomes.append(RuntimeError if isinstance(error, RuntimeError) else type(error))
                outcomes += [part for pair in preconditioner.moments().values() for part in pair]
            found.append(outcomes)
    ours, torchs = found
    if len(ours) != len(torchs):
        return f"{ours} is not {torchs}"
    # a bias's gradient is a difference of terms of the size of the weight's
    largest = max([1.0, *(float(one.abs().max()) for one in torchs if isinstance(one, Tensor))])
    for one, other in zip(ours, torchs, strict=True):
        both = isinstance(one, Tensor) and isinstance(other, Tensor)
        if not (torch.allclose(one, other, rtol=1e-3, atol=1e-4 * largest) if both else one is other):
            return f"{one} is not {other}"
    return None


def main() -> None:
    """Serve examples until stdin ends."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)  # threads that take another's block would be seen
    print("ready", flush=True)
    for line in sys.stdin:
        example = json.loads(line)
        run = preconditioned if example["entrance"] == "precondition" else verdict
        try:
            answer = run(example)
        except Exception as error:
            answer = f"the test itself fails: {type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
