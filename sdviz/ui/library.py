"""A bundle as pages show it: tables, pictures, names and colours."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

from sdviz.analysis import Evidence, PictureLibrary, Pictures
from sdviz.bundle import Bundle
from sdviz.ui.cache.background import DEVICE_LOCK
from sdviz.ui.cluster_names import current_names
from sdviz.ui.pictures import data_uri
from sdviz.ui.theme import set_colours, set_titles


def uri_of(pictures: Pictures, row: int) -> str:
    """Returns a picture as a `data:` address, "" for a missing one."""
    return data_uri(pictures.images[row]) if pictures.found[row] else ""


@dataclass(frozen=True, eq=False)
class BundleView:
    """A bundle in use."""

    evidence: Evidence
    library: PictureLibrary

    @property
    def bundle(self) -> Bundle:
        """The bundle itself."""
        return self.evidence.bundle

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the clusters, as shown."""
        return current_names(self.bundle)

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of each set."""
        return set_titles(self.evidence)

    @cached_property
    def colours(self) -> dict[str, str]:
        """The colour of each set, the same on every page."""
        return set_colours(self.evidence)

    def cluster_name(self, cluster: int, unknown: str = "") -> str:
        """Returns the name of a cluster, as shown; `unknown` for -1."""
        return self.names[cluster] if 0 <= cluster < len(self.names) else unknown

    def show_pictures(self, ids: list[str]) -> Pictures:
        """Returns pictures by id. Outliers that no file keeps are generated, which waits for the device."""
        to_generate = any(map(self.library.must_generate, ids))
        lock: AbstractContextManager[object] = DEVICE_LOCK if to_generate else nullcontext()
        with lock:
            return self.library.show(ids)
