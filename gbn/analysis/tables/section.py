"""What every format prints: a sub-table as plain rows of text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A sub-table.

    Attributes:
        heading: what it shows, with the direction of its numbers.
        columns: headings; the first column names the row.
        rows: text.
        notes: sentences below it.
    """

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
