"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017): 28x28 gray images, 60,000 + 10,000.

torchvision publishes checksums of the packed files only. A packed file that matches its checksum contains the
length and CRC-32 of the unpacked file, so unpacked files are verified by it if the packed ones are still next to
them, where torchvision leaves them; otherwise their headers, sizes and labels must at least be consistent.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from gbn.data.files import Archive, digest_of, md5, obtain
from gbn.data.image_set import ImageSet, image_set
from gbn.data.torchvision_shim import import_torchvision


def mnist(root: Path, download: bool) -> ImageSet:
    """Return MNIST: ten handwritten digits."""
    return _mnist("mnist", import_torchvision().datasets.MNIST, root, download)


def fashion_mnist(root: Path, download: bool) -> ImageSet:
    """Return Fashion-MNIST: ten kinds of clothing."""
    return _mnist("fashion_mnist", import_torchvision().datasets.FashionMNIST, root, download)


def _mnist(name: str, source: Any, root: Path, download: bool) -> ImageSet:
    raw = Path(source.__name__) / "raw"
    packed = dict(source.resources)
    archives = tuple(
        Archive(tuple(mirror + file for mirror in source.mirrors), str(raw), file, checksum)
        for file, checksum in packed.items()
    )
    obtain(name, root, lambda root: _problems(root / raw, packed), archives, download)
    train, test = source(str(root), train=True), source(str(root), train=False)
    files = [file.removesuffix(".gz") for file in packed]
    return image_set(
        name,
        (train.data.unsqueeze(1), train.targets),
        (test.data.unsqueeze(1), test.targets),
        tuple(source.classes),
        digest_of({file: md5(root / raw / file) for file in files}),
    )


def _problems(folder: Path, packed: dict[str, str]) -> list[str]:
    files = {folder / name.removesuffix(".gz"): checksum for name, checksum in packed.items()}
    if not any(path.is_file() for path in files):
        return [f"no files in {folder}"]
    problems = [_problem(path, checksum) for path, checksum in files.items()]
    found = [problem for problem in problems if problem]
    return found or _unequal(folder)


def _problem(path: Path, packed_md5: str) -> str:
    """Return what is wrong with one unpacked file, or an empty string."""
    if not path.is_file():
        return f"{path} is missing"
    content = path.read_bytes()
    dimensions = content[3] if len(content) > 4 and content[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(content[4 : 4 + 4 * dimensions], dtype=">i4").tolist()
    wanted = 4 + 4 * dimensions + int(np.prod(shape))
    if dimensions != (3 if "images" in path.name else 1) or len(shape) != dimensions:
        return f"{path} is corrupted (its header is not that of an IDX file of bytes)"
    if len(content) != wanted:
        return f"{path} is truncated or corrupted ({len(content)} bytes, its header says {wanted})"
    trailer = _trailer(path.with_name(path.name + ".gz"), packed_md5)
    if trailer and trailer != (zlib.crc32(content), len(content)):
        return f"{path} is corrupted (its CRC-32 is not the one in {path.name}.gz)"
    return ""


def _trailer(path: Path, checksum: str) -> tuple[int, int] | None:
    """Return CRC-32 and length of the contents of a packed file; None if it is absent or not torchvision's."""
    if not path.is_file() or md5(path) != checksum:
        return None
    tail = path.read_bytes()[-8:]
    return int.from_bytes(tail[:4], "little"), int.from_bytes(tail[4:], "little")


def _unequal(folder: Path) -> list[str]:
    """Return inconsistencies between files that are each intact: different numbers of labels and images."""
    problems = []
    for part in ("train", "t10k"):
        images, labels = folder / f"{part}-images-idx3-ubyte", folder / f"{part}-labels-idx1-ubyte"
        counts = [int.from_bytes(path.read_bytes()[4:8], "big") for path in (images, labels)]
        if counts[0] != counts[1]:
            problems.append(f"{images} has {counts[0]} images, {labels.name} has {counts[1]} labels")
    return problems
