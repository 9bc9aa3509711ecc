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
