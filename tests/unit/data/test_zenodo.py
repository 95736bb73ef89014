from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sdviz import data
from sdviz.cli import app
from sdviz.data import DataError, zenodo


@dataclass
class Zenodo:
    """A server that speaks the records API; `cut` breaks the next answer off after so many bytes."""

    files: dict[str, bytes]
    address: str = ""
    answer: bytes | None = None
    cut: int | None = None
    knows_ranges: bool = True
    asked: list[str] = field(default_factory=list)
    change: dict[str, object] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)

    def record(self) -> dict[str, object]:
        return {
            "id": 8394847,
            "files": [
                {
                    "key": name,
                    "size": len(blob),
                    "checksum": f"md5:{hashlib.md5(blob).hexdigest()}",
                    "links": {"self": f"{self.address}/8394847/files/{name}/content"},
                }
                | self.change
                for name, blob in self.files.items()
            ],
        }


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def zipped(names: list[str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for i, name in enumerate(names):
            archive.writestr(name, picture(i))
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, images=np.zeros((3, 3, 32, 32), np.uint8), labels=np.arange(3))
    return stream.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Zenodo]:
    held = Zenodo({"train.zip": zipped(["dog/1.png", "dog/2.png", "cat/1.png"]), "sd.npz": npz()})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            held.asked.append(f"{self.path} {self.headers.get('Range', '')}".strip())
            if self.path == "/records/8394847":
                self._send(json.dumps(held.record()).encode() if held.answer is None else held.answer)
                return
            found = re.fullmatch(r"/records/8394847/files/(.+)/content", self.path)
            if found is None or found[1] in held.errors:
                self.send_error(404 if found is None else held.errors[found[1]])
                return
            blob, start = held.files[found[1]], 0
            if held.knows_ranges and self.headers.get("Range"):
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            self._send(blob[start:], 206 if start else 200)

        def _send(self, blob: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(blob)))
            self.end_headers()
            if held.cut is not None and "files" in self.path:
                self.wfile.write(blob[: held.cut])
                held.cut = None
                self.close_connection = True
                return
            self.wfile.write(blob)

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # or its end takes half a second
    Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
    held.address = f"http://127.0.0.1:{web.server_address[1]}/records"
    monkeypatch.setenv("SDVIZ_ZENODO", held.address)
    monkeypatch.setenv("SDVIZ_DATA", str(tmp_path))
    yield held
    web.shutdown()
    web.server_close()


