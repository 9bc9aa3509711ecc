"""Markdown from numbers: tables, paragraphs, significant digits."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table with padded columns."""
    grid = [list(header), *map(list, rows)]
    widths = [max(3, *(len(row[i]) for row in grid)) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in grid
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def number(text: str, unit: str = "") -> str:
    """Return three significant digits, or - if there is no number."""
    if not text:
        return "-"
    value = float(text)
    shown = f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
    return shown + unit


def between(row: Mapping[str, str], name: str, start: str, end: str) -> str:
    """Return ``median [p20, p80]`` of three columns."""
    return (
        f"{number(row[name])} [{number(row[start])}, {number(row[end])}]"
        if row[name]
        else row["status"].split(":")[0]
    )


def paragraph(text: str) -> list[str]:
    """Wrap text to lines of at most 118 characters; list items have a hanging indent."""
    return textwrap.wrap(
        text,
        118,
        subsequent_indent="  " * text.startswith("- "),
        break_long_words=False,
        break_on_hyphens=False,
    )
