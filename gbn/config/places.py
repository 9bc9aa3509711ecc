"""The folders of the configuration and of results."""

import os
import tempfile
from pathlib import Path

from gbn.config.errors import ConfigError


def config_dir() -> Path:
    """Return the folder of YAML groups: GBN_CONF, or `conf/` beside the package (the repository's layout).

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


def check_results(results_dir: str | Path) -> None:
    """Create the folders of runs, and check that they are writable.

    Raises:
        ConfigError: they are not.
    """
    try:
        for name in ("runs", "sweeps"):
            folder = Path(results_dir) / name
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=folder, prefix="as-long-a-name-as-the-files-of-a-run-have" * 3
            ):
                pass
    except OSError as error:
        raise ConfigError(
            f"results_dir={results_dir} is not a writable folder ({error.strerror}: {error.filename}): give "
            "another, or fix this one"
        ) from None
