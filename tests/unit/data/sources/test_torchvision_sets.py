from __future__ import annotations

import hashlib
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from torchvision import datasets

from sdviz import data


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def cifar10_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images a file in CIFAR-10's own format, and torchvision told to expect just these."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(0, 256, (6, 3072), np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [0, 1, 2, 0, 1, 2]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["plane", "car", "bird"]}))
    sums = [[name, md5(folder / name)] for name in names]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", sums[5:])
    meta = {**datasets.CIFAR10.meta, "md5": md5(folder / "batches.meta")}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return folder


def test_cifar10(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cifar10_files(data_root, monkeypatch)
    assert "cifar10" in data.names() and data.splits("cifar10") == ("train", "test")
    test, train = data.load("cifar10", "test"), data.load("cifar10")
    assert (len(test), len(train), train.split) == (6, 30, "train")
    raw = pickle.loads((folder / "test_batch").read_bytes())["data"]
    assert np.array_equal(test.images, raw.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    assert test.labels.tolist() == [0, 1, 2, 0, 1, 2] and test.class_names == ("plane", "car", "bird")
    assert test.ids[4] == "cifar10/test/tv-00004"
    some, rows = data.load("cifar10", limit=4, seed=1), data.permutation(30, 1)[:4]
    assert some.ids.tolist() == train.ids[rows].tolist() and np.array_equal(some.images, train.images[rows])
    assert data.load("cifar10", "test", size_px=16).images.shape == (6, 16, 16, 3)


def test_svhn(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 5), np.uint8)
    path = data_root / "test_32x32.mat"
    scipy.io.savemat(path, {"X": pixels, "y": np.array([[10], [1], [2], [9], [10]], np.uint8)})
    splits = {**datasets.SVHN.split_list, "test": ["", path.name, md5(path)]}
    monkeypatch.setattr(datasets.SVHN, "split_list", splits)
    svhn = data.load("svhn")  # the only split here
    assert svhn.split == "test" and svhn.labels.tolist() == [0, 1, 2, 9, 0]
    assert np.array_equal(svhn.images[3], pixels[..., 3]) and svhn.class_names == tuple("0123456789")
    with pytest.raises(data.MissingDataError, match="has only the split test here: run `python -m sdviz"):
        data.load("svhn", "train")


def test_a_damaged_file(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cifar10_files(data_root, monkeypatch)
    (folder / "test_batch").write_bytes(b"cut")
    with pytest.raises(data.DataError, match="damaged; delete them and run"):
        data.load("cifar10", "test")
    (folder / "test_batch").unlink()
    assert "cifar10" not in data.names()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which it is served."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_download(data_root: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    served, address = server
    archive = served / "cifar-10-python.tar.gz"
    folder = cifar10_files(served, monkeypatch)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:1/nobody-listens.tar.gz")
    with pytest.raises(data.DataError, match="cifar10 could not be downloaded to .*refused") as caught:
        data.download("cifar10")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}/{archive.name}")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(data.DataError, match="cifar10 could not be downloaded to .*corrupted"):
        data.download("cifar10")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))
    monkeypatch.setenv("SDVIZ_DATA", str(data_root / "new"))
    assert data.download("cifar10") == data_root / "new"
    assert len(data.load("cifar10", "test")) == 6


@pytest.mark.parametrize("name", ["shapes", "mnist"])
def test_nothing_else_can_be_downloaded(data_root: Path, name: str) -> None:
    with pytest.raises(data.DataError, match="cannot be downloaded; cifar10, cifar100, svhn, sd-outliers can"):
        data.download(name)
