"""Keeps values between reruns. `KEPT` lists every kind of value: how many, by which key, and how.

A function under `@kept("name")` runs once for each key, even if several sessions ask at once; all of them share
the value. Values whose key begins with a bundle's hash are dropped when two other bundles have been opened.
"""

import hashlib
import inspect
import pickle
import threading
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce, wraps
from typing import Any, Generic, ParamSpec, TypeVar, cast

import numpy as np
import streamlit as st
from cachetools import LRUCache
from streamlit.runtime.scriptrunner import get_script_run_ctx

from sdviz import data

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

MOST_BUNDLES = 2


@dataclass(frozen=True)
class Kept:
    """How one kind of value is kept."""

    most: int  # how many; the least recently used is dropped first
    # what decides the value: parameters of the function or their attributes, arrays by their bytes;
    # "data_root()" is the data folder in use and "sets_here()" the sets in it
    key: str
    copied: bool = False  # each caller gets a copy; else all share one object, which nobody may change
    spinner: str = ""  # text shown while the value is computed, "" for none

    @property
    def per_bundle(self) -> bool:
        """Tells whether a value belongs to a bundle, and is dropped with it."""
        return self.key.split(" ")[0].endswith("bundle.hash")


KEPT = {
    # every page
    "icon": Kept(1, ""),
    "assets": Kept(64, "module ending"),  # the text of a script or a style
    "bundle": Kept(2, "path changed_ns", spinner="Opening the bundle ..."),
    "images": Kept(
        8, "name split limit size_px value_range fit data_root()", copied=True, spinner="Reading the images ..."
    ),
    "generated images": Kept(2, "bundle.hash", copied=True),
    # a bundle's tables and pictures, each read at first use
    "evidence": Kept(2, "bundle.hash bundle.path bundle.manifest.threshold"),
    "imports": Kept(4, "evidence.bundle.hash files"),  # others' scores
    "search": Kept(4, "evidence.bundle.hash normalize"),  # the task that finds neighbours of all scored images
    "outliers": Kept(20_000, "bundle.hash request trajectory"),
    # Home
    "examples": Kept(4, "bundle.hash data_root() sets_here()", copied=True),  # which images they are
    "clusters of examples": Kept(4, "bundle.hash data_root() sets_here()", copied=True),  # of their outliers
    # Outlier lab
    "downloads": Kept(16, "name data_root()"),  # the last download of a data set
    # Pseudo-labels
    "pseudo-labels": Kept(4, "evidence.bundle.hash generated"),  # training or generated images by cluster
    "known classes": Kept(
        2, "evidence.bundle.hash sets_here()", copied=True, spinner="Reading the known classes ..."
    ),
    "agreement": Kept(2, "bundle.hash sets_here()", copied=True),  # of clusters and known classes
    "cluster of an image": Kept(256, "bundle.hash image"),  # with its confidence
    # Embeddings
    "points": Kept(4, "evidence.bundle.hash view.through view.imported view.sets view.n view.unit_length"),
    "classes of points": Kept(8, "evidence.bundle.hash points.ids sets_here()", copied=True),
    "moving features": Kept(8, "evidence.bundle.hash"),  # whether the snapshots differ
    "PCA": Kept(4, "features dims", spinner="Laying out by PCA ..."),
    "layouts": Kept(24, "features settings"),  # by t-SNE or UMAP; files keep them too
    "layout stores": Kept(4, "folder"),  # one for each folder of runs
    "outliers of points": Kept(4, "known.bundle.hash name"),  # the task that makes pictures that no file keeps
    "picture sheets": Kept(12, "known.bundle.hash name number is_made"),  # for the hover card
    # Sample votes
    "neighbour index": Kept(3, "evidence.bundle.hash normalize"),  # over the bundle's banks
    # of pictures made of one image
    "neighbours": Kept(512, "evidence.bundle.hash settings.normalize features id_id outlier_id", copied=True),
    "detector outputs": Kept(256, "bundle.hash images", copied=True),  # features and logits of pictures
    "feature map": Kept(4, "evidence.bundle.hash normalize"),  # the plane through the features
    "uploads": Kept(
        64, "name file_bytes size_px value_range fit", copied=True
    ),  # a picture, or why the file is none
    # Failures
    "facts": Kept(16, "view.bundle.hash name view.names data_root()"),  # classes and clusters of a set's images
    "rows": Kept(2, "evidence.bundle.hash"),  # set and row of each scored image
    "nearest": Kept(4096, "view.bundle.hash one view.settings.normalize"),  # the nearest training image
    "near-duplicates": Kept(12, "view.bundle.hash which view.settings.normalize"),  # pairs, nearest first
    # Results
    "records": Kept(64, "path name changed_ns"),  # manifest and report of a bundle on this machine
    "columns": Kept(4, "record.path record.hash"),  # its scores
    "k-alpha map": Kept(
        32,
        "evidence.bundle.hash normalize names ks alphas",
        copied=True,
        spinner="Measuring every k and α ...",
    ),
    "metrics": Kept(
        32,
        "state.evidence.bundle.hash state.settings.k state.settings.alpha state.settings.normalize",
        copied=True,
        spinner="Measuring every set, with intervals ...",
    ),
    # Training
    "estimates": Kept(64, "config data_root()"),  # the task that times a run
    "checks": Kept(16, "config.data config.evaluation data_root()"),  # the task that checks the images of a run
}


