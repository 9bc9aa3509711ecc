"""What all figures look like, and how they are written.

Colours are Okabe and Ito's, told apart with any colour vision; line styles tell lines apart in grey print too. Sizes
are a printed page's.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

#: Okabe and Ito's colours; black is the reference's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES: tuple[Any, ...] = (
    *("-", (0, (6, 1.5, 1, 1.5)), (0, (1.5, 1.2)), (0, (8, 2)), (0, (3, 1))),
    (0, (4, 1, 1, 1, 1, 1)),
)
REFERENCE: tuple[str, Any] = ("#000000", (0, (4, 2)))
#: Inches across a page; dots an inch.
WIDTH, DPI = 7.2, 200
RC: Mapping[str, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,  # text stays text
}


def save(figure: Figure, stem: Path, rc: Mapping[str, Any] = RC) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.pdf``, folders as needed.

    Without dates and versions in them, an unchanged figure is an unchanged file.

    Args:
        figure: what is drawn.
        stem: the path without its ending.
        rc: matplotlib's settings that the figure was drawn with; ticks are made when it is written.

    Returns:
        The two files.
    """
    from gbn.store.files import (
        write_bytes_atomically,
    )  # the benchmarks take the colours alone, without a store

    contents = {}
    with mpl.rc_context(dict(rc)):
        for kind, unwanted in (("png", "Software"), ("pdf", "CreationDate")):
            content = io.BytesIO()
            figure.savefig(content, format=kind, metadata={unwanted: None})
            contents[stem.with_name(f"{stem.name}.{kind}")] = content.getvalue()
    stem.parent.mkdir(parents=True, exist_ok=True)
    for path, made in contents.items():
        write_bytes_atomically(path, made)
    return list(contents)
