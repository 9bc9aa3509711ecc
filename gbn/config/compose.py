"""From overrides to a checked configuration.

Hydra composes; this module makes it strict and its errors one line: overrides are checked against the groups on disk
before Hydra sees them, and the composed values against the schema before torch is imported.
"""

import copy
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from gbn.config.errors import ConfigError, unknown
from gbn.config.messages import explain, one_line
from gbn.config.overrides import groups, rewrite
from gbn.config.places import config_path
from gbn.config.schema import Config
from gbn.methods import METHODS


def compose(overrides: Sequence[str] = ()) -> Config:
    """Compose and check the configuration of one run.

    Args:
        overrides: in Hydra's grammar, without sweeps: ``["norm=gbn_cvar", "norm.alpha=0.6", "seed=3"]``.

    Raises:
        ConfigError: one line saying what is wrong, what is allowed, and what was probably meant.
    """
    choices: list[Override] = []
    values: list[Override] = []
    for one in rewrite(overrides):
        if one.is_sweep_override():
            raise ConfigError(f"{one.key_or_group} has several values, a run has one: a sweep needs -m")
        # A value, ++a.b=c, changes a choice afterward; everything else is part of the choice.
        (values if one.is_force_add() and one.key_or_group not in groups() else choices).append(one)
    try:
        composed = copy.deepcopy(_chosen(config_path(), tuple(str(one.input_line) for one in choices)))
        for one in values:
            # Equivalent to Hydra's composition, which reads all files again for every run of a grid.
            OmegaConf.update(composed, one.key_or_group, one.value(), merge=True, force_add=True)
    except Exception as error:  # Hydra raises whatever its Python does
        raise ConfigError(one_line(error)) from error
    return resolve(composed)


@functools.lru_cache(maxsize=64)
def _chosen(folders: tuple[Path, ...], choices: tuple[str, ...]) -> DictConfig:
    """Return the configuration of one choice per group, before single values are set."""
    GlobalHydra.instance().clear()
    search_working_folder()
    with initialize_config_dir(str(folders[-1]), version_base="1.3"):
        return hydra_compose("config", overrides=list(choices))


class _WorkingFolder(SearchPathPlugin):
    """Lets Hydra search the working folder's ``conf/`` before the package's."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in config_path()[:-1]:
            search_path.prepend("gbn", f"file://{folder}", anchor="main")


def search_working_folder() -> None:
    """Let Hydra search all of :func:`gbn.config.places.config_path`."""
    Plugins.instance().register(_WorkingFolder)


def resolve(composed: DictConfig | Mapping[str, Any]) -> Config:
    """Check a composed configuration (from Hydra, or stored with a run).

    Raises:
        ConfigError: see :func:`compose`.
    """
    if isinstance(composed, DictConfig):
        try:
            plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise ConfigError(one_line(error)) from error
    else:
        plain = dict(composed)
    assert isinstance(plain, dict)
    plain = {key: value for key, value in plain.items() if key != "hydra"}
    if isinstance(plain.get("norm"), dict):
        plain["norm"] = _with_pair(plain["norm"])
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(explain(error, plain, Config)) from error


def _with_pair(norm: dict[str, Any]) -> dict[str, Any]:
    """Fill in, for a control, the options of the norm that it is matched to."""
    name, row = norm.get("matched_to"), METHODS.get(str(norm.get("method")))
    if not isinstance(name, str) or row is None or not row.control_of:
        return norm
    files = {
        file.stem: file for folder in reversed(config_path()) for file in (folder / "norm").glob("*.yaml")
    }
    pair = _read(files[name]) if name in files else {}
    if pair.get("method") not in row.control_of:
        allowed = [stem for stem, file in files.items() if _read(file).get("method") in row.control_of]
        raise unknown("norm.matched_to", name, allowed)
    left_out = ("name", "method", "revision", "defaults")
    return {**{key: value for key, value in pair.items() if key not in left_out}, **norm}


def _read(file: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))