class Store(Generic[T]):
    """Values of one kind by key, the last `most` used. Safe in several threads."""

    def __init__(self, most: int) -> None:
        self._values: LRUCache[Hashable, T] = LRUCache(most)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> T | None:
        """Finds a value, None if it is not kept."""
        with self._lock:
            return self._values.get(key)

    def put(self, key: Hashable, value: T) -> T:
        """Keeps a value unless there is one for this key already; returns the one that is kept."""
        with self._lock:
            return self._values.setdefault(key, value)

    def drop(self, key: Hashable) -> None:
        """Lets go of one value, if it is there."""
        with self._lock:
            self._values.pop(key, None)

    def drop_all(self, is_old: Callable[[Hashable], bool] = lambda key: True) -> None:
        """Lets go of the values whose key is old."""
        with self._lock:
            for key in filter(is_old, list(self._values)):
                del self._values[key]


_stores: dict[str, Store[Any]] = {name: Store(how.most) for name, how in KEPT.items()}


def store(name: str) -> Store[Any]:
    """Returns the values of one kind, for code that cannot use `kept`; keys of a bundle begin with its hash."""
    return _stores[name]


class _Entry:
    """A value, and the lock that is held while it is computed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_there = False
        self.value: Any = None


def kept(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keeps the values of a function as `KEPT[name]` says. After an exception nothing is kept."""
    how, values = KEPT[name], store(name)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def find(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            key = tuple(_part(one, bound.arguments) for one in how.key.split())
            entry: _Entry = values.put(key, _Entry())
            with entry.lock:
                if not entry.is_there:
                    try:
                        with _spinner(how.spinner):
                            made = function(*args, **kwargs)
                        entry.value = pickle.dumps(made) if how.copied else made
                    except BaseException:
                        values.drop(key)
                        raise
                    entry.is_there = True
            return cast(R, pickle.loads(entry.value) if how.copied else entry.value)  # noqa: S301 - our own

        return find

    return decorate


def _spinner(text: str) -> Any:  # noqa: ANN401 - streamlit's own
    # at the start of the server there is no page for it
    return st.spinner(text) if text and get_script_run_ctx(suppress_warning=True) else nullcontext()


def sets_here() -> str:
    """Returns the data folder and the names of its sets, a text that changes when a set comes or goes."""
    return " ".join((str(data.data_root()), *data.names()))


_AMBIENT: dict[str, Callable[[], Hashable]] = {
    "data_root()": lambda: str(data.data_root()),
    "sets_here()": sets_here,
}


def _part(name: str, arguments: Mapping[str, Any]) -> Hashable:
    """Returns one part of a key: "view.sets" is the attribute `sets` of the argument `view`."""
    if name in _AMBIENT:
        return _AMBIENT[name]()
    first, *attributes = name.split(".")
    value = reduce(getattr, attributes, arguments[first])
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), hashlib.sha256(np.ascontiguousarray(value).data).digest()
    if isinstance(value, bytes):
        return hashlib.sha256(value).digest()
    return cast(Hashable, value)


# --- which bundles are in use ---------------------------------------------------------------------

_recent: LRUCache[str, None] = LRUCache(MOST_BUNDLES)
_recent_lock = threading.Lock()


def note_use(bundle_hash: str) -> None:
    """Notes that a page shows this bundle, and drops the values of all but the last two bundles."""
    with _recent_lock:
        stay = set(_recent)
        _recent[bundle_hash] = None
        if bundle_hash not in stay:
            # drops old values of this bundle too: its tasks were given up while it was not in use
            stay &= set(_recent)
            for name, how in KEPT.items():
                if how.per_bundle:
                    _stores[name].drop_all(lambda key: cast(tuple[str, ...], key)[0] not in stay)


def is_in_use(bundle_hash: str) -> bool:
    """Tells whether it is one of the last two bundles that were opened."""
    return bundle_hash in _recent


def clear() -> None:
    """Drops everything, as at the start of a server."""
    with _recent_lock:
        _recent.clear()
        for one in _stores.values():
            one.drop_all()
