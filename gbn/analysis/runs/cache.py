"""A columnar cache of the runs on disk, in ``<results_dir>/cache/``. It saves time and is never a source of truth.

It consists of Parquet files, called *parts*, each with the rows (:mod:`gbn.analysis.runs.ingest`) of up to a few
hundred runs. A row counts only if its stamp matches the current files of the run, so a run that changed or
disappeared is never served from the cache. A part counts only if its checksum matches its name. Rows come from files
that passed every check (:mod:`gbn.store.finished`, :mod:`gbn.store.shards`). If a file rots on disk without its stamp
changing, its row stays right: tables show the numbers that were checked, and the damage is found when the file is
next read.

The cache can be deleted at any time. Several processes may read and write it at once without a lock (at worst, two of
them write the same rows), and a folder that cannot be written simply gets no cache. Each version of the format uses
its own file names.
"""

import contextlib
import hashlib
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gbn.analysis.runs.columns import Block, Row
from gbn.analysis.runs.ingest import join, list_runs, read_runs, stamp, stamps, table_of
from gbn.store.archive import RETRACTIONS, Archive
from gbn.store.files import remove_leftovers
from gbn.store.records import RunStore
from gbn.store.shards import SUMS

VERSION = 3  # raise this when the columns, the meaning of their values, or the checks change
PART_RUNS = 500  # runs per part: few enough that building two at once takes little memory
_SMALL_PARTS = 16  # merge small parts once there are more than this
_THREADS = 2  # one parses while the other reads files; more threads did not help on the machines this targets
_REPEATED = ["status", "machine", "clock", "norm", "rest", "data"]


