"""The curves of many runs as columns: their metrics files parsed together, a row a point.

Arrow takes the lines of many files at once, some twenty times as fast as line by line. What it does not take as it
stands (a damaged line, a key that is a number here and text there, a value that its measure cannot have) goes through
:func:`gbn.store.files.points_of`, which names the damaged file.

Of a point numbers and booleans are kept; null stands for anything else, and where a point lacks the key.
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

_BATCH_BYTES = 8 << 20  # parsed together: more is no faster and takes memory
_BLOCK_BYTES = 4 << 20


Check = Callable[[Path, bytes | None], bytes | None]


def read_curves(
    paths: Iterable[Path], check: Check = lambda _, content: content
) -> tuple[dict[str, pa.Array], list[int]]:
    """The points of all files, one file after the other. A torn last line is dropped, an absent file is empty.

    Args:
        paths: the metrics files.
        check: raises StoreError for the content of a file (None: it is absent) that is not to be read, and returns
            that of any other.

    Returns:
        key -> the values of all points, and how many points each file has.

    Raises:
        StoreError: a damaged line that is not the last, or a value that its measure cannot have.
    """
    parts, counts = [], []
    for batch in _batches(paths, check):
        columns, points = _parse(batch)
        parts.append((columns, sum(points)))
        counts += points
    return concatenate(parts), counts


def columns_of(curves: Iterable[Iterable[Mapping[str, Any]]]) -> dict[str, pa.Array]:
    """Curves that are in memory already as columns, one curve after the other."""
    points = [point for curve in curves for point in curve]
    names = dict.fromkeys(name for point in points for name in point)
    return {name: _column([_number(point.get(name)) for point in points]) for name in names}


def concatenate(parts: Sequence[tuple[Mapping[str, pa.Array], int]]) -> dict[str, pa.Array]:
    """Columns of several parts, given with their numbers of points, one after the other.

    Null stands for the points of a part that lacks the key; a key that is a whole number here and a fraction there
    is a fraction.
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
    """Without a torn last line; one that lacks only its newline is whole."""
    if not content or content.endswith(b"\n"):
        return content
    start = content.rfind(b"\n") + 1
    return content[:start] if torn(content[start:]) else content + b"\n"


def _parse(batch: Sequence[tuple[Path, bytes]]) -> tuple[dict[str, pa.Array], list[int]]:
    counts = [content.count(b"\n") for _, content in batch]
    # A line must be a point, or the next run's points would be taken for this one's.
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
    """Whether a key of the curves surely has only values that it can have."""
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
    """One array of numbers; of anything else only that it is missing."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0)
    return array if _is_number(array.type) else pa.nulls(len(array))


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
