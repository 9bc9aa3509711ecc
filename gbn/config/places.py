"""Where the configuration lies."""

import os
from pathlib import Path

from gbn.config.errors import ConfigError


def config_dir() -> Path:
    """The folder of YAML groups: GBN_CONF, or `conf/` beside the package (the repository's layout).

    Raises:
        ConfigError: there is no such folder.
    """
    given = os.environ.get("GBN_CONF")
    path = Path(given) if given else Path(__file__).resolve().parents[2] / "conf"
    if not (path / "config.yaml").is_file():
        raise ConfigError(
            f"no configuration at {path}: run from a checkout, or set GBN_CONF to its conf/ folder"
        )
    return path
