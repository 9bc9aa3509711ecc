"""Which feature network FID and KID are measured with, known without torch: by its digest.

Numbers of different networks can't be compared, so the digest of the weights stands in the names of the measures and
in the identity of a run.
"""

import json
from pathlib import Path
from typing import Any

from gbn.config.errors import ConfigError
from gbn.config.places import config_dir

__all__ = ["INCEPTION_SHA256", "description", "digest_of", "folder"]

#: Of torch-fidelity's copy of the Inception-V3 weights that FID was defined with (Heusel et al. 2017).
INCEPTION_SHA256 = "6726825d"

_KEYS = (
    *("file", "sha256", "digest", "network", "features", "classes", "image_size"),
    *("mean", "std", "reference"),
)
_RECIPE = "python scripts/train_features.py"


def folder() -> Path:
    """Where the weights lie: ``results/features`` beside the configuration."""
    return config_dir().parent / "results" / "features"


def description(name: str, directory: Path | None = None) -> dict[str, Any]:
    """What the file beside the weights says: file, sha256, digest, network, features, mean, std, reference.

    Args:
        name: of the network.
        directory: where the files lie; None: :func:`folder`.

    Raises:
        ConfigError: no such file, or one that is damaged.
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
    """The 8 hexadecimal digits that name a feature network.

    Raises:
        ConfigError: as :func:`description`.
    """
    return INCEPTION_SHA256 if name == "inception" else str(description(name)["digest"])
