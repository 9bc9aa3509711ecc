"""The store's files: replaced atomically, and with digests inside them that reveal damage.

Each line of a curve, each segment of the provenance and the summary ends with a digest of the rest of itself, and
``config.yaml`` ends with a comment that holds one. Text without a digest was written by an earlier version and is
accepted as it is.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

#: What to do about a damaged file of a run.
REMEDY = "restore it from a copy, or remove the run's folder to train it again"

#: A temporary file this old no longer has a writer.
STALE_SECONDS = 3600.0

#: The last key of a sealed mapping, and the hexadecimal digits of a digest (64 bits).
DIGEST, DIGITS = "digest", 16

_DIGEST = re.compile(rf"[0-9a-f]{{{DIGITS}}}")
_COMMENT = re.compile(rb"(.*\n)# digest: ([0-9a-f]{%d})\n" % DIGITS, re.DOTALL)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser is ten times faster


class StoreError(RuntimeError):
    """A run is missing, or one of its files is damaged."""


def content_of(path: Path) -> bytes | None:
    """Return the bytes of a file; None if it does not exist.

    Raises:
        StoreError: it exists but cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error})") from None


def damaged(path: Path, what: object) -> StoreError:
    """Return a one-line error that says what is wrong with a run's file and what to do."""
    return StoreError(f"{path} is damaged ({' '.join(str(what).split())}): {REMEDY}")


def digest(content: bytes) -> str:
    """Return the first :data:`DIGITS` hexadecimal digits of the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def sealed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON-compatible mapping with its digest appended."""
    return {**entry, DIGEST: digest(json.dumps(entry).encode())}


def unsealed(entry: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return a mapping without its digest, and whether it had one.

    Raises:
        ValueError: the digest does not match.
    """
    rest = dict(entry)
    found = rest.pop(DIGEST, None)
    if found is None:
        last = next(reversed(rest.values()), None)
        if isinstance(last, str) and _DIGEST.fullmatch(last):
            raise ValueError(f"its last key is no longer {DIGEST!r}")
        return rest, False
    if found != digest(json.dumps(rest).encode()):
        raise ValueError("it does not fit its digest")
    return rest, True


def line_of(point: Mapping[str, Any]) -> str:
    """Return a point of a curve, or a recording of the layers, as a line of JSON."""
    return json.dumps(sealed(point), allow_nan=False) + "\n"


def read_curve(path: Path) -> list[dict[str, Any]]:
    """Return the points of a metrics file; an incomplete last line is dropped, and a missing file is an empty curve.

    Raises:
        StoreError: a line is damaged, other than an incomplete last one.
    """
    return points_of(path, content_of(path) or b"")


def points_of(path: Path, content: bytes, checked: bool = False) -> list[dict[str, Any]]:
    """Parse content as :func:`read_curve` does.

    Args:
        path: named in errors.
        content: of the file.
        checked: the digest of the whole content is known to be right, so that those of its lines are not compared.
    """
    if checked:
        with contextlib.suppress(ValueError, AttributeError):  # not what we write: found line by line
            points = json.loads(b"[" + content.rstrip(b"\n").replace(b"\n", b",") + b"]")
            for point in points:
                point.pop(DIGEST, None)
            return list(points)
    points = []
    for point in lines_of(content):
        if isinstance(point, ValueError):
            raise StoreError(f"{path} {point}; {REMEDY}")
        points.append(point)
    return points


def lines_of(content: bytes) -> Iterator[dict[str, Any] | ValueError]:
    """Yield the point in each line, or what is wrong with the line; an incomplete last line is left out."""
    lines = content.split(b"\n")
    first = None
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            point = json.loads(line)
            if not isinstance(point, dict):
                raise ValueError("not a JSON object")
            point, marked = unsealed(point)
            if marked != (marked if first is None else first):
                raise ValueError("some lines have a digest and others have none")
        except (ValueError, RecursionError) as error:
            if number == len(lines) and _torn(line):
                return
            yield ValueError(f"line {number} is damaged ({error}): {line[:60]!r}")
        else:
            first = marked
            yield point


def _torn(line: bytes) -> bool:
    """Return whether a line without a newline may be incomplete: its writer was killed in mid-line."""
    try:
        json.JSONDecoder().raw_decode(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return True
    return False


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by `text`: readers see the old or the new content, even after a kill."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write bytes as :func:`write_atomically` does text. A failure leaves no temporary file behind."""
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
        folder: where they are; subfolders are not searched.
        older_than: seconds; spares files whose writers may be alive. Use 0 where a lock keeps other writers out.
    """
    for path in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime >= older_than:
                path.unlink()


def replace(new: Path, path: Path) -> None:
    """Rename `new` to `path`. Windows refuses this while `path` is being read: retry for a second there."""
    for _ in range(100 if sys.platform == "win32" else 0):
        try:
            os.replace(new, path)
        except PermissionError:
            time.sleep(0.01)
        else:
            return
    os.replace(new, path)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, as fsync does a file's content; does nothing on Windows."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def finite(value: Any) -> Any:
    """Return plain containers with None in place of NaN and infinity, which JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def all_finite(value: Any) -> bool:
    """Return whether nested plain data is free of NaN and infinity."""
    if isinstance(value, Mapping):
        return all(map(all_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(all_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file that holds a `kind` (dict or list).

    Raises:
        StoreError: it is absent, not JSON, or of another kind.
    """
    content = content_of(path)
    if content is None:
        raise StoreError(f"{path} is missing: {REMEDY}")
    return _parse_json(path, content, kind)


def _parse_json(path: Path, content: bytes, kind: type) -> Any:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from None
    if not isinstance(value, kind):
        raise StoreError(f"{path} holds a {type(value).__name__}, expected a {kind.__name__}: {REMEDY}")
    return value


def config_text(config: Mapping[str, Any]) -> str:
    """Return a resolved configuration as the text of ``config.yaml``: YAML, and a comment with its digest."""
    text = yaml.dump(finite(config), Dumper=_DUMPER, sort_keys=False)
    return f"{text}# digest: {digest(text.encode())}\n"


def parse_config(path: Path, content: bytes) -> dict[str, Any]:
    """Parse the content of a ``config.yaml``.

    Raises:
        StoreError: it is damaged, or not a mapping.
    """
    try:
        found = _COMMENT.fullmatch(content)
        if found is None and b"digest: " in content[content.rfind(b"\n", 0, -1) + 1 :]:
            raise ValueError("the comment with its digest is damaged")
        if found is not None and found[2].decode() != digest(found[1]):
            raise ValueError("it does not fit its digest")
        config = yaml.load(content, Loader=_YAML)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise damaged(path, error) from None
    if not isinstance(config, dict):
        raise StoreError(f"{path} holds a {type(config).__name__}, expected a mapping: {REMEDY}")
    return config


def parse_provenance(path: Path, content: bytes) -> list[dict[str, Any]]:
    """Parse the content of a ``provenance.json`` into its segments.

    Raises:
        StoreError: it is damaged, or not a list of mappings.
    """
    found = _parse_json(path, content, list)
    if not all(isinstance(segment, dict) for segment in found):
        raise damaged(path, "an entry is not a mapping")
    try:
        pairs = [unsealed(segment) for segment in found]
    except ValueError as error:
        raise damaged(path, error) from None
    if len({marked for _, marked in pairs}) > 1:
        raise damaged(path, "some entries have a digest and others have none")
    return [segment for segment, _ in pairs]


def provenance_text(segments: Iterable[Mapping[str, Any]]) -> str:
    """Return segments as the text of ``provenance.json``."""
    return json.dumps([sealed(segment) for segment in segments], indent=2) + "\n"
