"""The curves of many runs as columns: metrics files are parsed together, one row per point.

Arrow parses the lines of many files at once, some twenty times as fast as line by line. Whatever it rejects (a
damaged line, a key that holds numbers and text, a value outside the range of its measure) goes through
:func:`gbn.store.files.points_of`, which names the damaged file.

Numbers and booleans of a point are kept. Anything else, and a missing key, becomes null.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from gbn.store.files import REMEDY, StoreError, content_of, points_of, torn
from gbn.store.finished import point_problem, range_of
from gbn.store.seals import DIGEST

_BATCH_BYTES = 8 << 20  # parsed together; larger batches are no faster and take memory
_BLOCK_BYTES = 4 << 20


Check = Callable[[Path, bytes | None], bytes | None]


def read_curves(
    paths: Iterable[Path], check: Check = lambda _, content: content
) -> tuple[dict[str, pa.Array], list[int]]:
    """Return the points of all files, concatenated. A torn last line is dropped; a missing file counts as empty.

    Args:
        paths: the metrics files.
        check: given a path and its content (None if the file is missing), returns the content to parse, or raises
            StoreError if the file must not be read.

    Returns:
        The values of all points for each key, and the number of points in each file.

    Raises:
        StoreError: a line other than the last is damaged, or a value is outside the range of its measure.
    """
    parts, counts = [], []
    for batch in _batches(paths, check):
        columns, points = _parse(batch)
        parts.append((columns, sum(points)))
        counts += points
    return concatenate(parts), counts


def columns_of(curves: Iterable[Iterable[Mapping[str, Any]]]) -> dict[str, pa.Array]:
    """Return curves already in memory as columns, concatenated."""
    points = [point for curve in curves for point in curve]
    names = dict.fromkeys(name for point in points for name in point)
    return {name: _column([_number(point.get(name)) for point in points]) for name in names}


def concatenate(parts: Sequence[tuple[Mapping[str, pa.Array], int]]) -> dict[str, pa.Array]:
    """Concatenate the columns of several parts, each given with its number of points.

    If a part lacks a key, its points are null. A key that is an integer in one part and a float in another becomes a
    float.
    """
    names = dict.fromkeys(name for columns, _ in parts for name in columns)
    joined = {}
    for name in names:
        arrays = [columns.get(name, pa.nulls(points)) for columns, points in parts]
        kinds = {array.type for array in arrays if not pa.types.is_null(array.type)}
        kind = kinds.pop() if len(kinds) == 1 else pa.float64()
        joined[name] = pa.concat_arrays([array.cast(kind) for array in arrays])
    return joined


def _number(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) else None


def _column(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pa.array(values, pa.int64())
    return pa.array([None if value is None else float(value) for value in values], pa.float64())


def _batches(paths: Iterable[Path], check: Check) -> Iterator[list[tuple[Path, bytes]]]:
    batch: list[tuple[Path, bytes]] = []
    size = 0
    for path in paths:
        content = _whole_lines(check(path, content_of(path)) or b"")
        batch.append((path, content))
        size += len(content)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _whole_lines(content: bytes) -> bytes:
    """Return the content without a torn last line. A line that lacks only its newline is whole."""
    if not content or content.endswith(b"\n"):
        return content
    start = content.rfind(b"\n") + 1
    return content[:start] if torn(content[start:]) else content + b"\n"


def _parse(batch: Sequence[tuple[Path, bytes]]) -> tuple[dict[str, pa.Array], list[int]]:
    counts = [content.count(b"\n") for _, content in batch]
    # Each line must be exactly one point, or points of the next run would be counted for this one.
    plain = not any(b"\n\n" in content or b"}{" in content or content[:1] == b"\n" for _, content in batch)
    if plain and any(counts):
        text = pa.py_buffer(b"".join(content for _, content in batch))
        try:
            table = pj.read_json(text, pj.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES))
        except pa.ArrowInvalid:
            pass
        else:
            columns = [name for name in table.column_names if name != DIGEST]
            if table.num_rows == sum(counts) and all(_possible(name, table[name]) for name in columns):
                return {name: _flat(table[name]) for name in columns}, counts
    curves = [_points(path, content) for path, content in batch]
    return columns_of(curves), [len(curve) for curve in curves]


def _possible(key: str, column: pa.ChunkedArray) -> bool:
    """Return whether all values of a curve key are certainly within the range of its measure."""
    bounds = range_of(key)
    if bounds is None or pa.types.is_null(column.type):
        return True
    kinds = (pa.types.is_integer,) if key == "update" else (pa.types.is_integer, pa.types.is_floating)
    if not any(fits(column.type) for fits in kinds):
        return False
    if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
        return False
    ends = pc.min_max(column).as_py().values()
    return all(end is None or (math.isfinite(end) and bounds[0] <= end <= bounds[1]) for end in ends)


def _points(path: Path, content: bytes) -> list[dict[str, Any]]:
    points = points_of(path, content)
    problem = next(filter(None, map(point_problem, points)), None)
    if problem:
        raise StoreError(f"{path}: {problem}; {REMEDY}")
    return points


def _flat(column: pa.ChunkedArray) -> pa.Array:
    """Return one array of numbers; values of any other type become null."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0)
    return array if _is_number(array.type) else pa.nulls(len(array))


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
