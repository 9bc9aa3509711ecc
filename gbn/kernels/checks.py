"""Checks of every tensor that enters the kernels, before anything reads its memory.

Compiled code takes sizes and addresses on trust, so everything that a caller can pass is checked here first:

* what it is: shape, dtype, device and layout (:func:`check_batch`). Errors are of the same types as BatchNorm's,
  ValueError for a batch of the wrong shape and RuntimeError for the rest, and the same whichever kernel serves;
* whether its values are stored in memory as they are (:func:`in_memory`). Those of a negated view and of a zero
  tensor are once they have been copied (:func:`arranged`). Those of a tensor without data or of a wrapper subclass
  are not: even eager code uses the operators for them, because those go through torch's dispatcher, which unwraps
  or raises.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from gbn.risk.order import traced

__all__ = [
    "arranged",
    "check_batch",
    "check_cotangent",
    "check_device",
    "check_not_empty",
    "check_shape",
    "check_vectors",
    "in_memory",
    "kept",
    "kept_numbers",
    "readable",
]

# Looked up in torch at each call these would cost as much as the comparison itself.
_FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_STRIDED = torch.strided
_NAMES = ", ".join(str(dtype) for dtype in _FLOATING)


def check_batch(x: Tensor, **vectors: Tensor | None) -> None:
    """Raise unless x is a batch and the vectors, by name, have one number per channel.

    Args:
        x: ``(N, C, *spatial)``, floating point, strided; may be empty.
        vectors: ``(C,)``, floating point, strided, on the device of x; or None.

    Raises:
        ValueError: x has no channel dimension.
        RuntimeError: anything else is wrong.
    """
    if x.dtype not in _FLOATING or x.layout is not _STRIDED:
        raise RuntimeError(
            f"the input has dtype {x.dtype} and layout {x.layout}: it must be strided, of {_NAMES}"
        )
    if x.dim() < 2:
        raise ValueError(f"expected an input (N, C, *spatial), got {x.dim()}D {tuple(x.shape)}")
    check_vectors(x, **vectors)


def check_vectors(x: Tensor, **vectors: Tensor | None) -> None:
    """Do the part of :func:`check_batch` that concerns the vectors."""
    if torch.jit.is_tracing():
        # sizes are tensors under jit.trace, and no compiled code runs: layers refuse tracing in training
        return
    shape, device = (x.shape[1],), x.device
    for name, value in vectors.items():
        if value is not None and not (
            value.shape == shape
            and value.dtype in _FLOATING
            and value.device == device
            and value.layout is _STRIDED
        ):
            _refuse(name, value, shape, x)


def check_shape(x: Tensor, name: str, value: Tensor, *shapes: tuple[int, ...]) -> None:
    """Raise RuntimeError unless the value has one of the shapes and otherwise meets :func:`check_batch`."""
    if (
        all(value.shape != shape for shape in shapes)
        or value.dtype not in _FLOATING
        or value.device != x.device
        or value.layout is not _STRIDED
    ):
        _refuse(name, value, shapes[0], x)


def _refuse(name: str, value: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    if value.device != x.device:
        raise RuntimeError(
            f"{name} is on {value.device}, the input on {x.device}: move one of them, with .to({str(x.device)!r})"
        )
    if value.dtype not in _FLOATING or value.layout is not _STRIDED:
        raise RuntimeError(
            f"{name} has dtype {value.dtype} and layout {value.layout}: it must be strided, of {_NAMES}"
        )
    raise RuntimeError(
        f"{name} should have shape {shape} for an input {tuple(x.shape)}, got {tuple(value.shape)}"
    )


def check_not_empty(x: Tensor) -> None:
    """Raise ValueError for a batch without values: it has no statistics."""
    if x.numel() == 0:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.size()}")


def check_device(x: Tensor, *tensors: Tensor | None) -> None:
    """Raise RuntimeError unless all are on the device of x: one meta tensor would make the whole result meta."""
    for tensor in tensors:
        if tensor is not None and tensor.device != x.device:
            raise RuntimeError(
                f"all tensors have to be on one device: got one on {tensor.device} and the input on {x.device}; move "
                f"one of them, with .to({str(x.device)!r})"
            )


def in_memory(*tensors: Tensor | None) -> bool:
    """Return whether compiled code may read these tensors (none of them empty) at the addresses that they report."""
    try:
        for tensor in tensors:
            if tensor is not None and (tensor.is_neg() or tensor.data_ptr() == 0):
                return False
    except RuntimeError:  # no storage at all, as functorch's tensors
        return False
    return True


def arranged(x: Tensor, *vectors: Tensor | None) -> tuple[tuple[Any, ...], bool]:
    """Return the tensors with lazy signs and zeros materialized, and whether they need the operators (the
    dispatcher).

    Raises:
        NotImplementedError: they need the operators and carry forward-mode tangents, which the operators would drop.
    """
    tensors: tuple[Any, ...] = x, *vectors
    by_operator = traced(x)
    if not by_operator and in_memory(*tensors):
        return tensors, False
    if torch.compiler.is_compiling():
        return tensors, True
    tensors = tuple(None if tensor is None else _written_out(tensor) for tensor in tensors)
    # An autograd.Function refuses functorch transforms; the operators would silently follow only some of them.
    if torch._C._are_functorch_transforms_active() or (not by_operator and in_memory(*tensors)):
        return tensors, False
    if any(unpack_dual(tensor).tangent is not None for tensor in tensors if tensor is not None):
        raise NotImplementedError(
            "gbn's normalization has no forward-mode derivative (jvp); use BatchNorm there"
        )
    return tensors, True


def _written_out(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_neg() or tensor._is_zerotensor() else tensor


def readable(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Return the tensors with lazy signs and zeros materialized.

    Raises:
        RuntimeError: a tensor has no values in memory.
    """
    if in_memory(*tensors):
        return tensors
    tensors = tuple(None if tensor is None else _written_out(tensor) for tensor in tensors)
    if in_memory(*tensors):
        return tensors
    kinds = ", ".join(type(tensor).__name__ for tensor in tensors if tensor is not None)
    raise RuntimeError(
        f"one of these tensors ({kinds}) has no memory that compiled kernels could read (its storage was freed, or "
        "it wraps another tensor): pass a plain one, or use GBN_KERNELS=reference"
    )


