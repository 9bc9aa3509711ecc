"""Archive shards: finished records to a columnar Parquet file, and back.

A row is a run: id, status, device and version columns to search by, configuration, summary and provenance
as JSON, and one list column per curve key (``curve/val_accuracy``), all lists of a row having the same length. In a
list, null means "not measured at this point", or "not a number" if the point is marked diverged. Runs whose layers
were recorded have the recordings as JSON in the column ``layers``, which is read on demand.

The archive is published, so paths and host names are removed (:func:`public`).

A shard's name ends with a digest, ``<label>-<date>-<digest>.parquet``, and a shard whose digest does not match
is not read. A digest of 16 digits is of the file's bytes: any changed byte is found before Parquet's reader sees it,
and the rest of the name is stored in the file, so that a renamed file is found too. Shards of earlier versions have 8
digits, of the records' content, which does not cover the configurations; the digests of their bytes are in
``SHA256SUMS`` beside them, in the format of ``sha256sum``.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gbn.store.files import StoreError, content_of, digest, write_bytes_atomically
from gbn.store.finished import problem_of
from gbn.store.record import Curve, Record

FORMAT = "1"
SUMS = "SHA256SUMS"
_FORMAT, _NAME = b"gbn.format", b"gbn.name"
_OF_CONTENT = 8  # digits in the names of earlier versions' shards
_CURVE = "curve/"
_LAYERS, _RECORDED = "layers", "recorded"  # the recordings, and how many each run has
_PRIVATE_KEYS = frozenset(
    {"host", "hostname", "user", "username", "cwd", "pid", "results_dir", "root", "tracker"}
)
_ABSOLUTE = re.compile(r"(?<![\w.~:/])(?:~|/[\w.+@~-]+)(?:/[\w.+@~-]+)*/([\w.+@~-]+)")


def write(folder: Path, records: Sequence[Record], experiment: str, date: str) -> Path:
    """Write the records, made public, as one shard.

    Raises:
        StoreError: this shard exists already.
    """
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
    stem = f"{_label(experiment)}-{date}"
    table = pa.table(columns).replace_schema_metadata({_FORMAT: FORMAT, _NAME: stem})
    sink = pa.BufferOutputStream()
    # The page checksums are for other programs that read the file: here the digest covers all of it.
    pq.write_table(table, sink, compression="zstd", compression_level=9, write_page_checksum=True)
    content = sink.getvalue().to_pybytes()
    path = folder / f"{stem}-{digest(content)}.parquet"
    if path.exists():
        raise StoreError(f"{path} exists already: a shard is written once (was it retracted?)")
    write_bytes_atomically(path, content)
    return path


def read(path: Path) -> list[Record]:
    """Read the records of one shard.

    Raises:
        StoreError: the file does not match its name, or has another format.
    """
    content, sums = _content(path), sums_of(path.parent)
    ending = path.stem.rpartition("-")[2]
    earlier = len(ending) == _OF_CONTENT
    if earlier and sums and sums.get(path.name) != hashlib.sha256(content).hexdigest():
        raise _changed(
            path, f"its name and bytes are not in {SUMS}, where every shard of earlier versions is"
        )
    if not earlier and ending != digest(content):
        raise _changed(path, "its bytes do not match its name")
    return [*_parsed(path, content, earlier, checked=bool(sums))]


@lru_cache(maxsize=64)  # an experiment's tables, figures and claims read the same shards, which never change
def _parsed(path: Path, content: bytes, earlier: bool, checked: bool) -> tuple[Record, ...]:
    stem, _, ending = path.stem.rpartition("-")
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        table = file.read([column for column in file.schema_arrow.names if column != _LAYERS])
        metadata = file.schema_arrow.metadata or {}
        found = metadata.get(_FORMAT, b"none").decode(errors="replace")
        records = _records(path, digest(content), table) if found == FORMAT else []
        if earlier:
            fitting = checked or _fits(stem, ending, records, table)
        else:
            fitting = metadata.get(_NAME) == stem.encode()
    except Exception as error:  # a damaged file can make Parquet's reader and ours raise anything
        raise _changed(path, " ".join(str(error).split()) or type(error).__name__) from None
    if found != FORMAT:
        raise StoreError(f"{path} has shard format {found}, this version reads {FORMAT}: update gbn")
    if not fitting:
        raise _changed(path, "it was renamed, or its records do not match its name")
    return tuple(records)


def sums_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each shard of an earlier version, by name; empty if there is no list.

    Raises:
        StoreError: the list is damaged.
    """
    path = folder / SUMS
    text = (content_of(path) or b"").decode(errors="replace")
    found = re.findall(r"^([0-9a-f]{64})  ([^/\n]+)$", text, re.MULTILINE)
    if len(found) != text.count("\n"):
        raise StoreError(f"{path} is damaged (a line is not a digest with a name): check it out again")
    return {name: sum_ for sum_, name in found}


