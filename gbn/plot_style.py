"""What all figures look like, and how they are written: with a digest of what they show.

Colors are Okabe and Ito's, told apart with any color vision; line styles tell lines apart in gray print too. Sizes
are a printed page's. Which arm gets which look is :mod:`gbn.analysis.looks`'s to say.

Pixels depend on the versions of matplotlib and its fonts. So a PNG carries the digest of the data that it shows, and
whether it is stale is asked of the data (:func:`digest` of the figure drawn again, without making a picture of it).
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Okabe and Ito's colors; black is for the reference.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: Inches across a page; dots an inch.
WIDTH, DPI = 7.2, 200
RC: Mapping[str, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,  # embed text as text
}
#: Keys of a PNG's text: what the figure was made from (JSON), and the digest of what it shows.
SOURCE, DIGEST = "gbn-figure", "gbn-data"


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure to be written.

    Attributes:
        name: the file's, without its ending.
        figure: what is drawn.
        rc: matplotlib's settings that the figure was drawn with; ticks are made when it is written.
        source: what it was made from, so that it can be made again; goes into the PNG.
    """

    name: str
    figure: Figure
    rc: Mapping[str, Any] = field(default_factory=lambda: RC)
    source: Mapping[str, Any] = field(default_factory=dict)


def save(pictures: Iterable[Picture], folder: Path, paper: bool = False) -> list[Path]:
    """Write ``<name>.png`` of each picture, folders as needed.

    The files contain no dates or versions, so that an unchanged figure is an unchanged file.

    Args:
        pictures: what is written.
        folder: gets the files.
        paper: write ``<name>.pdf`` too.

    Returns:
        The files.
    """
    # Imported here: the benchmarks use only the colors, without a store.
    from gbn.store.files import write_bytes_atomically

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for picture in pictures:
        made = {"png": png(picture)} | ({"pdf": pdf(picture)} if paper else {})
        for kind, content in made.items():
            paths.append(folder / f"{picture.name}.{kind}")
            write_bytes_atomically(paths[-1], content)
    return paths


def png(picture: Picture) -> bytes:
    """The picture as a PNG that says what it was made from and what it shows."""
    text = {DIGEST: digest(picture.figure), "Software": None}
    if picture.source:
        text[SOURCE] = json.dumps(picture.source, sort_keys=True)
    return _written(picture, "png", text)


def pdf(picture: Picture) -> bytes:
    """The picture as a PDF without a date."""
    return _written(picture, "pdf", {"CreationDate": None})


def _written(picture: Picture, kind: str, metadata: Mapping[str, str | None]) -> bytes:
    content = io.BytesIO()
    with mpl.rc_context(dict(picture.rc)):
        picture.figure.savefig(content, format=kind, metadata=dict(metadata))
    return content.getvalue()


def source_and_digest(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """(what a PNG was made from, the digest of what it shows); None for what it does not say.

    Raises:
        ValueError: the file is no PNG.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            text = dict(image.info)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no picture: draw it again with its script") from error
    source = text.get(SOURCE)
    return (json.loads(source) if source else None), text.get(DIGEST)


def digest(figure: Figure) -> str:
    """A digest of what a figure shows: numbers to six digits, words and colors, not pixels, fonts or places."""
    return hashlib.sha256("\n".join(_shown(figure)).encode()).hexdigest()[:32]


def _shown(figure: Figure) -> Iterator[str]:
    """Everything that is drawn, as text."""
    yield from (text.get_text() for text in figure.texts)
    for legend in figure.legends:
        yield from (text.get_text() for text in legend.get_texts())
    for axes in figure.axes:
        yield from _shown_in(axes)


def _shown_in(axes: Axes) -> Iterator[str]:
    yield from (axes.get_title(loc=place) for place in ("left", "center", "right"))
    yield from (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale(), axes.get_yscale())
    yield from (text.get_text() for text in axes.texts)
    if (legend := axes.get_legend()) is not None:
        yield from (text.get_text() for text in legend.get_texts())
    for line in axes.lines:
        look = (line.get_label(), line.get_color(), line.get_linestyle(), line.get_marker())
        yield f"line {look} {_digits(line.get_xdata())} {_digits(line.get_ydata())}"
    for collection in axes.collections:
        yield f"area {_digits(collection.get_facecolor())} {_digits(collection.get_edgecolor())}"
        yield from (_digits(path.vertices) for path in collection.get_paths())
        yield _digits(collection.get_offsets())
    for patch in axes.patches:
        yield f"patch {_digits(patch.get_facecolor())} {_digits(patch.get_path().vertices)}"
    for image in axes.images:
        yield f"image {image.get_cmap().name} {image.get_clim()} {_digits(image.get_array())}"


def _digits(values: Any) -> str:
    """Numbers to six digits; what is zero but for rounding is zero on every processor."""
    numbers: Any = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan).ravel()
    numbers = np.where(np.abs(numbers) < 1e-12, 0.0, numbers)
    return " ".join(f"{number:.6g}" for number in numbers)
