"""One-line errors for invalid configurations: what was given, what is allowed, what was probably meant."""

from collections.abc import Iterable

from gbn.suggest import did_you_mean


class ConfigError(ValueError):
    """A configuration is invalid; the message is one line for the user."""


def unknown(what: str, given: str, allowed: Iterable[str]) -> ConfigError:
    """Return the error for a name outside a known set."""
    names = sorted(map(str, allowed))
    allows = f"allowed: {listed(names)}" if names else "there are none"
    return ConfigError(f"unknown {what} {given!r}{did_you_mean(given, names)}; {allows}")


def listed(names: Iterable[str]) -> str:
    """Return the names in alphabetical order, separated by commas."""
    return ", ".join(sorted(names))
