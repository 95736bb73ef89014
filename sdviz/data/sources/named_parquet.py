"""Parquet files under the data root, which need no path."""

from collections.abc import Mapping
from pathlib import Path

from ..layouts.shards import NAMED_SPLITS, name_and_split
from ..source import WHOLE, Source, data_root
from .parquet import ParquetFile, has_images


def files_under(root: Path) -> dict[str, dict[str, Path]]:
    """The Parquet files directly in `root`: name -> split -> path, names sorted, split train first."""
    found: dict[str, dict[str, Path]] = {}
    order = [WHOLE, *NAMED_SPLITS]
    files = [(*name_and_split(path), path) for path in root.glob("[!.]*.parquet") if path.is_file()]
    for name, split, path in sorted(files, key=lambda file: (file[0], order.index(file[1]))):
        found.setdefault(name, {})[split] = path
    return found


class NamedParquetFiles(ParquetFile):
    """`<name>_<split>.parquet` or `<name>.parquet` under the data root. An id is `<name>/<split>/<row>`."""

    order = 2
    kinds = ()
    on_form: Mapping[str, tuple[str, str]] = {}

    def names(self) -> tuple[str, ...]:
        found = files_under(data_root())
        return tuple(name for name, files in found.items() if any(has_images(path) for path in files.values()))

    def splits(self, name: str) -> tuple[str, ...]:
        return tuple(files_under(data_root()).get(name, {}))

    def id_prefix(self, name: str, split: str) -> str:
        return Source.id_prefix(self, name, split)

    def name_of(self, path: Path) -> str | None:
        return None

    def files(self, name: str) -> Mapping[str, tuple[Path, ...]]:
        return {split: (path,) for split, path in files_under(data_root())[name].items()}


SOURCE = NamedParquetFiles()
