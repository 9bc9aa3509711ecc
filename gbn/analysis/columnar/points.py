"""The curves of many runs as columns: their metrics files parsed together, a row a point.

Arrow takes the lines of many files at once, some twenty times as fast as line by line. What it does not take as it
stands (a damaged line, a key that is a number here and text there) goes through
:func:`gbn.store.files.read_curve`, which names the damaged file.

Of a point numbers and booleans are kept; null stands for anything else, and where a point lacks the key.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as pj

from gbn.store.files import read_curve

_BATCH_BYTES = 8 << 20  # parsed together: more is no faster and takes memory
_BLOCK_BYTES = 4 << 20


def read_curves(paths: Iterable[Path]) -> tuple[dict[str, pa.Array], list[int]]:
    """The points of all files, one file after the other. A torn last line is dropped, an absent file is empty.

    Returns:
        key -> the values of all points, and how many points each file has.

    Raises:
        StoreError: a damaged line that is not the last.
    """
    parts, counts = [], []
    for batch in _batches(paths):
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


def _batches(paths: Iterable[Path]) -> Iterator[list[tuple[Path, bytes]]]:
    batch: list[tuple[Path, bytes]] = []
    size = 0
    for path in paths:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        batch.append((path, _whole_lines(content)))
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
    try:
        whole = isinstance(json.loads(content[start:]), dict)
    except ValueError:
        whole = False
    return content + b"\n" if whole else content[:start]


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
            if table.num_rows == sum(counts):
                return {name: _flat(table[name]) for name in table.column_names}, counts
    curves = [read_curve(path) if content else [] for path, content in batch]
    return columns_of(curves), [len(curve) for curve in curves]


def _flat(column: pa.ChunkedArray) -> pa.Array:
    """One array of numbers; of anything else only that it is missing."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0)
    return array if _is_number(array.type) else pa.nulls(len(array))


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
