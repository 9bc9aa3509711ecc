"""The folders of the configuration, of experiments and of results.

``conf/`` and ``experiments/`` come with the package; those of the working folder come first.
"""

import os
import tempfile
from importlib import resources
from pathlib import Path

from gbn.config.errors import ConfigError


def config_dir() -> Path:
    """Return the folder of ``config.yaml`` and the groups: GBN_CONF, or the package's own ``conf/``.

    Raises:
        ConfigError: there is no such folder.
    """
    path = Path(os.environ.get("GBN_CONF") or packaged("conf")).absolute()
    if not (path / "config.yaml").is_file():
        raise ConfigError(
            f"no configuration at {path}: set GBN_CONF to a folder with a config.yaml, or unset it"
        )
    return path


def config_path() -> tuple[Path, ...]:
    """Return the folders of groups in the order in which they are searched.

    The working folder's ``conf/`` is before :func:`config_dir`, unless GBN_CONF is set.

    Raises:
        ConfigError: as :func:`config_dir`.
    """
    last, own = config_dir(), Path("conf").absolute()
    if os.environ.get("GBN_CONF") or not own.is_dir() or own.samefile(last):
        return (last,)
    return own, last


def find_experiment(given: str) -> str:
    """Return the path of an experiment by its path or name.

    Returns:
        `given` where it is an experiment's folder or sweep.yaml, or where there is none of that name; otherwise the
        folder in the working folder's ``experiments/`` or in the package's.
    """
    path = Path(given)
    if not path.is_file() and not (path / "sweep.yaml").is_file() and given:
        name = Path(*path.parts[path.parts[:1] == ("experiments",) :])
        for folder in (Path("experiments"), packaged("experiments")):
            if (folder / name / "sweep.yaml").is_file():
                return str(folder / name)
    return given


def packaged(name: str) -> Path:
    """Return a folder that comes with the package: inside it where it was installed, beside it in a checkout."""
    inside = Path(str(resources.files("gbn"))) / name
    return inside if inside.is_dir() else inside.parents[1] / name


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
