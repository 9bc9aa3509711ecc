"""Reads hand-written YAML files: a mapping with unique keys; an error is one line."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from gbn.config.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Rejects duplicate keys, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} appears twice", problem_mark=key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a file.

    Raises:
        ConfigError: it cannot be read, is not YAML, or does not hold a mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: not UTF-8, or an impossible date
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        holds = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"{path} holds {holds}; a mapping is needed, as key: value")
    return content
