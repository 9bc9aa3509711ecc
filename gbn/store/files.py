"""How the store's files are read and written: torn lines, atomic replacement, numbers that JSON lacks."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class StoreError(RuntimeError):
    """A run that is not there, or a file of a run that cannot be what it should be."""


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The points of a metrics file; a torn last line is dropped, an absent file is an empty curve.

    Raises:
        StoreError: a line that is no JSON object and not the last: the file was damaged, not cut.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    points = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            point = json.loads(line)
            if not isinstance(point, dict):
                raise ValueError("no object")
        except ValueError as error:
            if number == len(lines):  # no newline after it: the writer was killed in mid-line
                break
            raise StoreError(f"{path} line {number} is damaged ({error}): {line[:60]!r}") from None
        points.append(point)
    return points


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by `text`: a reader, and whoever comes after a kill, sees the old one or the new one."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """:func:`write_atomically` for bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # of a full disk


def replace(new: Path, path: Path) -> None:
    """Put `new` in the place of `path`. Windows refuses that while somebody reads `path`: then try for a second."""
    for _ in range(100 if sys.platform == "win32" else 0):
        try:
            os.replace(new, path)
        except PermissionError:
            time.sleep(0.01)
        else:
            return
    os.replace(new, path)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, as fsync has a file's content; nothing where the system lacks it."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def finite(value: Any) -> Any:
    """Plain containers with null for what JSON cannot hold (NaN, infinity)."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def all_finite(value: Any) -> bool:
    """Whether nested plain data holds no NaN and no infinity."""
    if isinstance(value, Mapping):
        return all(map(all_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(all_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def read_json(path: Path, kind: type) -> Any:
    """A whole JSON file that holds a `kind` (dict or list).

    Raises:
        StoreError: no JSON, or another kind.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}): remove the run's folder to train it anew") from None
    if not isinstance(value, kind):
        raise StoreError(f"{path} holds a {type(value).__name__}, expected a {kind.__name__}")
    return value
