"""Records of Zenodo: the paper's own outliers, fetched file by file, checked, and resumed after a break."""

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

from .imageset import DataError
from .sources import SOURCES

API = "https://zenodo.org/api/records"
# name here -> record there
RECORDS = {"sd-outliers": "8394847"}
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_CHUNK = 1 << 20
_TIMEOUT_SEC = 60
# answers that the same command would get again
_FINAL = (400, 401, 403, 404, 405, 406, 410, 416, 451)
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RecordFile:
    """A file of a record."""

    name: str  # without a path
    size: int  # bytes
    algorithm: str  # of the checksum, "md5" as a rule
    checksum: str  # hex digits
    address: str


def download(name: str, root: Path, on_progress: OnProgress | None = None) -> tuple[Path, ...]:
    """Fetches every file of a record into `root/name`, and unpacks its archives there.

    A file that is there and has its checksum is kept; one that was cut off is continued where it stopped.

    Args:
        name: Of `RECORDS`.
        on_progress: Told (file, bytes there, bytes in all) as they come.

    Returns:
        What can be opened: files, and folders of unpacked archives.

    Raises:
        DataError: No network, a record that is not understood, or a file that is not what its checksum says.
    """
    there: list[Path] = []
    files = list_files(RECORDS[name])
    unpacked_as = _folder_names([file.name for file in files])
    for file in files:
        path = root / name / file.name
        _fetch(file, path, on_progress)
        if file.name in unpacked_as:
            path = _unpacked(path, path.with_name(unpacked_as[file.name]))
        there.append(path)
    return tuple(there)


def how_to_open(path: Path) -> tuple[str, ...]:
    """The names that open what `download` fetched, as in "npz:PATH", or a sentence that nothing does."""
    inside = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
    found = tuple(name for one in (path, *inside) for source in SOURCES if (name := source.name_of(one)))
    if found:
        return found
    if path.is_dir():
        return (f"{path}: a folder without anything that sdviz opens",)
    ending = path.suffix.lower()
    return (f"{path}: sdviz does not open {f'{ending} files' if ending else 'files without an ending'}",)


def list_files(record: str) -> tuple[RecordFile, ...]:
    """The files of a record, by the API at SDVIZ_ZENODO, else at Zenodo. Raises DataError: as `download`."""
    address = f"{(os.environ.get('SDVIZ_ZENODO') or API).rstrip('/')}/{record}"
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_SEC) as answer:
            text = answer.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"record {record} cannot be had from {address}: {_reason(error)}") from error
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{address} answers with no record, but with something that is not JSON") from error
    try:
        if not isinstance(found, dict) or not isinstance(found.get("files"), list):
            raise ValueError("it lists no files")
        files = [_file(one) for one in found["files"]]
    except ValueError as error:
        raise DataError(f"{address} does not answer as a record does: {_reason(error)}") from error
    if not files:
        raise DataError(f"record {record} has no files to fetch: it may be closed")
    return tuple(files)


def _file(one: object) -> RecordFile:
    if not isinstance(one, dict) or not isinstance(one.get("key"), str):
        raise ValueError("a file has no name")
    name = one["key"]
    # a name from elsewhere must not lead out of the folder
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
    """Folders of archives, named without the ending; where that name is taken, with a dash and the ending."""
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
    if have > file.size:
        have = 0
    if have < file.size or not file.size:
        try:
            _read_on(file, partial, have, report)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code in _FINAL:
                raise DataError(
                    f"{file.name} cannot be had: {file.address} answers HTTP {error.code} ({error.reason})"
                ) from error
            kept = partial.stat().st_size if partial.is_file() else 0
            raise DataError(
                f"{file.name} broke off after {kept:,} of {file.size:,} bytes ({_reason(error)}): the same "
                "command goes on from there"
            ) from error
    size = partial.stat().st_size
    if size < file.size:
        raise DataError(
            f"{file.name} broke off after {size:,} of {file.size:,} bytes: the same command goes on from there"
        )
    if _digest(partial, file.algorithm) != file.checksum:
        partial.unlink()
        raise DataError(f"{file.name} is not what its {file.algorithm} says: fetch it anew by the same command")
    os.replace(partial, path)


def _read_on(file: RecordFile, partial: Path, have: int, report: OnProgress) -> None:
    request = urllib.request.Request(file.address, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SEC) as answer:
        # a server that knows no ranges sends all of it
        if have and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0
        with partial.open("ab" if have else "wb") as stream:
            while block := answer.read(_CHUNK):
                stream.write(block)
                have += len(block)
                report(file.name, min(have, file.size), file.size)


def _unpacked(path: Path, target: Path) -> Path:
    """Unpacks an archive into a folder next to it, once."""
    if target.is_dir():
        return target
    part = target.with_name(target.name + ".partial")
    try:
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                archive.extractall(part)  # takes absolute names and .. out by itself
        else:
            with tarfile.open(path) as archive:
                archive.extractall(part, filter="data")  # refuses what leads out of the folder
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"{path} cannot be unpacked: {_reason(error)}") from error
    os.replace(part, target)
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
