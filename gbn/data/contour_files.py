"""Contours drawn by hand, as text files, and the masks that they enclose."""

from pathlib import Path

import numpy as np
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray

from gbn.data.image_set import DataError


def read_contour(path: Path, height: int, width: int) -> NDArray[np.float64]:
    """The points (n, 2) of a closed contour: x to the right and y down, in pixels, one point a line.

    Args:
        path: the text file.
        height: of the image that it is drawn on.
        width: of the image that it is drawn on.

    Raises:
        DataError: a line that is not two numbers, fewer than three points, a point outside the image.
    """
    points = []
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a text of points: {error}") from error
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        try:
            x, y = map(float, fields)
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: {line.strip()!r} is not a point: needed are two numbers"
            ) from error
        # Pixels' centres lie at whole numbers, so an image reaches from -1/2 to its size - 1/2.
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise DataError(
                f"{path}, line {number}: the point ({x:g}, {y:g}) lies outside its image of {width} x {height} pixels"
            )
        points.append((x, y))
    if len(points) < 3:
        raise DataError(f"{path}: {len(points)} points enclose nothing: a contour has at least three")
    return np.array(points)


def filled(contour: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels whose centres lie inside the polygon of a contour: bool (H, W).

    Pixel (row r, column c) has its centre at x = c, y = r. Coverage is not weighed: a pixel counts whole or not at
    all, so the mask's area is the polygon's to a rounding that is as often up as down (drawing with the outline
    included, as PIL and OpenCV do, adds half a pixel all round: 3 % of a cavity of 60 pixels across).

    Args:
        contour: points (n, 2) of x, y; the last is joined to the first.
        height: of the mask.
        width: of the mask.
    """
    rows, columns = np.mgrid[:height, :width]
    centres = np.column_stack((columns.ravel(), rows.ravel()))
    closed = np.vstack((contour, contour[:1]))
    return Polygon(closed).contains_points(centres).reshape(height, width)
