"""A sub-table as plain rows of text, which every format prints."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A sub-table.

    Attributes:
        heading: what it shows, and which direction is better.
        columns: headings; the first column names the row.
        rows: text.
        notes: sentences below the table.
    """

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def grid_lines(section: Section) -> list[str]:
    """Return a section as the lines of a padded Markdown table."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (section.columns, *section.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
