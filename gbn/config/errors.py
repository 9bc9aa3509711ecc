"""One clear line for a wrong configuration: what was given, what is allowed, what was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches


class ConfigError(ValueError):
    """A configuration that cannot be run; its message is one line for the user."""


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest allowed name, or a full stop."""
    near = get_close_matches(given, list(allowed), n=1, cutoff=0.55)
    return f"; did you mean {near[0]!r}?" if near else "."


def unknown(what: str, given: str, allowed: Iterable[str]) -> ConfigError:
    """The error for a name outside a known set."""
    names = sorted(allowed)
    listed = ", ".join(names) if names else "none"
    return ConfigError(f"unknown {what} {given!r}{did_you_mean(given, names)} Allowed: {listed}")
