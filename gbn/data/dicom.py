"""One slice from a DICOM file, through pydicom."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbn.data.image_set import DataError


def read_slice(path: Path) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """The image of a single-frame grey DICOM file and its pixels' height and width in mm.

    Stored values are put through the file's rescale slope and intercept, where it has them.

    Returns:
        float32 (H, W), (row spacing, column spacing).

    Raises:
        DataError: pydicom is not installed; the file is no DICOM file, truncated, compressed in a way that needs
            another library, not one grey image, or without PixelSpacing: one line that names it.
    """
    pydicom = _import_pydicom()
    try:
        with warnings.catch_warnings():
            # A value that breaks a rule of the standard is a reason to warn, not to refuse an image that can be read.
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            pixels = np.asarray(dataset.pixel_array)
            slope, intercept = (
                _number(dataset, "RescaleSlope", 1.0),
                _number(dataset, "RescaleIntercept", 0.0),
            )
            spacing = [float(value) for value in dataset.get("PixelSpacing") or []]
    except Exception as error:  # pydicom raises nearly everything on broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: truncated, or no DICOM image that can be read: {reason}") from error
    if pixels.ndim != 2:
        raise DataError(f"{path}: the image is {pixels.shape}, needed is one grey slice (H, W)")
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
        raise DataError(
            'DICOM files need pydicom, which is not installed: pip install "gbn[cardiac]" brings it'
        ) from error
    return pydicom
