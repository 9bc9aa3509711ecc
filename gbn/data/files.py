"""The files behind a data set: where they lie, whether they are whole, how to get them.

torchvision supplies addresses, checksums and the readers. What it lacks is here: each file is hashed once
(its own classes hash everything for each half of a set), a broken file is named, and no download can hang.
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

from gbn.data.image_set import DataError
from gbn.data.torchvision_shim import import_torchvision

REACH_SECONDS = 15.0  # for a server's first answer; after that, each silence of this length ends a download


@dataclass(frozen=True)
class Archive:
    """A file on the internet, and where it belongs under the root.

    Attributes:
        urls: mirrors, tried in order.
        folder: folder under the root to put it in (and to unpack it in).
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
"""Looks at a root and says what is wrong with the files there, one short phrase a problem."""


def data_root(root: str | os.PathLike[str] | None) -> Path:
    """The folder that holds the data sets: the argument, else the variable GBN_DATA, else ``data``."""
    return Path(root or os.environ.get("GBN_DATA") or "data").expanduser().absolute()


def obtain(name: str, root: Path, check: Check, archives: tuple[Archive, ...], download: bool) -> None:
    """Return when the files of a set are in place and whole; fetch and unpack them where needed and allowed.

    An archive that already lies where it belongs is unpacked without the network, also with ``download`` off.
    Processes that need the same set wait for the one that fetches it.

    Raises:
        DataError: they are not, and cannot be had; one line that says what to put where.
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
            failure = f"getting it failed: {_one_line(error)}"
        else:
            failure = "the files were fetched again, to no avail"
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


def md5(path: Path) -> str:
    """MD5 of a file (the checksum that torchvision publishes; no security rests on it)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def wrong_files(folder: Path, expected: dict[str, str]) -> list[str]:
    """Phrases for the files of ``expected`` (name -> md5) that ``folder`` lacks or that do not match."""
    present = {name: folder / name for name in expected if (folder / name).is_file()}
    if not present:
        return [f"no files in {folder}"]
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing releases the interpreter's lock
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
    """One identifier for a set of files with the checksums of what they hold (of published ones: once verified)."""
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
    """Return when a server of ``archive`` has answered at all.

    In a thread of its own with a deadline: looking up a name has no time limit of its own, and without a
    network it can take minutes.

    Raises:
        OSError: none did in REACH_SECONDS.
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
                pass  # an answer, even if it is no: the download itself will say what is wrong
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
    """Within, a connection that is silent for REACH_SECONDS raises: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(REACH_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the root's download lock; it goes with the process, however that ends."""
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".gbn-download.lock"):
        yield


def _one_line(error: BaseException) -> str:
    """The message of an error in one line; of a URLError, the reason inside."""
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split()) or type(error).__name__
