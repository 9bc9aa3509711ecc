"""Numbers as they are embedded: five significant digits, and nothing that JSON cannot represent."""

import json
import math
from collections.abc import Iterable
from typing import Any


def short(value: float | None, digits: int = 5) -> float | int | None:
    """Round to this many significant digits; return None for NaN and infinity, an int for whole numbers."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def shorts(values: Iterable[float | None], digits: int = 5) -> list[float | int | None]:
    """Apply :func:`short` to each value."""
    return [short(None if value is None else float(value), digits) for value in values]


def embedded(data: Any) -> str:
    """Return JSON that is safe inside a script element, whatever its strings contain."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