def test_a_record_is_fetched_checked_and_opened(server: Zenodo, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    found = zenodo.download("sd-outliers", tmp_path, lambda *one: seen.append(one))
    assert found == (tmp_path / "sd-outliers" / "train", tmp_path / "sd-outliers" / "sd.npz")
    assert seen[-1] == ("sd.npz", len(npz()), len(npz()))
    folder, arrays = data.load(f"folder:{found[0]}"), data.load(f"npz:{found[1]}")
    assert (len(folder), folder.class_names) == (3, ("cat", "dog")) and arrays.images.shape == (3, 32, 32, 3)
    # a second call looks at the list, and fetches nothing
    before = len(server.asked)
    assert zenodo.download("sd-outliers", tmp_path) == found
    assert server.asked[before:] == ["/records/8394847"]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_break_is_resumed(server: Zenodo, tmp_path: Path, knows_ranges: bool) -> None:
    server.knows_ranges, server.cut = knows_ranges, 200
    with pytest.raises(DataError, match="train.zip stopped after 200 of .* continues from there") as caught:
        zenodo.download("sd-outliers", tmp_path)
    assert "\n" not in str(caught.value)
    zenodo.download("sd-outliers", tmp_path)
    assert "/records/8394847/files/train.zip/content bytes=200-" in server.asked
    assert (tmp_path / "sd-outliers" / "train.zip").read_bytes() == server.files["train.zip"]
    assert not list((tmp_path / "sd-outliers").glob("*.partial"))


def test_a_file_that_was_changed_is_fetched_again(server: Zenodo, tmp_path: Path) -> None:
    zenodo.download("sd-outliers", tmp_path)
    path = tmp_path / "sd-outliers" / "sd.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    zenodo.download("sd-outliers", tmp_path)
    assert path.read_bytes() == server.files["sd.npz"]


def test_a_wrong_checksum_keeps_nothing(server: Zenodo, tmp_path: Path) -> None:
    server.change = {"checksum": "md5:" + "0" * 32}
    with pytest.raises(DataError, match="train.zip does not match its md5"):
        zenodo.download("sd-outliers", tmp_path)
    assert not list((tmp_path / "sd-outliers").iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "../x.zip"}, "a file called '../x.zip'"),
        ({"key": ""}, "a file called ''"),
        ({"key": None}, "a file has no name"),
        ({"size": "many"}, "the answer is not a record: train.zip has no size"),
        ({"checksum": None}, "train.zip has no checksum"),
        ({"checksum": "shake_128:1"}, "a checksum of an unknown kind, 'shake_128'"),
        ({"links": {}}, "train.zip has no links to fetch it from"),
        ({"links": {"self": "file:///etc/passwd"}}, "no web address, 'file:///etc/passwd'"),
        ({"checksum": "crc:1"}, "a checksum of an unknown kind, 'crc'"),
        ({"links": None}, "has no links"),
    ],
)
def test_hostile_or_odd_lists_are_refused(
    server: Zenodo, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    server.change = change
    with pytest.raises(DataError, match=message):
        zenodo.download("sd-outliers", tmp_path)
    assert not (tmp_path / "sd-outliers").exists()


def test_archives_do_not_lead_out_of_the_folder(server: Zenodo, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        entry = tarfile.TarInfo("../../out.png")
        entry.size = len(blob := picture(0))
        archive.addfile(entry, io.BytesIO(blob))
    server.files = {"bad.tar.gz": stream.getvalue()}
    with pytest.raises(DataError, match="cannot be unpacked"):
        zenodo.download("sd-outliers", tmp_path)
    assert not (tmp_path / "out.png").exists() and not (tmp_path.parent / "out.png").exists()


def test_no_server_and_no_files_are_one_line(
    server: Zenodo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files = {}
    with pytest.raises(DataError, match="has no files"):
        zenodo.download("sd-outliers", tmp_path)
    with pytest.raises(DataError, match="cannot be fetched from .*HTTP 404"):
        zenodo.list_files("1")
    monkeypatch.setenv("SDVIZ_ZENODO", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="cannot be fetched from .*refused") as caught:
        zenodo.list_files("1")
    assert "\n" not in str(caught.value)


def test_archives_with_dots_in_their_names_are_unpacked_apart(server: Zenodo, tmp_path: Path) -> None:
    server.files = {"sd.S100.zip": zipped(["a/1.png"]), "sd.S150.zip": zipped(["a/1.png", "a/2.png"])}
    found = zenodo.download("sd-outliers", tmp_path)
    assert [path.name for path in found] == ["sd.S100", "sd.S150"]
    assert [len(data.load(f"folder:{path}")) for path in found] == [1, 2]
    assert zenodo.download("sd-outliers", tmp_path) == found


def test_no_two_files_of_a_record_share_a_folder(server: Zenodo, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        entry = tarfile.TarInfo("b.png")
        entry.size = len(blob := picture(0))
        archive.addfile(entry, io.BytesIO(blob))
    server.files = {
        "sd.zip": zipped(["a.png"]),
        "SD.tar.gz": stream.getvalue(),
        "x": b"plain",
        "x.zip": zipped(["c.png"]),
        "...zip": zipped(["d.png"]),
    }
    found = zenodo.download("sd-outliers", tmp_path)
    assert [path.name for path in found] == ["sd", "SD-tar.gz", "x", "x-zip", "files"]
    assert [next(path.iterdir()).name for path in found if path.is_dir()] == [
        "a.png",
        "b.png",
        "c.png",
        "d.png",
    ]
    assert all(path.parent == tmp_path / "sd-outliers" for path in found)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            b"<!DOCTYPE html><html>Welcome</html>",
            "the answer is not JSON$",
        ),
        (b"\xff\xfe\x00", "the answer is not JSON$"),
        (b"", "the answer is not JSON"),
        (b"[]", "the answer is not a record: it lists no files"),
        (b'{"message": "not here"}', "the answer is not a record: it lists no files"),
        (b'{"files": {"a": 1}}', "it lists no files"),
        (b'{"files": ["a"]}', "a file has no name"),
    ],
)
def test_an_answer_that_is_no_record_gets_a_clear_message(server: Zenodo, answer: bytes, message: str) -> None:
    server.answer = answer
    with pytest.raises(DataError, match=f"{server.address}/8394847: .*{message}") as caught:
        zenodo.list_files("8394847")
    assert not {"Expecting", "codec", "KeyError", "links'"} & set(str(caught.value).split())


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_file_that_is_gone_does_not_go_on(server: Zenodo, tmp_path: Path, code: int) -> None:
    server.errors = {"sd.npz": code}
    with pytest.raises(
        DataError, match=f"sd.npz cannot be fetched: http.*sd.npz/content answers HTTP {code}"
    ) as caught:
        zenodo.download("sd-outliers", tmp_path)
    assert "goes on" not in str(caught.value)
    # a server that is overloaded is another matter
    server.errors = {"sd.npz": 503}
    with pytest.raises(DataError, match="stopped after 0 of .*HTTP 503.* continues from there"):
        zenodo.download("sd-outliers", tmp_path)


def test_a_checksum_may_be_in_capitals(server: Zenodo, tmp_path: Path) -> None:
    blob = npz()
    server.files = {"sd.npz": blob}
    server.change = {"checksum": f"MD5:{hashlib.md5(blob).hexdigest().upper()}"}
    assert zenodo.download("sd-outliers", tmp_path) == (tmp_path / "sd-outliers" / "sd.npz",)


def test_the_command_says_how_to_open_each_file(server: Zenodo, tmp_path: Path) -> None:
    arrays = io.BytesIO()
    with zipfile.ZipFile(arrays, "w") as archive:
        archive.writestr("deep/S100.npz", npz())
        archive.writestr("deep/notes.txt", "x")
    text = io.BytesIO()
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("notes.txt", "x")
    server.files |= {"more.zip": arrays.getvalue(), "words.zip": text.getvalue()}
    server.files |= {"sd.pt": b"weights", "README.md": b"# SD", "LICENSE": b"free", "A.NPZ": npz()}
    result = CliRunner().invoke(app, ["download", "sd-outliers"])
    assert result.exit_code == 0, result.output
    at = tmp_path / "sd-outliers"
    assert result.stdout.splitlines() == [
        f"folder:{at}/train",
        f"npz:{at}/sd.npz",
        f"npz:{at}/more/deep/S100.npz",
        f"{at}/words: a folder without anything that sdviz opens",
        f"{at}/sd.pt: sdviz does not open .pt files",
        f"{at}/README.md: sdviz does not open .md files",
        f"{at}/LICENSE: sdviz does not open files without an ending",
        f"npz:{at}/A.NPZ",
    ]
    for line in result.stdout.splitlines():
        if ": " not in line:
            assert len(data.load(line)) == 3


def test_help_names_the_address() -> None:
    result = CliRunner().invoke(app, ["download", "--help"])
    assert "SDVIZ_ZENODO" in result.stdout
