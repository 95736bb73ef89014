"""Downloads the paper's own outliers from Zenodo; continues after an interruption, and checks every file."""

import hashlib
import http.client
import json
import os
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..files import replacing_folder
from .imageset import DataError
from .sources import SOURCES

API = "https://zenodo.org/api/records"
# our name -> number of the record
RECORDS = {"sd-outliers": "8394847"}
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_CHUNK = 1 << 20
_TIMEOUT_SEC = 60
# HTTP answers that would not change on another try
_FINAL = (400, 401, 403, 404, 405, 406, 410, 416, 451)
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RecordFile:
    """A file of a record."""

    name: str  # without a path
    size: int  # bytes
    algorithm: str  # of the checksum, usually "md5"
    checksum: str  # hex digits
    address: str


def download(name: str, root: Path, on_progress: OnProgress | None = None) -> tuple[Path, ...]:
    """Downloads every file of a record into `root/name`, and unpacks its archives there.

    A file with the right checksum is kept; an interrupted download continues where it stopped.

    Args:
        name: A key of `RECORDS`.
        on_progress: Called with (file, bytes so far, bytes in total).

    Returns:
        The paths to open: files, and folders of unpacked archives.

    Raises:
        DataError: No network, a record that cannot be read, or a file with a wrong checksum.
    """
    found: list[Path] = []
    files = list_files(RECORDS[name])
    folder_of = _folder_names([file.name for file in files])
    for file in files:
        path = root / name / file.name
        _fetch(file, path, on_progress)
        if file.name in folder_of:
            path = _unpacked(path, path.with_name(folder_of[file.name]))
        found.append(path)
    return tuple(found)


def how_to_open(path: Path) -> tuple[str, ...]:
    """The names that open a downloaded path, such as "npz:PATH"; or one sentence that none does."""
    inside = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
    found = tuple(name for one in (path, *inside) for source in SOURCES if (name := source.name_of(one)))
    if found:
        return found
    if path.is_dir():
        return (f"{path}: a folder without anything that sdviz opens",)
    ending = path.suffix.lower()
    return (f"{path}: sdviz does not open {f'{ending} files' if ending else 'files without an ending'}",)


def list_files(record: str) -> tuple[RecordFile, ...]:
    """The files of a record, asked of the API at SDVIZ_ZENODO, else of Zenodo. Raises as `download`."""
    address = f"{(os.environ.get('SDVIZ_ZENODO') or API).rstrip('/')}/{record}"
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_SEC) as answer:
            text = answer.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"record {record} cannot be fetched from {address}: {_reason(error)}") from error
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{address}: the answer is not JSON") from error
    try:
        if not isinstance(found, dict) or not isinstance(found.get("files"), list):
            raise ValueError("it lists no files")
        files = [_file(one) for one in found["files"]]
    except ValueError as error:
        raise DataError(f"{address}: the answer is not a record: {_reason(error)}") from error
    if not files:
        raise DataError(f"record {record} has no files to fetch: it may be closed")
    return tuple(files)


def _file(one: object) -> RecordFile:
    if not isinstance(one, dict) or not isinstance(one.get("key"), str):
        raise ValueError("a file has no name")
    name = one["key"]
    # the name must not lead out of the folder
    if not name or name in (".", "..") or name != Path(name).name or "\\" in name:
        raise ValueError(f"a file called {name!r}")
    if not str(one.get("size", "")).isdecimal():
        raise ValueError(f"{name} has no size")
    algorithm, _, checksum = str(one.get("checksum") or "").lower().rpartition(":")
    if not checksum:
        raise ValueError(f"{name} has no checksum")
    algorithm = algorithm or "md5"
    if algorithm not in hashlib.algorithms_guaranteed or algorithm.startswith("shake"):
        raise ValueError(f"{name} has a checksum of an unknown kind, {algorithm!r}")
    links = one.get("links")
    address = (links.get("content") or links.get("self")) if isinstance(links, dict) else None
    if not address:
        raise ValueError(f"{name} has no links to fetch it from")
    if not str(address).startswith(("https://", "http://")):
        raise ValueError(f"{name} has a link that is no web address, {address!r}")
    return RecordFile(name, int(str(one["size"])), algorithm, checksum, str(address))


def _folder_names(names: list[str]) -> dict[str, str]:
    """archive -> folder: its name without the ending; if that is taken, with a dash instead of the dot."""
    ending_of = {one: ending for one in names for ending in _ARCHIVES if one.lower().endswith(ending)}
    taken = {one.lower() for one in names}
    found: dict[str, str] = {}
    for one, ending in ending_of.items():
        stem = one[: -len(ending)]
        stem = "files" if stem in ("", ".", "..") else stem
        folder_name = stem if stem.lower() not in taken else f"{stem}-{ending[1:]}"
        taken.add(folder_name.lower())
        found[one] = folder_name
    return found


def _fetch(file: RecordFile, path: Path, on_progress: OnProgress | None) -> None:
    report = on_progress or (lambda name, done, total: None)
    if path.is_file() and path.stat().st_size == file.size and _digest(path, file.algorithm) == file.checksum:
        report(file.name, file.size, file.size)
        return
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.is_file() else 0
    failure = None
    if have != file.size or not have:
        try:
            _read_on(file, partial, have if have < file.size else 0, report)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code in _FINAL:
                raise DataError(
                    f"{file.name} cannot be fetched: {file.address} answers HTTP {error.code} ({error.reason})"
                ) from error
            failure = error
    size = partial.stat().st_size if partial.is_file() else 0
    if failure is not None or size < file.size:
        why = "" if failure is None else f" ({_reason(failure)})"
        raise DataError(
            f"{file.name} stopped after {size:,} of {file.size:,} bytes{why}: the same command continues from"
            " there"
        ) from failure
    if _digest(partial, file.algorithm) != file.checksum:
        partial.unlink()
        raise DataError(f"{file.name} does not match its {file.algorithm}: run the same command again")
    os.replace(partial, path)


def _read_on(file: RecordFile, partial: Path, have: int, report: OnProgress) -> None:
    request = urllib.request.Request(file.address, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SEC) as answer:
        # a server without ranges sends the whole file
        if have and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0
        with partial.open("ab" if have else "wb") as stream:
            while block := answer.read(_CHUNK):
                stream.write(block)
                have += len(block)
                report(file.name, min(have, file.size), file.size)


def _unpacked(path: Path, target: Path) -> Path:
    """Unpacks an archive into a folder, if that does not exist yet; returns the folder."""
    if target.is_dir():
        return target
    try:
        with replacing_folder(target) as partial:
            if path.name.lower().endswith(".zip"):
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(partial)  # removes absolute paths and .. from names
            else:
                with tarfile.open(path) as archive:
                    archive.extractall(partial, filter="data")  # refuses names that lead out of the folder
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"{path} cannot be unpacked: {_reason(error)}") from error
    return target


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return (str(error).strip().splitlines() or [repr(error)])[0]
