"""Suggest the closest allowed name in an error message. Needs no torch."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def did_you_mean(given: Any, allowed: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest allowed name, or an empty string."""
    near = get_close_matches(str(given), list(allowed), n=1, cutoff=0.55)
    return f" (did you mean {near[0]!r}?)" if near else ""
