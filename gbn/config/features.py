"""The feature network that FID and KID are measured with, identified by its digest, without torch.

Numbers from different networks can't be compared, so the digest of the weights is part of the measures' names and of
a run's identity.
"""

import json
from pathlib import Path
from typing import Any

from gbn.config.errors import ConfigError
from gbn.config.places import config_dir

__all__ = ["INCEPTION_SHA256", "description", "digest_of", "folder"]

#: The digest of torch-fidelity's copy of the Inception-V3 weights that define FID (Heusel et al. 2017).
INCEPTION_SHA256 = "6726825d"

_KEYS = (
    *("file", "sha256", "digest", "network", "features", "classes", "image_size"),
    *("mean", "std", "reference"),
)
_RECIPE = "gbn study features"


def folder() -> Path:
    """Return the folder of the weights: ``results/features`` beside the configuration."""
    return config_dir().parent / "results" / "features"


def description(name: str, directory: Path | None = None) -> dict[str, Any]:
    """Read the file beside the weights: file, sha256, digest, network, features, mean, std, reference.

    Args:
        name: the network.
        directory: the folder of the files; None means :func:`folder`.

    Raises:
        ConfigError: there is no such file, or it is damaged.
    """
    file = (directory or folder()) / f"{name}.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"task.features={name} has no network: {file} is missing; take it from the checkout, or train one: "
            f"{_RECIPE}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{file} is damaged ({error}): take it from the checkout again") from None
    for key in _KEYS:
        if key not in found:
            raise ConfigError(f"{file} lacks {key!r}: take it from the checkout again")
    return found


def digest_of(name: str) -> str:
    """Return the 8 hexadecimal digits that identify a feature network.

    Raises:
        ConfigError: as :func:`description`.
    """
    return INCEPTION_SHA256 if name == "inception" else str(description(name)["digest"])
