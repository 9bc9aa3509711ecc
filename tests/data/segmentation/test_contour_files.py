"""Contours as text, and the pixels inside them."""

import numpy as np
import pytest

from gbn.data.image_set import DataError
from gbn.data.segmentation.contour_files import filled, read_contour
from tests.data.segmentation.sunnybrook_files import circle


def test_points_are_read_as_x_and_y(tmp_path):
    path = tmp_path / "contour.txt"
    path.write_text("1.5 2.25\r\n\r\n3 0\n0.0\t4.0 \n")
    assert read_contour(path, 6, 5).tolist() == [[1.5, 2.25], [3, 0], [0, 4]]


def test_pixels_count_where_their_center_lies_inside():
    corners = np.array([[1.4, 0.6], [4.4, 0.6], [4.4, 2.6], [1.4, 2.6]])  # x 2 to 4, y 1 to 2
    expected = np.zeros((5, 7), bool)
    expected[1:3, 2:5] = True
    assert np.array_equal(filled(corners, 5, 7), expected)
    assert np.array_equal(filled(corners[::-1], 5, 7), expected)


@pytest.mark.parametrize("radius", [3.3, 10.2, 30.7])
def test_the_area_is_the_polygons(radius):
    """Inside by center: neither half a pixel more all round nor less."""
    mask = filled(circle(radius, 40.3, 35.8, points=400), 75, 80)
    rows, columns = np.mgrid[:75, :80]
    assert mask.sum() == pytest.approx(np.pi * radius**2, rel=0.6 / radius)
    disc = np.hypot(columns - 40.3, rows - 35.8) <= radius
    assert (mask != disc).sum() <= 0.02 * 2 * np.pi * radius + 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "0 points enclose nothing"),
        ("1 1\n2 2\n", "2 points enclose nothing"),
        ("1 1\n2 two\n3 3\n", "line 2: '2 two' is not a point"),
        ("1 1\n2 2 2\n3 3\n", "line 2: '2 2 2' is not a point"),
        ("1 1\n5 2\n3 3\n", "line 2: the point (5, 2) lies outside its image of 5 x 6 pixels"),
        ("1 1\n2 -0.7\n3 3\n", "the point (2, -0.7) lies outside"),
        ("1 1\n2 nan\n3 3\n", "the point (2, nan) lies outside"),
        ("1 1\n2 2\n3 \xe9\n", "cannot be read as a text file of points"),
    ],
)
def test_broken_contours_name_the_file_and_the_line(tmp_path, text, words):
    path = tmp_path / "IM-0001-0048-icontour-manual.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        read_contour(path, 6, 5)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert words in message
    assert "\n" not in message


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_contour(tmp_path / "nothing.txt", 6, 5)
