"""Data sets from other packages; see :mod:`gbn.targets` for how they are named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from gbn.data.files import data_root
from gbn.data.image_set import DataError, ImageSet, check_parts
from gbn.targets import DATASET, check_options, resolve

__all__ = ["load_custom"]


def load_custom(
    target: str | Callable[..., ImageSet],
    kwargs: Mapping[str, Any] | None = None,
    root: str | PathLike[str] | None = None,
    download: bool = True,
) -> ImageSet:
    """Return ``target(**kwargs)``, checked.

    Args:
        target: a function that returns an :class:`ImageSet`, or its name.
        kwargs: the loader's own options.
        root, download: as in :func:`gbn.data.load`; passed if the loader has such arguments.

    Raises:
        ValueError: the target cannot be loaded, does not take one of the options, or returns something else.
        DataError: the set is not what an :class:`ImageSet` must be, or the loader raises it.
    """
    build = resolve(DATASET, target)
    own = dict(kwargs or {})
    ours = {"root": data_root(root), "download": download}
    taken = check_options(target, build, own, ours)
    loaded = build(**{name: ours[name] for name in taken}, **own)
    if not isinstance(loaded, ImageSet):
        raise ValueError(
            f"target {target!r} returned a {type(loaded).__name__}, not a gbn.data.ImageSet: "
            "gbn.data.image_set makes one of images and labels"
        )
    train, test = (loaded.train_images, loaded.train_labels), (loaded.test_images, loaded.test_labels)
    check_parts(loaded.name, train, test, loaded.classes)
    if not isinstance(loaded.digest, str) or not loaded.digest:
        raise DataError(
            f"{loaded.name}: the digest is {loaded.digest!r}; needed: text that identifies the bytes of the set, "
            "for example their SHA-256"
        )
    return loaded
