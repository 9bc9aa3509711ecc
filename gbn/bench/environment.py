"""The environment of a benchmark, as columns of its file, and reading and writing the file."""

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Columns that describe the environment; the same in every row of a file.
COLUMNS = (
    *("device", "device_kind", "threads", "cores", "torch", "numba", "triton", "python", "cuda"),
    *("allocator", "omp_wait_policy", "commit", "dirty", "date"),
)


def environment(device: "torch.device", allocator: str) -> dict[str, Any]:
    """Return one value for each of :data:`COLUMNS`.

    ``GBN_COMMIT`` gives the commit if the files are used without their repository.
    """
    import torch

    from gbn.engine.provenance import device_kind, git_state, package_versions

    versions, state = package_versions(), git_state()
    return {
        "device": device.type,
        "device_kind": device_kind(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        **{name: versions.get(name, "") for name in ("torch", "numba", "triton", "python")},
        "cuda": torch.version.cuda if device.type == "cuda" else "",
        "allocator": allocator,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "commit": state["commit"] or os.environ.get("GBN_COMMIT", ""),
        "dirty": state["dirty"] or "",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def pick_device(name: str | None) -> "torch.device":
    """Return the requested device; by default the GPU if there is one.

    Raises:
        ValueError: cuda is requested, but torch sees no GPU.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no GPU here; leave --device out, or give --device cpu")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def file_name(kind: str, environment: Mapping[str, Any]) -> str:
    """Return a name such as ``norm-<device>-<date>.csv``."""
    device = re.sub(r"[^a-z0-9]+", "-", environment["device_kind"].lower()).strip("-")
    return f"{kind}-{device}-{environment['date'][:10]}.csv"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> None:
    """Write a CSV; numbers have six digits, more than any timing justifies."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)
    write(path, text.getvalue().encode())


def write(path: Path, content: bytes) -> None:
    """Replace a file atomically; defined here since gbn.store needs the packages of the extra ``lab``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_rows(path: Path, needs: Iterable[str] = (), lacks: Iterable[str] = ()) -> list[dict[str, str]]:
    """Read the rows of a CSV, everything as text.

    Args:
        path: the file.
        needs: columns that it must have.
        lacks: columns that identify another script's file.

    Raises:
        ValueError: there is no such file or no row in it, a row is cut off, or the columns are another script's.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}: give a CSV that this script wrote")
    with open(path, newline="", encoding="utf-8") as file:
        try:
            rows = list(csv.DictReader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a CSV ({error}): give one that this script wrote") from None
    if not rows:
        raise ValueError(f"{path} has no rows: nothing to render")
    wrong = [name for name in needs if name not in rows[0]] + [name for name in lacks if name in rows[0]]
    if wrong:
        raise ValueError(f"{path} is not of this script (column {wrong[0]}): give a CSV that it wrote")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(f"{path} line {number} has not as many fields as the head: the file is damaged")
    return rows


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
