"""The timed modules, in training mode: BatchNorm with ReLU, and the layers of this package."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gbn import kernels
from gbn.kernels import mixture
from gbn.nn import GeneralizedBatchNorm2d, InstanceEnhancementBatchNorm2d, MixtureNorm2d

from .cases import Case, gated, is_mixture, mixture_options, pair_of, pair_options, ungated
from .names import COMPILED, REFERENCE
from .timing import Step


@dataclass(frozen=True)
class Provider:
    """One way to normalize; ``pair`` and ``choice`` (of kernels) are empty for BatchNorm."""

    name: str
    pair: str = ""
    choice: str = ""

    @property
    def ours(self) -> bool:
        """True if it is a layer of this package."""
        return bool(self.pair)

    def build(self, case: Case, device: torch.device) -> nn.Module:
        """Return the layer for a case, in training mode."""
        channels = case.shape[1]
        if is_mixture(self.pair):
            return MixtureNorm2d(channels, act="relu", device=device, **mixture_options(self.pair))
        if self.ours:
            kind = InstanceEnhancementBatchNorm2d if gated(self.pair) else GeneralizedBatchNorm2d
            return kind(channels, act="relu", device=device, **pair_options(ungated(self.pair)))
        module = nn.Sequential(nn.BatchNorm2d(channels, device=device), nn.ReLU(inplace=True))
        if self.name == COMPILED:
            # Compiled code belongs to the module's class: after eight shapes torch would silently run it eagerly.
            torch.compiler.reset()
            return cast(nn.Module, torch.compile(module, dynamic=False))
        return module

    def implementation(self, x: Tensor) -> str:
        """Return the implementation that actually computes it."""
        if not self.ours:
            return "inductor" if self.name == COMPILED else "torch"
        if is_mixture(self.pair):
            with kernels.using(self.choice):
                options = mixture_options(self.pair)
                return mixture.implementation(x, options["components"], options["mixture"] == "joint")
        pair = pair_of(self.pair)
        with kernels.using(self.choice):
            return kernels.implementation(x, pair.statistic, pair.deviation)

    def within(self) -> Any:
        """Return the context that its steps run in."""
        return kernels.using(self.choice) if self.ours else nullcontext()


def providers_of(pairs: list[str], choices: list[str], compiled: bool) -> list[Provider]:
    """Return BatchNorm first, then each pair with each choice of kernels."""
    found = [Provider(REFERENCE)] + ([Provider(COMPILED)] if compiled else [])
    for pair in pairs:
        found += [
            Provider(pair if choice == "auto" else f"{pair} {choice}", pair, choice) for choice in choices
        ]
    return found


def step_of(provider: Provider, module: nn.Module, sets: list[tuple[Tensor, Tensor]]) -> Step:
    """Return the step: forward and backward on one of the input sets, with new gradients each time."""

    def prepare(round_: int) -> None:
        sets[round_ % len(sets)][0].grad = None
        for parameter in module.parameters():
            parameter.grad = None

    def run(round_: int) -> None:
        x, g = sets[round_ % len(sets)]
        module(x).backward(g)

    return Step(run, prepare, provider.within)


def kept_bytes(module: nn.Module, x: Tensor) -> int:
    """Return the bytes kept between forward and backward for this layer: distinct storages, input included.

    Parameters and buffers are not counted; what a kernel keeps besides saved tensors (attributes of its
    autograd context) is.
    """
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        y = module(x)
    extra = 0
    for node in _nodes(y.grad_fn):
        for value in vars(node).values() if hasattr(node, "__dict__") else ():
            for part in value if isinstance(value, tuple | list) else (value,):
                if isinstance(part, Tensor):
                    count(part)
                elif isinstance(part, np.ndarray) and part.ctypes.data not in kept:
                    extra += part.nbytes
                elif isinstance(part, bytes | bytearray):
                    extra += len(part)
    return sum(kept.values()) + extra


def _nodes(root: Any) -> Iterator[Any]:
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        pending += [following for following, _ in node.next_functions]


def started(
    rows: Mapping[str, dict[str, Any]], start: Callable[[str], tuple[Any, list[float]]]
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Start the arm of each row.

    Args:
        rows: by arm; a row gets the arm's first losses, or says why it did not start.
        start: makes an arm by its name; returns it and its first losses.

    Returns:
        The arms that started, and their first losses.
    """
    arms, losses = {}, {}
    for name, row in rows.items():
        made, error = attempt(partial(start, name))
        if error:
            row["status"] = f"error: {error}"
        else:
            arms[name], losses[name] = made
            row["first_losses"] = " ".join(f"{value:.6g}" for value in losses[name])
    return arms, losses


def attempt(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return (result, "") or (None, the error in one line), so that one provider's failure stops no other."""
    try:
        return call(), ""
    except Exception as error:
        text = " ".join(str(error).split())
        return None, f"{type(error).__name__}: {text[:300]}"
