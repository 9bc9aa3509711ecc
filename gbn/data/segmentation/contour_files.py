"""Hand-drawn contours in text files, and the masks that they enclose."""

from pathlib import Path

import numpy as np
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray

from gbn.data.image_set import DataError


def read_contour(path: Path, height: int, width: int) -> NDArray[np.float64]:
    """Read the points (n, 2) of a closed contour: x to the right and y down, in pixels, one point per line.

    Args:
        path: the text file.
        height: height of the image on which it is drawn.
        width: width of the image on which it is drawn.

    Raises:
        DataError: a line is not two numbers, there are fewer than three points, or a point is outside the image.
    """
    points = []
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a text file of points: {error}") from error
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
        # Pixel centers have integer coordinates, so an image extends from -1/2 to its size - 1/2.
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise DataError(
                f"{path}, line {number}: the point ({x:g}, {y:g}) lies outside its image of {width} x {height} pixels"
            )
        points.append((x, y))
    if len(points) < 3:
        raise DataError(f"{path}: {len(points)} points enclose nothing: a contour has at least three")
    return np.array(points)


def filled(contour: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels whose centers are inside the polygon of a contour: bool (H, W).

    Pixel (row r, column c) has its center at x = c, y = r. Partial coverage is not weighted: a pixel counts fully or
    not at all, so the mask's area is the polygon's up to unbiased rounding (including the outline, as PIL and OpenCV
    do, adds half a pixel all around: 3 % of a cavity 60 pixels across).

    Args:
        contour: points (n, 2) of x, y; the last is joined to the first.
        height: height of the mask.
        width: width of the mask.
    """
    rows, columns = np.mgrid[:height, :width]
    centers = np.column_stack((columns.ravel(), rows.ravel()))
    closed = np.vstack((contour, contour[:1]))
    return Polygon(closed).contains_points(centers).reshape(height, width)
