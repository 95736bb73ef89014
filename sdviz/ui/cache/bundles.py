"""Opened bundles and image sets."""

from pathlib import Path

from sdviz import data
from sdviz.bundle import MANIFEST, Bundle
from sdviz.data import ImageSet
from sdviz.ui.cache.kept import kept, note_use


def open_bundle(path: Path) -> Bundle:
    """Opens a bundle without its networks, again after a change of bundle.json. Raises BundleError."""
    file = path / MANIFEST
    bundle = _open_bundle(str(path), file.stat().st_mtime_ns if file.exists() else 0)
    note_use(bundle.hash)
    return bundle


@kept("bundle")
def _open_bundle(path: str, changed_ns: int) -> Bundle:
    return Bundle.load(path, lazy=True)


def load_to_show(name: str, limit: int) -> ImageSet:
    """Loads the first images of the test split, which no network was trained on, or of the only split."""
    return load_images(name, "test" if "test" in data.splits(name) else None, limit)


@kept("images")
def load_images(name: str, split: str | None, limit: int | None = None) -> ImageSet:
    """Loads an image set. Raises DataError as `data.load`."""
    return data.load(name, split, limit=limit)
