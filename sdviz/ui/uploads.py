"""Uploaded pictures. They are kept when their page is left, where Streamlit empties the uploader."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from sdviz.bundle.manifest import Manifest
from sdviz.data.decode import Fit
from sdviz.data.uploads import from_uploads
from sdviz.ui.cache.kept import kept

TYPES = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"]
NO_CLUSTERER_FOR_UPLOADS = "This bundle has no clusterer, so it cannot name the cluster of an upload."
LIMITS = "Up to 10 MB and 16 million pixels each; made square and resized as the bundle's own pictures."


@dataclass
class KeptUploads:
    """The prepared pictures of one browser session, uint8 (H,W,3) by id."""

    now: dict[str, np.ndarray] = field(default_factory=dict)  # in the uploader on the page
    before: dict[str, np.ndarray] = field(default_factory=dict)  # of uploaders that are no longer on the page

    def take(self, chosen: dict[str, np.ndarray]) -> None:
        """Records what the uploader holds in this run.

        An empty uploader is a new one, and the pictures of the last one are kept. If a person has emptied it,
        `changed` was called before.
        """
        if not chosen:
            self.before = self.all()
        self.now = chosen

    def changed(self) -> None:
        """For `on_change`: a person has added files or taken some away."""
        self.now = {}

    def clear(self) -> None:
        """Drops the pictures kept from before."""
        self.before = {}

    def all(self) -> dict[str, np.ndarray]:
        """Returns new pictures, then kept ones, each picture once."""
        return self.now | {i: image for i, image in self.before.items() if i not in self.now}


def kept_uploads(size_px: int) -> KeptUploads:
    """Returns the pictures of this browser session that were prepared at this size."""
    by_size: dict[int, KeptUploads] = st.session_state.setdefault("uploads", {})
    return by_size.setdefault(size_px, KeptUploads())


def picture_uploader(
    key: str, label: str = LIMITS, on_change: Callable[[], None] | None = None
) -> list[UploadedFile]:
    """Draws the field for a person's own pictures."""
    return st.file_uploader(label, TYPES, accept_multiple_files=True, key=key, on_change=on_change)


def prepared_uploads(
    files: Iterable[UploadedFile], manifest: Manifest
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The pictures of uploaded files by id, read as the bundle's run read pictures, each file once.

    Also gives one line for each file that cannot be used.
    """
    made = [_prepared(f.name, f.getvalue(), **manifest.reading) for f in files]
    return {one: image for one, image, _ in made if image is not None}, [why for _, _, why in made if why]


@kept("uploads")
def _prepared(
    name: str, file_bytes: bytes, size_px: int, value_range: str, fit: Fit
) -> tuple[str, np.ndarray | None, str]:
    """The id and picture of a file, or the reason why it is refused."""
    made, refused = from_uploads([(name, file_bytes)], size_px, value_range, fit)
    return (str(made.ids[0]), made.images[0], "") if len(made) else ("", None, refused[0])
