"""A figure of generated samples over training: one column per arm, one row per update, the same latents everywhere.

It uses the pictures in the folders of the runs; the archive holds none.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from gbn.plot_style import DPI, RC

_NAME = re.compile(r"samples-(\d+)\.png")
_RC = {**RC, "font.size": 7}

#: Rows and columns of a saved picture.
GRID = 8


def updates(folder: Path) -> dict[int, Path]:
    """Return the sample pictures in a run's folder in order: update -> file.

    Raises:
        ValueError: there is none.
    """
    files = folder.glob("samples-*.png") if folder.is_dir() else ()
    found = {int(name[1]): file for file in files if (name := _NAME.fullmatch(file.name))}
    if not found:
        raise ValueError(
            f"no pictures in {folder}: train the run here (the archive holds none), with "
            "trainer.record.pictures above 0"
        )
    return dict(sorted(found.items()))


def part(file: Path, images: int) -> np.ndarray:
    """Return the upper left `images` x `images` of a picture, uint8 (H, W, 3).

    Raises:
        ValueError: there are fewer images per row than asked for.
    """
    if not 1 <= images <= GRID:
        raise ValueError(f"{images} images per row were asked for: pictures have 1 to {GRID}")
    picture = np.asarray(Image.open(file).convert("RGB"))
    side = picture.shape[0] // GRID * images
    return picture[:side, :side]


def draw(folders: Mapping[str, Path], at: Sequence[int] | None = None, images: int = 4) -> Figure:
    """Draw the figure.

    Args:
        folders: label of an arm -> its run's folder.
        at: the updates to show; None means all for which every run has a picture.
        images: rows and columns of each part.

    Raises:
        ValueError: a run has no pictures, or none of a requested update.
    """
    found = {label: updates(folder) for label, folder in folders.items()}
    shared = sorted(set.intersection(*(set(files) for files in found.values())))
    rows = list(shared if at is None else at)
    for update in rows:
        if update not in shared:
            raise ValueError(
                f"not every run has a picture of update {update}: all have {', '.join(map(str, shared))}"
            )
    if not rows:
        raise ValueError("there is no update of which all runs have a picture: show fewer runs")
    side = min(1.4, 7.0 / len(found))
    with mpl.rc_context(_RC):
        figure = Figure(
            figsize=(side * len(found) + 0.5, side * len(rows) + 0.3), layout="constrained", dpi=DPI
        )
        axes = figure.subplots(len(rows), len(found), squeeze=False)
        for row, update in zip(axes, rows, strict=True):
            for panel, (label, files) in zip(row, found.items(), strict=True):
                panel.imshow(part(files[update], images), interpolation="nearest")
                panel.set(xticks=[], yticks=[])
                panel.spines[:].set_visible(False)
                if update == rows[0]:
                    panel.set_title(label.replace("[", "\n["), fontsize=6)
            row[0].set_ylabel(f"update {update:,}", fontsize=6)
    return figure
