"""Every data set that is read from files: what it loads as, and what is said when it cannot be had."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from gbn.data import DataError, data_root, files, load

#: The sets with a miniature (conftest.py), and the file of each that tests break.
FIRST = {
    "cifar10": "data_batch_1",
    "cifar100": "train",
    "mnist": "train-images-idx3-ubyte",
    "fashion_mnist": "t10k-images-idx3-ubyte",
    "svhn": "test_32x32.mat",
}
FROM_FILES = list(FIRST)
# torchvision unpacks without saying how member paths are filtered, which Python 3.12 remarks upon.
pytestmark = pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")


def message(name, root, **options):
    with pytest.raises(DataError) as caught:
        load(name, root, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{name}: ")
    assert "GBN_DATA" in text
    return text


def assert_loads(fake, root, **options):
    loaded = load(fake.name, root, **options)
    for part in ("train", "test"):
        images, labels = fake.expected[part]
        assert torch.equal(getattr(loaded, f"{part}_images"), torch.from_numpy(images))
        assert getattr(loaded, f"{part}_images").is_contiguous()
        assert getattr(loaded, f"{part}_labels").tolist() == labels.tolist()
        assert getattr(loaded, f"{part}_labels").dtype == torch.int64
    return loaded


@pytest.mark.parametrize("name", FROM_FILES)
def test_what_is_loaded_is_what_the_files_say(name, fake, tmp_path):
    made = fake(name)
    made.install(tmp_path)
    loaded = assert_loads(made, tmp_path, download=False)
    images, _ = made.expected["train"]
    assert loaded.name == name
    assert loaded.num_classes == len(loaded.classes) == (100 if name == "cifar100" else 10)
    assert (loaded.in_channels, loaded.image_size) == images.shape[1:3]
    np.testing.assert_allclose(loaded.mean, images.mean((0, 2, 3)) / 255, rtol=1e-12)
    np.testing.assert_allclose(loaded.std, images.std((0, 2, 3)) / 255, rtol=1e-12)
    assert load(name, tmp_path).digest == loaded.digest
    assert len(loaded.digest) == 64


@pytest.mark.parametrize("name", FROM_FILES)
def test_missing_and_not_to_be_downloaded(name, fake, tmp_path):
    made = fake(name)
    text = message(name, tmp_path / "none", download=False)
    assert "no files in" in text
    assert "downloading is off" in text
    assert str(tmp_path / "none") in text
    for archive in made.archives:
        assert archive in text
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", FROM_FILES)
def test_missing_and_no_network(name, fake, tmp_path):
    fake(name)
    text = message(name, tmp_path / "none")
    assert "the download failed" in text
    assert "refused" in text
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", FROM_FILES)
def test_one_file_missing(name, fake, tmp_path):
    made = fake(name)
    made.install(tmp_path, packed=False)
    (tmp_path / made.folder / FIRST[name]).unlink()
    assert f"{FIRST[name]} is missing" in message(name, tmp_path, download=False)


@pytest.mark.parametrize("name", FROM_FILES)
def test_truncated(name, fake, tmp_path):
    made = fake(name)
    made.install(tmp_path, packed=False)
    path = tmp_path / made.folder / FIRST[name]
    path.write_bytes(path.read_bytes()[:-1])
    text = message(name, tmp_path, download=False)
    assert f"{FIRST[name]} is truncated or corrupted" in text
    assert "md5" in text or f"{len(made.contents[FIRST[name]]) - 1} bytes" in text


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_one_bit_flipped(name, fake, tmp_path):
    made = fake(name)
    made.install(tmp_path)
    flip_a_bit(tmp_path / made.folder / FIRST[name])
    text = message(name, tmp_path, download=False)
    assert f"{FIRST[name]} is truncated or corrupted (md5 " in text


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_one_bit_flipped_beside_the_packed_file(name, fake, tmp_path):
    """The unpacked files have no published checksum; the packed file tells theirs, and replaces them."""
    made = fake(name)
    made.install(tmp_path)
    flip_a_bit(tmp_path / made.folder / FIRST[name])
    assert_loads(made, tmp_path, download=False)
    # With another packed file broken, the repair stops, and the error names the file.
    flip_a_bit(tmp_path / made.folder / FIRST[name])
    other = next(archive for archive in made.archives if not archive.startswith(FIRST[name]))
    flip_a_bit(tmp_path / made.folder / other)
    text = message(name, tmp_path, download=False)
    assert f"{FIRST[name]} is corrupted (its CRC-32 is not the one in {FIRST[name]}.gz)" in text


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", FROM_FILES)
def test_broken_files_are_fetched_again(name, fake, tmp_path, server):
    made = fake(name)
    made.publish(server)
    made.install(tmp_path, packed=False)
    path = tmp_path / made.folder / FIRST[name]
    path.write_bytes(path.read_bytes()[:-1])
    assert_loads(made, tmp_path)
    asked = len(server.requests)
    assert_loads(made, tmp_path)
    assert len(server.requests) == asked


@pytest.mark.parametrize("name", FROM_FILES)
def test_download_into_a_new_root(name, fake, tmp_path, server):
    made = fake(name)
    made.publish(server)
    assert_loads(made, tmp_path / "new" / "root")
    assert_loads(made, tmp_path / "new" / "root", download=False)
    assert [line for line in server.requests if line.startswith("GET")]


@pytest.mark.parametrize("name", FROM_FILES)
def test_a_broken_download_is_refused(name, fake, tmp_path, server):
    made = fake(name)
    made.publish(server)
    for archive, content in made.archives.items():
        (server.folder / archive).write_bytes(content[:-1])
    assert "corrupted" in message(name, tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
@pytest.mark.parametrize("download", [True, False])
def test_an_archive_put_in_place_needs_no_network(name, download, fake, tmp_path):
    made = fake(name)
    made.install_archives(tmp_path)
    assert_loads(made, tmp_path, download=download)


def test_a_root_that_cannot_be_written(fake, tmp_path, server):
    made = fake("cifar10")
    made.publish(server)
    (tmp_path / "file").write_text("in the way")
    text = message("cifar10", tmp_path / "file" / "root")
    assert "the download failed" in text
    assert "Not a directory" in text


def test_a_complete_root_is_never_written_to(fake, tmp_path):
    made = fake("cifar10")
    made.install(tmp_path)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    load("cifar10", tmp_path)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


@pytest.fixture
def mute():
    """A server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_that_never_answers_does_not_hang(fake, tmp_path, mute, monkeypatch):
    made = fake("cifar10")
    made.serve(mute)
    monkeypatch.setattr(files, "REACH_SECONDS", 0.3)
    text = message("cifar10", tmp_path)
    assert "timed out" in text or "no answer in 0.3 s" in text


