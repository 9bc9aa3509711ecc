"""The runs of a sweep: every combination of its overrides' values, all checked before the first is trained."""

import itertools
import math
from collections.abc import Sequence

from gbn.config.compose import compose
from gbn.config.errors import ConfigError
from gbn.config.overrides import refuse_too_many, rewrite, values
from gbn.config.schema import Config


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each run: every combination, the last varying fastest (as in Hydra's sweeper).

    Raises:
        ConfigError: an override is invalid by itself, or there are more runs than a sweep may have.
    """
    choices = [values(one) for one in rewrite(overrides)]
    refuse_too_many(math.prod(map(len, choices)), "the sweep")
    return [list(combination) for combination in itertools.product(*choices)]


def check_sweep(overrides: Sequence[str]) -> tuple[list[Config], dict[str, str]]:
    """Compose every run of a sweep.

    Returns:
        The configurations in the sweep's order, and a mapping from the overrides of each combination that is invalid,
        though its values are valid in others, to its error.

    Raises:
        ConfigError: see :func:`expand`; or a value is invalid in every combination.
    """
    found: list[Config] = []
    wrong: dict[tuple[str, ...], str] = {}
    possible: set[tuple[int, str]] = set()
    for combination in map(tuple, expand(overrides)):
        try:
            found.append(compose(combination))
        except ConfigError as error:
            wrong[combination] = str(error)
        else:
            possible.update(enumerate(combination))
    for combination, message in wrong.items():
        if not possible.issuperset(enumerate(combination)):
            raise ConfigError(message)
    swept = {place for place, one in enumerate(rewrite(overrides)) if one.is_sweep_override()}
    return found, {
        " ".join(one.lstrip("+") for place, one in enumerate(combination) if place in swept): message
        for combination, message in wrong.items()
    }
