"""Batches that are too small for a layer's statistics."""

from __future__ import annotations

__all__ = ["OneValue", "TooFewValues", "is_one_value"]


class TooFewValues(ValueError):
    """A layer in training got a batch with too few values per channel for its statistics."""


class OneValue(TooFewValues):
    """A layer got one value per channel, which has no spread. torch's own layers raise a plain ValueError instead."""


def is_one_value(error: BaseException) -> bool:
    """Return whether a layer, ours or torch's, raised this because its batch had one value per channel.

    torch's error has no class of its own, and its wording is not specific enough, so we identify it by the function
    that raised it: the check that every batch normalization layer of torch runs in training.
    """
    if isinstance(error, OneValue):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not isinstance(error, ValueError):
        return False
    frame = trace.tb_frame
    return (frame.f_globals.get("__name__"), frame.f_code.co_name) == (
        "torch.nn.functional",
        "_verify_batch_size",
    )
