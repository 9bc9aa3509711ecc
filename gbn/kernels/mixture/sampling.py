"""Random draws that depend only on a layer's stream and on the number of batches it has seen.

There is no generator, so nothing shifts another stream (dropout's, say). A resumed run draws what the uninterrupted
one does because both numbers are buffers, nothing waits for a GPU, and compilers see plain integer arithmetic.
"""

import torch
from torch import Tensor

__all__ = ["sample", "uniform"]

# Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (OOPSLA 2014): the constants of SplitMix64 as
# signed 64-bit integers.
_STEP = -7046029254386353131
_FIRST = -4658895280553007687
_SECOND = -7723592293110705685


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Return the logical shift to the right; torch's is arithmetic."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def _bits(stream: Tensor, count: Tensor, purpose: int, number: int) -> Tensor:
    """Return (number,) 64-bit integers; stream and count are int64 scalars."""
    step = (purpose * _STEP + 2**63) % 2**64 - 2**63  # a signed 64-bit integer again
    base = _mixed(_mixed(stream + count * _STEP) + step)
    # base + i * _STEP for i = 1, 2, ...; ~n is -(n + 1). Written this way because torch's compiler takes arange times
    # a constant for an index, whose overflow is undefined in its C++: the loop over it was seen not to end.
    return _mixed(base - ~torch.arange(number, device=stream.device) * _STEP)


def uniform(stream: Tensor, count: Tensor, purpose: int, number: int) -> Tensor:
    """Return (number,) float32 in [0, 1)."""
    return _shifted(_bits(stream, count, purpose, number), 40).float() * 2.0**-24


def sample(x: Tensor, most: int, stream: Tensor, count: Tensor) -> Tensor:
    """Return at most ``most`` of a batch's samples: (N, C, *spatial) -> (S, C).

    All of them if there are no more. Otherwise the positions, counted image by image, are cut into ``most`` runs of
    equal length and one is drawn from each, so that no image is left out by chance.
    """
    flat = x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)
    images, channels, places = flat.shape
    total = images * places
    if total <= most:
        return flat.transpose(1, 2).reshape(total, channels)
    within = _shifted(_bits(stream, count, 0, most), 32) % total
    position = (torch.arange(most, device=x.device) * total + within) // most
    return flat[position // places, :, position % places]