def test_a_name_that_never_resolves_does_not_hang(fake, tmp_path, monkeypatch):
    made = fake("cifar10")
    made.serve("http://data.invalid")
    released = threading.Event()

    def resolve(*arguments, **options):
        released.wait()
        raise socket.gaierror("released")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(files, "REACH_SECONDS", 0.3)
    try:
        text = message("cifar10", tmp_path)
    finally:
        released.set()
    assert "no answer in 0.3 s" in text


def test_a_download_that_stalls_ends(fake, tmp_path, monkeypatch):
    made = fake("cifar10")
    monkeypatch.setattr(files, "REACH_SECONDS", 0.5)
    monkeypatch.setattr(
        files, "_reach", lambda archive: None
    )  # its answer may be late where much else is done
    done = threading.Event()

    def talk_then_stop(listening):
        while not done.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            request = connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n")
            if request.startswith(b"GET"):
                connection.sendall(b"x")
                done.wait()
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        made.serve(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread = threading.Thread(target=talk_then_stop, args=(listening,), daemon=True)
        thread.start()
        try:
            text = message("cifar10", tmp_path)
        finally:
            done.set()
        assert "timed out" in text
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert socket.getdefaulttimeout() is None


def test_two_that_need_a_set_download_it_once(fake, tmp_path, server):
    made = fake("cifar10")
    made.publish(server)
    barrier = threading.Barrier(2)

    def both_at_once():
        barrier.wait()
        return load("cifar10", tmp_path).digest

    # The lock is on the file, so it holds between threads as between processes.
    with ThreadPoolExecutor(2) as pool:
        digests = [future.result() for future in [pool.submit(both_at_once) for _ in range(2)]]
    assert digests[0] == digests[1]
    # torchvision asks twice for each download: once for redirections, once for the file.
    assert sum(line.startswith("GET") for line in server.requests) == 2


def test_labels_out_of_range_are_an_error(fake, tmp_path):
    made = fake("mnist")
    name = "train-labels-idx1-ubyte"
    made.contents[name] = made.contents[name][:-1] + b"\x0a"
    made.install(tmp_path, packed=False)
    with pytest.raises(DataError, match="train labels go from 0 to 10; allowed: 0 to 9"):
        load("mnist", tmp_path, download=False)


def test_another_number_of_labels_than_of_images_is_an_error(fake, tmp_path):
    made = fake("mnist")
    made.contents["train-labels-idx1-ubyte"] = b"\0\0\x08\x01\0\0\0\x02\x01\x02"
    made.install(tmp_path, packed=False)
    text = message("mnist", tmp_path, download=False)
    assert "40 images, train-labels-idx1-ubyte has 2 labels" in text


@pytest.mark.parametrize("content", [b"", b"\0\0", b"<html>not a data set</html>", b"\0\0\x08\x01\0\0\0\x00"])
def test_idx_files_of_another_kind_are_an_error(content, fake, tmp_path):
    made = fake("mnist")
    made.contents["train-images-idx3-ubyte"] = content
    made.install(tmp_path, packed=False)
    assert "train-images-idx3-ubyte is corrupted (its header" in message("mnist", tmp_path, download=False)


def test_the_root_is_argument_then_variable_then_data(fake, tmp_path, monkeypatch):
    fake("svhn").install(tmp_path / "named")
    monkeypatch.chdir(tmp_path)
    assert data_root(None) == tmp_path / "data"
    monkeypatch.setenv("GBN_DATA", str(tmp_path / "named"))
    assert load("svhn", download=False).name == "svhn"
    assert data_root("other") == tmp_path / "other"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root("~/sets") == tmp_path / "sets"


def test_unknown_name():
    with pytest.raises(
        ValueError, match=r"unknown data set 'cifar' \(did you mean 'cifar10'\?\); allowed: cif"
    ):
        load("cifar")
