"""Which function a layer's parameters and running statistics belong to, kept in the state dict beside them.

BatchNorm's keys say nothing about that, and another layer of this package has the same ones. So each layer names its
:class:`Function`, and unless that is BatchNorm's the state dict has one key more, ``_extra_state`` (torch's own name
for such), whose value is JSON text as a tensor of uint8: it comes through safetensors, plain dicts and casts. A state
dict without it is BatchNorm's, and loads into BatchNorm.

What changes no value is no part of it (the ways of a gradient), nor is what BatchNorm leaves to the network's
definition as well (eps, the activation). A gate has keys of its own.
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
# Names of running averages: BatchNorm's, and those of the other pairs.
_STATISTICS = ("running_mean", "running_var"), ("running_statistic", "running_deviation")


@dataclasses.dataclass(frozen=True)
class Function:
    """``weight * (gain * (x - S) / D + offset) + bias``.

    Attributes:
        pair: the name of (S, D) that stands for their values, :attr:`gbn.nn.pairs.Pair.value_name`.
        gain, offset: fixed numbers of the layer; a gain of None is not known.
    """

    pair: str
    gain: float | None = 1.0
    offset: float = 0.0

    def agrees(self, other: Function) -> bool:
        """Whether the same parameters make the same function (to the digits that k and c have)."""
        if self.pair != other.pair or self.gain is None or other.gain is None:
            return False
        numbers = (self.gain, other.gain), (self.offset, other.offset)
        return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6) for a, b in numbers)

    @property
    def pair_text(self) -> str:
        """``(S, D)``."""
        return f"({self.pair.replace('/', ', ')})"

    def __str__(self) -> str:
        if self.gain is None:
            return self.pair_text
        offset = f" {self.offset:+.4g}" if self.offset else ""
        return f"{self.gain:.4g} (x - S) / D{offset} with (S, D) = {self.pair_text}"


BATCHNORM = Function("mean/std")


def save_function(function: Function, state_dict: MutableMapping[str, Any], prefix: str) -> None:
    """Write down whose numbers these are, unless they are BatchNorm's."""
    if not function.agrees(BATCHNORM):
        text = json.dumps(dataclasses.asdict(function), sort_keys=True)
        # On the CPU whatever the default: these are no numbers of the network.
        state_dict[prefix + _KEY] = torch.tensor(list(text.encode()), dtype=torch.uint8, device="cpu")


def adopt(
    layer: Any, state_dict: MutableMapping[str, Any], prefix: str, local_metadata: Mapping[str, Any]
) -> None:
    """Prepare a state dict for ``layer``, a :class:`gbn.nn.base.BatchStatisticsNorm`, and say what does not fit.

    Running averages of another pair are replaced by the layer's own; parameters stay. Each difference is a warning of
    one line, since taking gain and bias over to another pair is a thing to want.
    """
    if layer._buffer_names not in _STATISTICS or not any(key.startswith(prefix) for key in state_dict):
        return  # a layer with another kind of state knows itself what to do; and there may be nothing to load
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
    """What to say of a checkpoint that is loaded whole; None where it is this very function's."""
    if theirs is None:
        if ours.agrees(
            BATCHNORM
        ):  # nothing but gain and bias there, as BatchNorm's without running statistics
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
    """Whose numbers a state dict holds, taking its entry out; None where it does not say.

    State dicts of gbn before this key have the pair in torch's metadata, which torch.save keeps and a plain dict or
    safetensors do not; whether it was rescaled they never say.
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
        # a cast of all tensors to a half precision leaves these as they are: each is a whole number below 128
        values = json.loads(bytes(entry.detach().to("cpu", torch.uint8).tolist()).decode())
        return Function(str(values["pair"]), float(values["gain"]), float(values["offset"]))
    except (ValueError, KeyError, TypeError):  # not ours, or averaged with another's
        return None
