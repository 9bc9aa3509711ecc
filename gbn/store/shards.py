"""One archive shard: finished records as a columnar Parquet file, and back.

A row is a run: id, status, device and version columns to search by, configuration, summary and provenance
as JSON, and one list column a curve key (``curve/val_accuracy``), all lists of a row equally long. In a list
null means "not measured at this point", or "not a number" where the point is marked diverged. Runs whose layers
were recorded have these recordings as JSON in the column ``layers``, which is read when it is asked for.

What is archived is published, so paths and host names are taken out (:func:`public`).
"""

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gbn.store.files import StoreError, write_bytes_atomically
from gbn.store.records import Record

FORMAT = "1"
_CURVE = "curve/"
_LAYERS, _RECORDED = "layers", "recorded"  # the recordings, and how many a run has
_PRIVATE_KEYS = frozenset(
    {"host", "hostname", "user", "username", "cwd", "pid", "results_dir", "root", "tracker"}
)
_ABSOLUTE = re.compile(r"(?<![\w.~:/])(?:~|/[\w.+@~-]+)(?:/[\w.+@~-]+)*/([\w.+@~-]+)")


def write(path: Path, records: Sequence[Record], experiment: str) -> None:
    """Write the records, made public, as one shard."""
    rows = [public(record) for record in records]
    columns: dict[str, Any] = {
        "run_id": pa.array([row.run_id for row in rows], pa.string()),
        "experiment": pa.array([experiment] * len(rows), pa.string()),
        "status": pa.array([row.status for row in rows], pa.string()),
    }
    for name in ("device", "device_kind", "torch"):
        values = [row.environment.get(name) for row in rows]
        columns[name] = pa.array([None if value is None else str(value) for value in values], pa.string())
    for name in ("config", "summary", "provenance"):
        columns[name] = pa.array(
            [json.dumps(getattr(row, name), sort_keys=True) for row in rows], pa.string()
        )
    for key in sorted({key for row in rows for point in row.curve for key in point}):
        lists = [[point.get(key) for point in row.curve] for row in rows]
        columns[_CURVE + key] = _column(lists)
    columns["points"] = pa.array([len(row.curve) for row in rows], pa.int64())
    recordings = [row.layers for row in rows]
    if any(recordings):
        columns[_RECORDED] = pa.array([len(recording) for recording in recordings], pa.int64())
        texts = [json.dumps(recording, separators=(",", ":")) for recording in recordings]
        columns[_LAYERS] = pa.array(texts, pa.string())
    table = pa.table(columns).replace_schema_metadata({"gbn.format": FORMAT})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=9)
    write_bytes_atomically(path, sink.getvalue().to_pybytes())


def read(path: Path) -> list[Record]:
    """The records of one shard.

    Raises:
        StoreError: no Parquet file, or a shard of another format.
    """
    try:
        names = pq.read_schema(path).names
        table = pq.read_table(path, columns=[name for name in names if name != _LAYERS])
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{path} is no readable shard ({str(error).splitlines()[0]}): check it out again"
        ) from None
    found = (table.schema.metadata or {}).get(b"gbn.format", b"none").decode()
    if found != FORMAT:
        raise StoreError(f"{path} has shard format {found}, this version reads {FORMAT}: update gbn")
    curves = [name for name in table.column_names if name.startswith(_CURVE)]
    return [
        Record(
            run_id=row["run_id"],
            status=row["status"],
            config=json.loads(row["config"]),
            summary=json.loads(row["summary"]) | {"config": json.loads(row["config"])},
            curve=_points(row, curves),
            provenance=json.loads(row["provenance"]),
            source="archive",
            shard=path.name,
            read_layers=partial(_read_layers, path, index) if row.get(_RECORDED) else None,
        )
        for index, row in enumerate(table.to_pylist())
    ]


def _read_layers(path: Path, row: int) -> list[dict[str, Any]]:
    """The layer recordings of one row of a shard."""
    return list(json.loads(_layers_column(path)[row]))


@lru_cache(maxsize=4)  # a shard never changes, and its rows are mostly asked for one after the other
def _layers_column(path: Path) -> list[str]:
    return list(pq.read_table(path, columns=[_LAYERS]).column(_LAYERS).to_pylist())


def _points(row: dict[str, Any], curves: Iterable[str]) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = [{} for _ in range(row["points"])]
    for name in curves:
        key = name.removeprefix(_CURVE)
        for point, value in zip(points, row[name] or [], strict=False):
            if value is not None:
                point[key] = value
    return points


def _column(lists: list[list[Any]]) -> Any:
    values = {type(value) for row in lists for value in row if value is not None}
    if values <= {bool}:
        return pa.array(lists, pa.list_(pa.bool_()))
    if values <= {int}:
        return pa.array(lists, pa.list_(pa.int64()))
    if values <= {int, float}:
        floats = [[None if value is None else float(value) for value in row] for row in lists]
        return pa.array(floats, pa.list_(pa.float64()))
    if values <= {str}:
        return pa.array(lists, pa.list_(pa.string()))
    kinds = ", ".join(sorted(kind.__name__ for kind in values))
    raise StoreError(f"a key of a curve holds one kind of plain value; got {kinds}")


def public(record: Record) -> Record:
    """The record without what belongs to a machine: folders, host and user names, the tracker's settings.

    The identity is kept word for word (the run id is its hash); the summary's copy of the configuration goes.
    """
    summary = {name: value for name, value in (record.summary or {}).items() if name != "config"}
    verbatim = {"identity": summary["identity"]} if "identity" in summary else {}
    return Record(
        run_id=record.run_id,
        status=record.status,
        config=_public(record.config),
        summary=_public(summary) | verbatim,
        curve=[{key: value for key, value in point.items() if value is not None} for point in record.curve],
        provenance=_public(record.provenance),
        source=record.source,
        shard=record.shard,
        read_layers=record.read_layers,
    )


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(inner) for key, inner in value.items() if key not in _PRIVATE_KEYS}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    if isinstance(value, str):
        return _ABSOLUTE.sub(r"<path>/\1", value)
    return value
