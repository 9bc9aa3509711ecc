"""How the store's files are read and written: torn lines, atomic replacement, numbers that JSON lacks."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from gbn.store.seals import check_text, sealed, unsealed

#: What to do about a damaged file of a run.
REMEDY = "restore it from a copy, or remove the run's folder to train it anew"

#: A temporary file of this age has no writer any more.
STALE_SECONDS = 3600.0

_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser is ten times as fast


class StoreError(RuntimeError):
    """A run that is not there, or a file of a run that cannot be what it should be."""


def content_of(path: Path) -> bytes | None:
    """The bytes of a file; None where there is none.

    Raises:
        StoreError: it is there and cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error})") from None


def damaged(path: Path, what: object) -> StoreError:
    """The error that says in one line what is wrong with a file of a run, and what to do."""
    return StoreError(f"{path} is damaged ({' '.join(str(what).split())}): {REMEDY}")


def line_of(point: Mapping[str, Any]) -> str:
    """A point of a curve, or a recording of the layers, as a line of its file."""
    return json.dumps(sealed(point), allow_nan=False) + "\n"


def point_of(line: bytes) -> tuple[dict[str, Any], bool]:
    """The point of a line, and whether the line had a digest.

    Raises:
        ValueError: the line is no JSON object, or not what it was when it was written.
    """
    try:
        point = json.loads(line)
    except RecursionError:
        point = None
    if not isinstance(point, dict):
        raise ValueError("no object")
    return unsealed(point)


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The points of a metrics file; a torn last line is dropped, an absent file is an empty curve.

    Raises:
        StoreError: a line is not what was written, and is not the last one, cut: the file was damaged.
    """
    return points_of(path, content_of(path) or b"")


def points_of(path: Path, content: bytes) -> list[dict[str, Any]]:
    """:func:`read_curve` of a file whose content is at hand."""
    lines = content.split(b"\n")
    points, first = [], None
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            point, marked = point_of(line)
            if marked != (marked if first is None else first):
                raise ValueError("some lines have a digest and others have none")
        except ValueError as error:
            if number == len(lines) and torn(line):
                break
            raise StoreError(f"{path} line {number} is damaged ({error}): {line[:60]!r}; {REMEDY}") from None
        first = marked
        points.append(point)
    return points


def torn(line: bytes) -> bool:
    """Whether a line without newline may be the beginning of one: its writer was killed in mid-line."""
    try:
        json.JSONDecoder().raw_decode(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return True
    return False


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by `text`: a reader, and whoever comes after a kill, sees the old one or the new one."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """:func:`write_atomically` for bytes. A failure leaves no temporary file behind."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def remove_leftovers(folder: Path, older_than: float = STALE_SECONDS) -> None:
    """Remove the temporary files that killed writers left in a folder.

    Args:
        folder: where they are; only its own files are removed.
        older_than: seconds; spares the files of writers that may be alive. 0 where a lock keeps other writers out.
    """
    for path in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime >= older_than:
                path.unlink()


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
        StoreError: it is absent, no JSON, or of another kind.
    """
    content = content_of(path)
    if content is None:
        raise StoreError(f"{path} is missing: {REMEDY}")
    return parse_json(path, content, kind)


def parse_json(path: Path, content: bytes, kind: type) -> Any:
    """:func:`read_json` of a file whose content is at hand."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from None
    if not isinstance(value, kind):
        raise StoreError(f"{path} holds a {type(value).__name__}, expected a {kind.__name__}: {REMEDY}")
    return value


def parse_config(path: Path, content: bytes) -> dict[str, Any]:
    """The configuration in the content of a ``config.yaml``.

    Raises:
        StoreError: it is damaged, or no mapping.
    """
    try:
        check_text(content)
        config = yaml.load(content, Loader=_YAML)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise damaged(path, error) from None
    if not isinstance(config, dict):
        raise StoreError(f"{path} holds a {type(config).__name__}, expected a mapping: {REMEDY}")
    return config


def parse_provenance(path: Path, content: bytes) -> list[dict[str, Any]]:
    """The segments in the content of a ``provenance.json``.

    Raises:
        StoreError: it is damaged, or no list of mappings.
    """
    found = parse_json(path, content, list)
    if not all(isinstance(segment, dict) for segment in found):
        raise damaged(path, "an entry is no mapping")
    try:
        pairs = [unsealed(segment) for segment in found]
    except ValueError as error:
        raise damaged(path, error) from None
    if len({marked for _, marked in pairs}) > 1:
        raise damaged(path, "some entries have a digest and others have none")
    return [segment for segment, _ in pairs]


def provenance_text(segments: Iterable[Mapping[str, Any]]) -> str:
    """Segments as a ``provenance.json``."""
    return json.dumps([sealed(segment) for segment in segments], indent=2) + "\n"