class Cache:
    """A snapshot of the finished runs of a results directory. What has been read once is not looked at again.

    Args:
        results_dir: holds ``runs/``, ``archive/`` and ``cache/`` (created when needed).
        enabled: if False, read every file anew and write nothing.
    """

    def __init__(self, results_dir: str | Path, enabled: bool = True) -> None:
        self.store = RunStore(results_dir)
        self.archive = Archive(results_dir)
        self.folder = self.store.results_dir / "cache"
        self.enabled = enabled
        self._stored: dict[str, Row] = {}
        self._archived: list[Row] | None = None

    def stored(self, run_ids: Iterable[str]) -> dict[str, Row]:
        """Return the rows of those of these runs that are finished in the store, by run id.

        Raises:
            StoreError: a file of one of these runs is damaged.
        """
        run_ids = list(run_ids)
        found = self._stored
        wanted = stamps(self.store, (run_id for run_id in run_ids if run_id not in found))
        if wanted:
            self._look(wanted)
        return {run_id: found[run_id] for run_id in run_ids if run_id in found}

    def _look(self, wanted: Mapping[str, str]) -> None:
        """Find the rows of these runs (run id -> stamp) in the cache, or read them from their files."""
        found = self._stored
        parts = self._parts(f"runs-{VERSION}")
        for part in parts.values():
            fitting = [
                index
                for index, (run_id, mark) in enumerate(part.stamps)
                if wanted.get(run_id) == mark and run_id not in found
            ]
            found.update((row.run_id, row) for row in part.rows(fitting, "store"))
        missing = {run_id: mark for run_id, mark in wanted.items() if run_id not in found}
        sizes = [len(part) for part in parts.values()]
        for block in self._read(missing):
            sizes.append(len(block))
            found.update((row.run_id, row) for row in block.rows(range(len(block)), "store"))
        if missing and self.enabled and self._untidy(sizes):
            self._tidy()

    def archived(self) -> list[Row]:
        """Return the rows of the archive's records in archive order. A run may have several, from several machines.

        Raises:
            StoreError: see :class:`gbn.store.archive.Archive`.
        """
        if self._archived is None:
            block = self._archive_block()
            self._archived = list(block.rows(range(len(block)), "archive")) if block else []
        return self._archived

    def _archive_block(self) -> Block | None:
        files = [*self.archive.shards(), self.archive.folder / RETRACTIONS, self.archive.folder / SUMS]
        state = hashlib.sha256(repr([(path.name, stamp(path)) for path in files]).encode()).hexdigest()[:16]
        name = f"archive-{VERSION}-{state}"
        for block in self._parts(name).values():
            return block
        records = list(self.archive)
        if not records:
            return None
        block = self._add(table_of(records, state), name)
        for path in self.folder.glob("archive-*.parquet"):
            if not path.name.startswith(name):
                _remove(path)
        return block

    def _read(self, stamped: Mapping[str, str]) -> Iterator[Block]:
        """Read runs from their files and cache them."""
        ids = list(stamped)
        chunks = [{i: stamped[i] for i in ids[k : k + PART_RUNS]} for k in range(0, len(ids), PART_RUNS)]

        def read(chunk: Mapping[str, str]) -> Block:
            return self._add(read_runs(self.store, chunk), f"runs-{VERSION}")

        if len(chunks) < 2:
            yield from map(read, chunks)
        else:
            with ThreadPoolExecutor(_THREADS) as pool:
                yield from pool.map(read, chunks)

    def _parts(self, prefix: str) -> dict[Path, Block]:
        """Return the readable parts with this prefix; remove those that are damaged or foreign."""
        parts: dict[Path, Block] = {}
        if self.enabled:
            for path in sorted(self.folder.glob(f"{prefix}-*.parquet")):
                try:
                    parts[path] = _open(path)
                except OSError:  # another process just merged it, or we may not read it
                    continue
                except (ValueError, KeyError):
                    _remove(path)
        return parts

    def _add(self, table: pa.Table, prefix: str) -> Block:
        """Add a table as a new part, kept in memory if it cannot be written."""
        path = self._write(table, prefix) if self.enabled else None
        return Block(table) if path is None else _open(path)

    def _write(self, table: pa.Table, prefix: str) -> Path | None:
        """Write a part atomically; return None if the folder is read-only or the disk is full."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", compression_level=1, use_dictionary=_REPEATED)
        content = sink.getvalue()
        path = self.folder / f"{prefix}-{zlib.crc32(content):08x}.parquet"
        try:
            if not (self.folder / ".gitignore").exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / ".gitignore").write_text("*\n", encoding="utf-8", newline="\n")
            remove_leftovers(self.folder)
            temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
            try:
                temporary.write_bytes(content)
                os.replace(temporary, path)
            finally:
                _remove(temporary)
        except OSError:
            return None
        return path

    def _untidy(self, sizes: Sequence[int]) -> bool:
        """Return whether parts of these sizes are too many, or hold too many rows of changed or removed runs."""
        small = sum(size < PART_RUNS // 2 for size in sizes)
        return small > _SMALL_PARTS or sum(sizes) > 2 * len(list_runs(self.store)) + PART_RUNS

    def _tidy(self) -> None:
        """Merge small parts and drop rows of runs that changed or disappeared."""
        name = f"runs-{VERSION}"
        parts = self._parts(name)
        now = stamps(self.store, {run_id for part in parts.values() for run_id, _ in part.stamps})
        seen: set[str] = set()
        tables, replaced = [], []
        for path, part in sorted(parts.items(), key=lambda item: -len(item[1])):
            live = [i for i, (run_id, mark) in enumerate(part.stamps) if now.get(run_id) == mark]
            live = [i for i in live if part.stamps[i][0] not in seen]
            seen.update(part.stamps[i][0] for i in live)
            if len(live) < len(part) or len(part) < PART_RUNS // 2:
                tables.append(part.table().take(pa.array(live, pa.int64())))
                replaced.append(path)
        if not tables:
            return
        merged = join(tables)
        written = {
            self._write(merged.slice(start, PART_RUNS), name) for start in range(0, len(merged), PART_RUNS)
        }
        if None not in written:
            for path in set(replaced) - written:
                _remove(path)


def _open(path: Path) -> Block:
    """Open a part after comparing its content with the checksum in its name.

    Raises:
        ValueError: the checksum does not match.
        OSError: the file cannot be read.
    """
    checksum = 0
    with open(path, "rb") as file:
        while content := file.read(1 << 20):
            checksum = zlib.crc32(content, checksum)
    if path.stem.rpartition("-")[2] != f"{checksum:08x}":
        raise ValueError(f"{path} is damaged")
    return Block(pq.ParquetFile(path))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
