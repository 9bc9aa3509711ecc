"""Read one slice from a DICOM file, using pydicom."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbn.data.image_set import DataError


def read_slice(path: Path) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Return the image of a single-frame grayscale DICOM file and the height and width of its pixels in mm.

    The file's rescale slope and intercept, if any, are applied to the stored values.

    Returns:
        float32 (H, W), (row spacing, column spacing).

    Raises:
        DataError: pydicom is not installed, or the file is not a DICOM file, is truncated, needs another library for
            decompression, is not a single grayscale image, or has no PixelSpacing; the message is one line that
            names the file.
    """
    pydicom = _import_pydicom()
    try:
        with warnings.catch_warnings():
            # A value that violates the standard is a reason to warn, not to reject an image that can be read.
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            pixels = np.asarray(dataset.pixel_array)
            slope, intercept = (
                _number(dataset, "RescaleSlope", 1.0),
                _number(dataset, "RescaleIntercept", 0.0),
            )
            spacing = [float(value) for value in dataset.get("PixelSpacing") or []]
    except Exception as error:  # pydicom raises almost any exception on broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: truncated, or no DICOM image that can be read: {reason}") from error
    if pixels.ndim != 2:
        raise DataError(f"{path}: the image is {pixels.shape}, needed is one grayscale slice (H, W)")
    if len(spacing) != 2 or not all(0 < value < np.inf for value in spacing):
        raise DataError(
            f"{path}: PixelSpacing is {spacing or 'missing'}: distances in mm need two positive numbers"
        )
    return (pixels * slope + intercept).astype(np.float32), (spacing[0], spacing[1])


def _number(dataset: Any, keyword: str, default: float) -> float:
    value = dataset.get(keyword)
    return default if value is None else float(value)


def _import_pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise DataError("DICOM files need pydicom, which is not installed: pip install pydicom") from error
    return pydicom
