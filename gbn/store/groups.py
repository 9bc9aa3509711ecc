"""Groups of runs that differ only in the seed: means, medians and bands are computed over a group."""

from collections.abc import Mapping
from typing import Any

from gbn.store.identity import digest, run_id_of


def group_of(kept: Mapping[str, Any]) -> str:
    """Return the name shared by the runs of one arm in one setting: ``cifar10-cnn-gbn_cvar-1a2b3c4d5e``.

    Args:
        kept: a run's identity (:func:`gbn.store.identity.identity`).

    Returns:
        The readable part of the run id and the hash of the identity without its seed.

    Raises:
        ValueError: the identity lacks the data set, the model, the norm or the seed.
    """
    slug = run_id_of(kept).rsplit("-", 2)[0]
    return f"{slug}-{digest({key: part for key, part in kept.items() if key != 'seed'})}"
