"""Opened bundles and image sets."""

from pathlib import Path

from sdviz import data
from sdviz.bundle import MANIFEST, Bundle
from sdviz.bundle.generated import GENERATED, generated_images, has_generated
from sdviz.data import ImageSet
from sdviz.data.decode import Fit
from sdviz.nn.batches import rows_within
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


def load_to_show(bundle: Bundle, name: str, limit: int) -> ImageSet:
    """Loads the first images of a set in the bundle's size: of the test split, or of the only split.

    No network was trained on a test split. Of pictures above 32 px, fewer are loaded, with as many pixels.
    """
    if name == GENERATED and has_generated(bundle):
        return _load_generated(bundle)
    size_px = bundle.manifest.image_size
    split = "test" if "test" in data.splits(name) else None
    return load_images(name, split, rows_within(limit, size_px), **bundle.manifest.reading)


def set_to_show(bundle: Bundle) -> str:
    """Returns the name of the bundle's own set, or of its generated images if it is not on this machine."""
    own = bundle.manifest.dataset
    return GENERATED if has_generated(bundle) and not data.splits_here(own) else own


@kept("generated images")
def _load_generated(bundle: Bundle) -> ImageSet:
    return generated_images(bundle)


@kept("images")
def load_images(name: str, split: str | None, limit: int, size_px: int, value_range: str, fit: Fit) -> ImageSet:
    """Loads an image set. Raises DataError as `data.load`."""
    return data.load(name, split, limit, size_px=size_px, value_range=value_range, fit=fit)