def content_hash(records: Iterable[Record]) -> str:
    """Return the ending of an earlier version's shard name, given its public records in the order of the shard."""
    texts = []
    for record in records:
        parts: Sequence[Any] = (record.run_id, record.summary, record.curve, record.provenance)
        texts.append(json.dumps((*parts, record.layers) if record.read_layers else parts, sort_keys=True))
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:_OF_CONTENT]


def _label(experiment: str) -> str:
    return experiment.strip("/").removeprefix("experiments/").replace("/", "_") or "runs"


def _fits(stem: str, ending: str, records: Sequence[Record], table: pa.Table) -> bool:
    """Return whether the records of an earlier version's shard match its name and are consistent."""
    labels = {_label(experiment) for experiment in table["experiment"].to_pylist()}
    return (
        ending == content_hash(map(public, records))
        and labels == {stem[: -len("-YYYY-MM-DD")]}
        and not any(
            problem_of(record.run_id, record.summary or {}, record.config, record.curve, record.provenance)
            or record.status != (record.summary or {}).get("status")
            for record in records
        )
    )


def _content(path: Path) -> bytes:
    content = content_of(path)
    if content is None:
        raise StoreError(f"{path} is missing: check it out again")
    return content


def _changed(path: Path, what: str) -> StoreError:
    return StoreError(f"{path} is not a readable shard ({what}): check it out again")


def _records(path: Path, known: str, table: pa.Table) -> list[Record]:
    names = [name for name in table.column_names if name.startswith(_CURVE)]
    curves = {name.removeprefix(_CURVE): table[name] for name in names}
    return [
        Record(
            run_id=row["run_id"],
            status=row["status"],
            config=json.loads(row["config"]),
            summary=json.loads(row["summary"]) | {"config": json.loads(row["config"])},
            curve=Curve(
                {key: lists[index].values for key, lists in curves.items() if lists[index].is_valid},
                partial(_points, row["points"]),
            ),
            provenance=json.loads(row["provenance"]),
            source="archive",
            shard=path.name,
            read_layers=partial(_read_layers, path, known, index) if row.get(_RECORDED) else None,
        )
        for index, row in enumerate(table.drop_columns(names).to_pylist())
    ]


def _read_layers(path: Path, known: str, row: int) -> list[dict[str, Any]]:
    """Return the layer recordings in one row of a shard, after checking the digest of its bytes."""
    return list(json.loads(_layers_column(path, known)[row]))


@lru_cache(maxsize=4)  # a shard never changes, and its rows are mostly read in turn
def _layers_column(path: Path, known: str) -> list[str]:
    content = _content(path)
    if digest(content) != known:
        raise _changed(path, "it was changed since it was read")
    table = pq.read_table(pa.BufferReader(content), columns=[_LAYERS], page_checksum_verification=True)
    return list(table.column(_LAYERS).to_pylist())


def _points(count: int, columns: Mapping[str, pa.Array]) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = [{} for _ in range(count)]
    for key, values in columns.items():
        for point, value in zip(points, values.to_pylist(), strict=False):
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
    """Return the record without machine-specific details: folders, host and user names, the tracker's settings.

    The identity is kept word for word (the run id is its hash); the summary's copy of the configuration is dropped.
    """
    summary = {name: value for name, value in (record.summary or {}).items() if name != "config"}
    verbatim = {"identity": summary["identity"]} if "identity" in summary else {}
    return replace(
        record,
        config=_public(record.config),
        summary=_public(summary) | verbatim,
        curve=[{key: value for key, value in point.items() if value is not None} for point in record.curve],
        provenance=_public(record.provenance),
    )


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(inner) for key, inner in value.items() if key not in _PRIVATE_KEYS}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    if isinstance(value, str):
        return _ABSOLUTE.sub(r"<path>/\1", value)
    return value
