"""Record in the state dict which function a layer's parameters and running statistics belong to.

BatchNorm's keys do not tell, and other layers of this package use the same keys. So each layer has a
:class:`Function`, and unless it is BatchNorm's, the state dict has one extra key, ``_extra_state`` (torch's own name
for such entries). Its value is JSON text stored as a uint8 tensor, which survives safetensors, plain dicts and casts.
A state dict without it is BatchNorm's, and loads into BatchNorm.

Options that change no value (how gradients are computed) are not recorded, nor is what BatchNorm also leaves to the
network's definition (eps, the activation). A gate has keys of its own.
"""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["BATCHNORM", "Function", "adopt", "save_function"]

_KEY = "_extra_state"
# Names of the running averages: BatchNorm's, and those of all other pairs.
_STATISTICS = ("running_mean", "running_var"), ("running_statistic", "running_deviation")


@dataclasses.dataclass(frozen=True)
class Function:
    """``weight * (gain * (x - S) / D + offset) + bias``.

    Attributes:
        pair: the name that identifies the values of (S, D), :attr:`gbn.nn.pairs.Pair.value_name`.
        gain, offset: constants of the layer; a gain of None means unknown.
    """

    pair: str
    gain: float | None = 1.0
    offset: float = 0.0

    def agrees(self, other: Function) -> bool:
        """Return whether equal parameters give equal functions (up to the precision of k and c)."""
        if self.pair != other.pair or self.gain is None or other.gain is None:
            return False
        numbers = (self.gain, other.gain), (self.offset, other.offset)
        return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6) for a, b in numbers)

    @property
    def pair_text(self) -> str:
        """The pair as text, ``(S, D)``."""
        return f"({self.pair.replace('/', ', ')})"

    def __str__(self) -> str:
        if self.gain is None:
            return self.pair_text
        offset = f" {self.offset:+.4g}" if self.offset else ""
        return f"{self.gain:.4g} (x - S) / D{offset} with (S, D) = {self.pair_text}"


BATCHNORM = Function("mean/std")


def save_function(function: Function, state_dict: MutableMapping[str, Any], prefix: str) -> None:
    """Record the function in the state dict, unless it is BatchNorm's."""
    if not function.agrees(BATCHNORM):
        text = json.dumps(dataclasses.asdict(function), sort_keys=True)
        # On the CPU whatever the default device: this is metadata.
        state_dict[prefix + _KEY] = torch.tensor(list(text.encode()), dtype=torch.uint8, device="cpu")


def adopt(
    layer: Any, state_dict: MutableMapping[str, Any], prefix: str, local_metadata: Mapping[str, Any]
) -> None:
    """Prepare a state dict for ``layer``, a :class:`gbn.nn.base.BatchStatisticsNorm`, and warn of what does not fit.

    Running averages of another pair are replaced by the layer's own; parameters are kept. Each difference is a
    one-line warning rather than an error, since transferring gain and bias to another pair is legitimate.
    """
    if layer._buffer_names not in _STATISTICS or not any(key.startswith(prefix) for key in state_dict):
        return  # a layer with another kind of state handles this itself; and there may be nothing to load
    ours, theirs = layer.function, _loaded_function(state_dict, prefix, local_metadata)
    there = [names for names in _STATISTICS if any(prefix + name in state_dict for name in names)]
    other = theirs is not None and theirs.pair != ours.pair
    if layer.track_running_stats and there and (other or there != [layer._buffer_names]):
        for name in (*_STATISTICS[0], *_STATISTICS[1], "num_batches_tracked"):
            state_dict.pop(prefix + name, None)
        for name in (*layer._buffer_names, "num_batches_tracked"):
            state_dict[prefix + name] = getattr(layer, name).clone()
        problem: str | None = (
            f"is {ours.pair_text}, its checkpoint holds running statistics of "
            f"{'another pair' if theirs is None else _origin(theirs)}: gain and bias are loaded, running statistics "
            "are not and need calibration (gbn.nn.precise_statistics, or training) before evaluation mode"
        )
    else:
        problem = _difference(ours, theirs)
    if problem is not None:
        where = f"layer {prefix[:-1]!r}" if prefix else "this layer"
        warnings.warn(f"{where} {problem}", stacklevel=3)


def _difference(ours: Function, theirs: Function | None) -> str | None:
    """Return the warning for a checkpoint that is loaded completely, or None if the functions agree."""
    if theirs is None:
        if ours.agrees(BATCHNORM):  # gain and bias only, as in BatchNorm's without running statistics
            return None
        return (
            f"computes {ours}, and its checkpoint does not say what it was trained for: it is loaded as it is, and "
            "right if it was saved by such a layer"
        )
    if ours.agrees(theirs):
        return None
    if theirs.pair == ours.pair and theirs.gain is None:
        return (
            f"computes {ours}, and its checkpoint, an earlier version's, does not say whether D was rescaled: it is "
            "loaded as it is, and right if `rescaled` was the same"
        )
    return (
        f"computes {ours}, its checkpoint was trained for {_origin(theirs)}: gain and bias are loaded as they are "
        "and make another function: build the layer as the checkpoint's was, or train on"
    )


def _origin(theirs: Function) -> str:
    if theirs == BATCHNORM:
        return "mean and variance (BatchNorm, or a control of an earlier version, which did not say)"
    return str(theirs)


def _loaded_function(
    state_dict: MutableMapping[str, Any], prefix: str, local_metadata: Mapping[str, Any]
) -> Function | None:
    """Return the function of a state dict and remove its entry; None if it is not recorded.

    Earlier versions of gbn recorded the pair in torch's metadata, which torch.save keeps but a plain dict and
    safetensors do not; they never recorded whether it was rescaled.
    """
    found = _decoded(state_dict.pop(prefix + _KEY, None))
    if found is not None:
        return found
    if "pair" in local_metadata:
        pair = str(local_metadata["pair"])
        return BATCHNORM if pair == BATCHNORM.pair else Function(pair, gain=None)
    if any(prefix + name in state_dict for name in _STATISTICS[0]):
        return BATCHNORM
    return None


def _decoded(entry: Any) -> Function | None:
    if not isinstance(entry, Tensor) or entry.is_meta:
        return None
    try:
        # casting all tensors to half precision does not change these: each is an integer below 128
        values = json.loads(bytes(entry.detach().to("cpu", torch.uint8).tolist()).decode())
        return Function(str(values["pair"]), float(values["gain"]), float(values["offset"]))
    except (ValueError, KeyError, TypeError):  # not ours, or averaged with another's
        return None
