"""Support for activation checkpointing, ``torch.utils.checkpoint``, whose backward pass repeats the forward pass.

The second pass must return what the first one returned, whatever state the first one changed. So a forward pass
within a backward pass changes no running average and no count (torch's BatchNorm averages such a batch twice), and
values that a layer computes from the batch and its state together are taken from :class:`FirstPasses`. Compiled code
cannot tell the two passes apart: if ``checkpoint`` is outside the compiled code, compiled running averages other than
the mixture's include the batch twice, like BatchNorm's. If ``checkpoint`` is compiled too, no buffer update repeats.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

__all__ = ["FirstPasses", "in_backward"]

#: Number of first passes that a layer remembers: micro-batches and uses of the layer between two backward passes.
_MOST = 32
#: Number of values that identify an input, and their stride as a fraction of it; the golden ratio spreads them.
_PLACES, _STEP = 256, 0.6180339887498949


def in_backward() -> bool:
    """Return whether a backward pass is running, so that a forward pass within it is a recomputation."""
    return not torch.compiler.is_compiling() and _runs_backward()


def _runs_backward() -> bool:
    return torch._C._current_graph_task_id() != -1  # the test that torch.utils.checkpoint uses


def _replaces_saved() -> bool:
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


class _Pass(NamedTuple):
    shape: torch.Size
    mark: Tensor
    parts: tuple[Tensor, ...]


class FirstPasses:
    """Values that a layer's last forward passes computed from their batch and from a state that has since changed.

    A pass is identified by its input: some of its values, to half their digits, since the operations before the layer
    need not be deterministic. No operation synchronizes with a GPU. Copies and pickles remember no pass.

    Attributes:
        began: whether there has been a first pass.
    """

    def __init__(self, began: bool = False) -> None:
        self.began = began
        self._passes: deque[_Pass] = deque(maxlen=_MOST)
        self.key = next(_keys)
        _known[self.key] = self

    def __call__(
        self, x: Tensor, *parts: Tensor, seen: bool = True
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return ``parts`` in a first pass, and in a recomputation the parts of the first pass with this ``x``.

        Args:
            x: the layer's input.
            parts: the values just computed; returned unchanged if no first pass is known.
            seen: whether this pass may be recomputed.

        Returns:
            the parts, and in compiled code an int64 scalar that is 1 in a first pass and 0 in a recomputation.
        """
        if (
            torch.compiler.is_compiling()
        ):  # a checkpoint may be around this graph, in it, or absent: we cannot tell
            *found, first = _operator(x.detach(), list(parts), self.key, seen)
            return tuple(found), first
        # The first pass of a reentrant checkpoint records no gradient; a non-reentrant one replaces saved tensors.
        return self.settle(x, parts, seen and (not torch.is_grad_enabled() or _replaces_saved())), None

    def settle(self, x: Tensor, parts: tuple[Tensor, ...], seen: bool) -> tuple[Tensor, ...]:
        """Return the parts as in ``__call__``, and remember them if this is a first pass and ``seen`` is True."""
        again = _runs_backward()
        self.began = self.began or not again
        if not (again or seen):
            return parts
        with torch.no_grad():
            mark = _mark(x)
            if again:
                return self._found(x, mark, parts)
            self._passes.appendleft(_Pass(x.shape, mark, tuple(part.clone() for part in parts)))
        return parts

    def _found(self, x: Tensor, mark: Tensor, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        alike = [
            one
            for one in self._passes
            if (one.shape, one.mark.dtype, one.mark.device) == (x.shape, mark.dtype, mark.device)
        ]
        if not alike:
            return parts
        apart = (torch.stack([one.mark for one in alike]) - mark).abs().amax(1)
        nearest = apart.argmin()  # among equals the first, which is the most recent pass
        known = apart[nearest] <= torch.finfo(x.dtype).eps ** 0.5 * mark.abs().amax()
        return tuple(
            torch.where(known, torch.stack(kept)[nearest], part)
            for part, *kept in zip(parts, *(one.parts for one in alike), strict=True)
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> FirstPasses:
        return FirstPasses(self.began)

    def __reduce__(self) -> tuple[Any, ...]:
        return FirstPasses, (self.began,)


_keys = itertools.count()
_known: WeakValueDictionary[int, FirstPasses] = WeakValueDictionary()


def _mark(x: Tensor) -> Tensor:
    """Return some of the input's values, (_PLACES,), in at least float32."""
    return x.detach()[_places(x.shape, x.device)].to(torch.promote_types(x.dtype, torch.float32))


@functools.lru_cache(maxsize=64)
def _places(shape: torch.Size, device: torch.device) -> tuple[Tensor, ...]:
    count = shape.numel()
    places = torch.arange(_PLACES, device=device) * max(1, int(_STEP * count)) % count
    return torch.unravel_index(places, shape)


@torch.library.custom_op("gbn::first_pass", mutates_args=())
def _operator(x: Tensor, parts: list[Tensor], key: int, seen: bool) -> list[Tensor]:
    passes = _known.get(key)  # None if another process made this graph
    found = tuple(parts) if passes is None else passes.settle(x, tuple(parts), seen)
    first = torch.full((), not _runs_backward(), dtype=torch.int64, device=x.device)
    return [*(part.clone() for part in found), first]  # a result must not share memory with an argument


@_operator.register_fake
def _(x: Tensor, parts: list[Tensor], key: int, seen: bool) -> list[Tensor]:
    return [*(torch.empty_like(part) for part in parts), x.new_empty((), dtype=torch.int64)]
