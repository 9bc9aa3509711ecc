"""Stratified parts of a labeled set: the validation split of a seed, and a subset that is the same for all seeds."""

import torch
from torch import Tensor

from gbn.seeding import derive


def split(labels: Tensor, validation: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split off ``validation`` images: return (training indices, validation indices), both sorted.

    Each class contributes its share, to within one image; its images are drawn from the seed's own stream.

    Args:
        labels: int64 (N,).
        validation: number of images to split off, 0 <= validation < N.
        seed: the run's seed.

    Raises:
        ValueError: ``validation`` is out of that range.
    """
    if not 0 <= validation < len(labels):
        raise ValueError(
            f"validation={validation} images cannot be cut from {len(labels)}: "
            f"allowed are 0 to {len(labels) - 1}, so that some are left to train on"
        )
    chosen = _stratified(labels, validation, derive(seed, "split"))
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[chosen] = False
    return rest.nonzero().flatten(), chosen


def subset(labels: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    """Return sorted indices of ``count`` images in the classes' proportions, the same for every seed.

    Images have one fixed random order per class, and the first of each are taken: a larger subset contains a smaller
    one, to within one image per class. With ``among`` (the training part of a split), only those indices are
    candidates.

    Raises:
        ValueError: ``count`` is 0 or more than there are images.
    """
    candidates = torch.arange(len(labels)) if among is None else among
    if not 1 <= count <= len(candidates):
        raise ValueError(f"a subset of {count} images cannot be taken from {len(candidates)}")
    order = torch.empty(len(labels), dtype=torch.int64)
    order[_permutation(len(labels), derive(0, "subset"))] = torch.arange(len(labels))
    ranked = candidates[order[candidates].argsort()]
    taken = [of_class[:share] for of_class, share in _shares(labels[ranked], count)]
    return ranked[torch.cat(taken)].sort().values


def _stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    order = _permutation(len(labels), seed)
    taken = [of_class[:share] for of_class, share in _shares(labels[order], count)]
    return order[torch.cat(taken)].sort().values


def _shares(labels: Tensor, count: int) -> list[tuple[Tensor, int]]:
    """Return per class its positions in ``labels`` and its share of ``count`` (largest remainders)."""
    classes, sizes = labels.unique(return_counts=True)
    # In integers, so that the rounding of a quotient cannot differ between machines.
    whole = [count * int(size) // len(labels) for size in sizes]
    remainders = [count * int(size) % len(labels) for size in sizes]
    by_remainder = sorted(range(len(whole)), key=lambda i: (-remainders[i], i))
    for i in by_remainder[: count - sum(whole)]:
        whole[i] += 1
    return [((labels == label).nonzero().flatten(), n) for label, n in zip(classes, whole, strict=True)]


def _permutation(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))
