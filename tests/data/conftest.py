"""Small files in torchvision's formats, with its checksums and addresses turned to them."""

import functools
import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io

from gbn.data import files
from gbn.data.torchvision_shim import import_torchvision

NOWHERE = "http://127.0.0.1:9"  # nothing listens there: refused at once


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("GBN_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server(tmp_path):
    """A web server for the folder ``server.folder``; ``server.requests`` counts what was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            requests.append(f"{self.command} {self.path}")

    bound = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield SimpleNamespace(folder=folder, url=f"http://127.0.0.1:{running.server_port}", requests=requests)
        running.shutdown()
        thread.join()


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """``fake(name)``: that set in miniature, see :class:`Fake`; its server is down until ``publish``."""
    datasets = import_torchvision().datasets
    makers = {
        "cifar10": lambda: _cifar(datasets.CIFAR10, monkeypatch, 10, "labels"),
        "cifar100": lambda: _cifar(datasets.CIFAR100, monkeypatch, 100, "fine_labels"),
        "mnist": lambda: _mnist(datasets.MNIST, monkeypatch),
        "fashion_mnist": lambda: _mnist(datasets.FashionMNIST, monkeypatch),
        "svhn": lambda: _svhn(datasets.SVHN, monkeypatch),
    }
    monkeypatch.setattr(files, "REACH_SECONDS", 60.0)  # the server is on this machine, which may be busy

    def make(name):
        return Fake(name, **makers[name]())

    make.knows = makers.keys().__contains__
    return make


class Fake:
    """The files of one miniature set and what they should load as.

    Attributes:
        folder: where its files lie under the root.
        contents: file name -> bytes.
        archives: archive name -> bytes, as they are downloaded.
        archive_folder: where the archives belong under the root.
        packed_beside: whether torchvision leaves the archives beside the files.
        expected: part -> (images uint8 (N, C, H, W), labels).
        serve: turns torchvision's addresses to a server.
    """

    def __init__(
        self, name, folder, contents, archives, archive_folder, expected, serve, packed_beside=False
    ):
        self.name = name
        self.folder = folder
        self.contents = contents
        self.archives = archives
        self.archive_folder = archive_folder
        self.expected = expected
        self.serve = serve
        self.packed_beside = packed_beside

    def install(self, root, packed=None):
        """Unpacked files in place; packed ones too, where torchvision leaves them or ``packed`` says so."""
        self._write(root / self.folder, self.contents)
        if self.packed_beside if packed is None else packed:
            self.install_archives(root)

    def install_archives(self, root):
        self._write(root / self.archive_folder, self.archives)

    def publish(self, server):
        self._write(server.folder, self.archives)
        self.serve(server.url)

    def _write(self, folder, contents):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)


def _images(seed, count, channels, size, classes):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    labels = np.arange(count) % classes
    return images, rng.permutation(labels)


def _cifar(source, monkeypatch, classes, key):
    train_names = [name for name, _ in source.train_list]
    test_names = [name for name, _ in source.test_list]
    contents, expected = {}, {"train": [], "test": []}
    for seed, name in enumerate(train_names + test_names):
        images, labels = _images(seed, classes * 2, 3, 32, classes)
        batch = {"data": images.reshape(len(images), -1), key: labels.tolist()}
        contents[name] = pickle.dumps(batch, protocol=2)
        expected["train" if name in train_names else "test"].append((images, labels))
    names = [f"class {i}" for i in range(classes)]
    contents[source.meta["filename"]] = pickle.dumps({source.meta["key"]: names}, protocol=2)

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{source.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive = packed.getvalue()

    def serve(url):
        monkeypatch.setattr(source, "url", f"{url}/{source.filename}")

    monkeypatch.setattr(source, "train_list", [[name, md5(contents[name])] for name in train_names])
    monkeypatch.setattr(source, "test_list", [[name, md5(contents[name])] for name in test_names])
    monkeypatch.setattr(source, "meta", source.meta | {"md5": md5(contents[source.meta["filename"]])})
    monkeypatch.setattr(source, "tgz_md5", md5(archive))
    serve(NOWHERE)
    return {
        "folder": source.base_folder,
        "contents": contents,
        "archives": {source.filename: archive},
        "archive_folder": "",
        "expected": {part: _joined(halves) for part, halves in expected.items()},
        "serve": serve,
    }


def _joined(halves):
    return np.concatenate([images for images, _ in halves]), np.concatenate([labels for _, labels in halves])


def _mnist(source, monkeypatch):
    contents, expected = {}, {}
    for seed, (part, count) in enumerate({"train": 40, "t10k": 20}.items()):
        images, labels = _images(seed, count, 1, 28, 10)
        head = b"\0\0\x08\x03" + np.array([count, 28, 28], dtype=">i4").tobytes()
        contents[f"{part}-images-idx3-ubyte"] = head + images.tobytes()
        head = b"\0\0\x08\x01" + np.array([count], dtype=">i4").tobytes()
        contents[f"{part}-labels-idx1-ubyte"] = head + labels.astype(np.uint8).tobytes()
        expected["train" if part == "train" else "test"] = (images, labels)
    archives = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in contents.items()}

    def serve(url):
        # The first mirror is down, as happens.
        monkeypatch.setattr(source, "mirrors", [f"{NOWHERE}/", f"{url}/"])

    monkeypatch.setattr(source, "resources", [(name, md5(content)) for name, content in archives.items()])
    serve(NOWHERE)
    folder = f"{source.__name__}/raw"
    return {
        "folder": folder,
        "contents": contents,
        "archives": archives,
        "archive_folder": folder,
        "expected": expected,
        "serve": serve,
        "packed_beside": True,
    }


def _svhn(source, monkeypatch):
    contents, expected = {}, {}
    for seed, (part, count) in enumerate({"train": 40, "test": 20}.items()):
        images, labels = _images(seed, count, 3, 32, 10)
        file = io.BytesIO()
        written = {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]}
        scipy.io.savemat(file, written)
        contents[f"{part}_32x32.mat"] = file.getvalue()
        expected[part] = (images, labels)

    def serve(url):
        parts = {
            part: [f"{url}/{part}_32x32.mat", f"{part}_32x32.mat", md5(contents[f"{part}_32x32.mat"])]
            for part in expected
        }
        monkeypatch.setattr(source, "split_list", parts)

    serve(NOWHERE)
    return {
        "folder": "",
        "contents": contents,
        "archives": contents,
        "archive_folder": "",
        "expected": expected,
        "serve": serve,
    }
