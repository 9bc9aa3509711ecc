"""The files of a data set: where they are, whether they are intact, how to get them.

torchvision provides addresses, checksums and readers. This module adds what it lacks: each file is hashed once
(torchvision's classes hash everything for each half of a set), a broken file is named, and no download can hang.
"""

import hashlib
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from gbn.data.image_set import DataError
from gbn.data.torchvision_shim import import_torchvision

REACH_SECONDS = 15.0  # timeout for a server's first answer, and for each silence during a download


@dataclass(frozen=True)
class Archive:
    """A file on the internet, and its place under the root.

    Attributes:
        urls: mirrors, tried in order.
        folder: folder under the root where it is stored (and unpacked).
        name: its name there.
        md5: torchvision's checksum.
        unpack: whether it has to be unpacked.
    """

    urls: tuple[str, ...]
    folder: str
    name: str
    md5: str
    unpack: bool = True


Check = Callable[[Path], list[str]]
"""Returns what is wrong with the files under a root, one short phrase per problem."""


def data_root(root: str | os.PathLike[str] | None) -> Path:
    """Return the folder that holds the data sets: the argument, else the variable GBN_DATA, else ``data``."""
    return Path(root or os.environ.get("GBN_DATA") or "data").expanduser().absolute()


def obtain(name: str, root: Path, check: Check, archives: tuple[Archive, ...], download: bool) -> None:
    """Make sure that the files of a set are present and intact; download and unpack them if necessary and allowed.

    An archive that is already in place is unpacked without the network, even with ``download`` off. Processes that
    need the same set wait for the one that downloads it.

    Raises:
        DataError: the files are not available; the message is one line that says what to put where.
    """
    problems = check(root)
    if not problems:
        return
    failure = "downloading is off (dataset.download=false)"
    missing = tuple(archive for archive in archives if not _in_place(archive, root))
    if not missing or download:
        try:
            for archive in missing:
                _reach(archive)
            with _alone(root):
                problems = check(root)
                if problems:
                    _fetch(archives, root)
                    problems = check(root)
        # torchvision reports a wrong checksum as RuntimeError.
        except (OSError, RuntimeError, HTTPException) as error:
            failure = f"the download failed: {_one_line(error)}"
        else:
            failure = "downloading the files again did not help"
    if problems:
        raise DataError(_message(name, root, problems, failure, archives))


def _message(name: str, root: Path, problems: list[str], failure: str, archives: tuple[Archive, ...]) -> str:
    shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
    wanted = ", ".join(archive.name for archive in archives)
    origin = archives[0].urls[0].rpartition("/")[0]
    folder = root / archives[0].folder
    return (
        f"{name}: {shown} (looked in {root}); {failure}. Put {wanted} from {origin}/ into {folder}"
        f"{' (unpacked or not)' if archives[0].unpack else ''}, or name the folder that holds the data sets "
        "with dataset.root=... or the environment variable GBN_DATA"
    )


def without_check(source: Any) -> Any:
    """Return a class of torchvision that does not hash its files: :func:`obtain` did, once for both halves."""
    return type("Verified", (source,), {"_check_integrity": lambda self: True})


def md5(path: Path) -> str:
    """Return the MD5 of a file (the checksum that torchvision publishes; security does not depend on it)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def wrong_files(folder: Path, expected: dict[str, str]) -> list[str]:
    """Return a phrase for each file of ``expected`` (name -> md5) that is missing in ``folder`` or does not match."""
    present = {name: folder / name for name in expected if (folder / name).is_file()}
    if not present:
        return [f"no files in {folder}"]
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing releases the GIL
        sums = dict(zip(present, pool.map(md5, present.values()), strict=True))
    problems = []
    for name, wanted in expected.items():
        if name not in sums:
            problems.append(f"{folder / name} is missing")
        elif sums[name] != wanted:
            problems.append(
                f"{folder / name} is truncated or corrupted (md5 {sums[name]}, should be {wanted})"
            )
    return problems


def digest_of(checksums: dict[str, str]) -> str:
    """Return one identifier for a set of files, from the checksums of their contents (published ones verified)."""
    lines = "".join(f"{name} {checksum}\n" for name, checksum in sorted(checksums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _in_place(archive: Archive, root: Path) -> bool:
    path = root / archive.folder / archive.name
    return path.is_file() and md5(path) == archive.md5


def _fetch(archives: tuple[Archive, ...], root: Path) -> None:
    import_torchvision()
    from torchvision.datasets.utils import download_and_extract_archive, download_url

    for archive in archives:
        get = download_and_extract_archive if archive.unpack else download_url
        folder = root / archive.folder
        errors = []
        for url in archive.urls:
            try:
                with _silence_limited():
                    get(url, folder, filename=archive.name, md5=archive.md5)
                break
            except (OSError, RuntimeError, HTTPException) as error:
                errors.append(f"{url}: {_one_line(error)}")
        else:
            raise OSError("; ".join(errors))


def _reach(archive: Archive) -> None:
    """Return as soon as a server of ``archive`` gives any answer.

    This uses a separate thread with a deadline, since a name lookup has no timeout of its own and can take minutes
    without a network.

    Raises:
        OSError: no server answered within REACH_SECONDS.
    """
    outcome: list[str] = []

    def ask() -> None:
        reasons = []
        for url in archive.urls:
            try:
                request = urllib.request.Request(url, method="HEAD")
                with urllib.request.urlopen(request, timeout=REACH_SECONDS):
                    pass
            except urllib.error.HTTPError:
                pass  # an answer, even if an error: the download itself will report it
            except (OSError, ValueError, HTTPException) as error:
                reasons.append(f"{url}: {_one_line(error)}")
                continue
            outcome.append("")
            return
        outcome.append("; ".join(reasons))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    if not outcome:
        raise TimeoutError(f"{archive.urls[0]}: no answer in {REACH_SECONDS:g} s")
    if outcome[0]:
        raise OSError(outcome[0])


@contextmanager
def _silence_limited() -> Iterator[None]:
    """Make connections raise within this context if silent for REACH_SECONDS: torchvision sets no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(REACH_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the root's download lock; it is released with the process, however that ends."""
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".gbn-download.lock"):
        yield


def _one_line(error: BaseException) -> str:
    """Return the message of an error as one line; for a URLError, its underlying reason."""
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split()) or type(error).__name__
