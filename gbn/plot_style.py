"""The look of all figures, and how they are written.

The colors are Okabe and Ito's, which can be told apart with any color vision; line styles do so in grayscale print.
Sizes fit a printed page.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

#: Okabe and Ito's colors; black is for the reference.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES: tuple[Any, ...] = (
    *("-", (0, (6, 1.5, 1, 1.5)), (0, (1.5, 1.2)), (0, (8, 2)), (0, (3, 1))),
    (0, (4, 1, 1, 1, 1, 1)),
)
REFERENCE: tuple[str, Any] = ("#000000", (0, (4, 2)))
#: Page width in inches, and dots per inch.
WIDTH, DPI = 7.2, 200
RC: Mapping[str, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,  # embed text as text
}


def save(figure: Figure, stem: Path, rc: Mapping[str, Any] = RC) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.pdf``, creating folders as needed.

    The files contain no dates or versions, so that an unchanged figure is an unchanged file.

    Args:
        figure: the figure to write.
        stem: the path without its suffix.
        rc: the matplotlib settings that the figure was drawn with; ticks are created on writing.

    Returns:
        The two paths.
    """
    # Imported here: the benchmarks use only the colors, without a store.
    from gbn.store.files import write_bytes_atomically

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