def check_cotangent(g: Tensor, x: Tensor) -> None:
    """Raise RuntimeError unless g is a valid cotangent of a result like x.

    Autograd has already matched its shape, dtype and device to the result; a direct caller of an operator has not.
    """
    if g.shape != x.shape or g.device != x.device or g.layout is not _STRIDED:
        raise RuntimeError(
            f"the gradient of the result should be strided, {tuple(x.shape)} on {x.device} as the input is, got "
            f"{g.layout}, {tuple(g.shape)} on {g.device}"
        )


def kept(value: Tensor, shape: tuple[int, ...], x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return numbers that a forward pass on x saved for the backward pass.

    Hooks on saved tensors may have replaced them, and anyone may call an operator directly.

    Raises:
        RuntimeError: their shape is wrong, or they are on another device than x.
    """
    if value.shape != shape or value.device != x.device:
        raise RuntimeError(
            f"what the forward pass saved should come back as {shape} on {x.device}, got {tuple(value.shape)} on "
            f"{value.device}: hooks on saved tensors must bring back what they were given"
        )
    return value if value.dtype is dtype else value.to(dtype)


def kept_numbers(value: Tensor | None, least: int, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Do the same for numbers whose order only the kernels know: contiguous, and at least as many as they read."""
    if value is None or value.numel() < least or value.device != x.device:
        given = "nothing" if value is None else f"{value.numel()} on {value.device}"
        raise RuntimeError(
            f"what the forward pass saved should come back as {least} numbers on {x.device}, got {given}: hooks on "
            "saved tensors must bring back what they were given"
        )
    return value.to(dtype).contiguous()
