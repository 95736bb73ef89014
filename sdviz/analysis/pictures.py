"""Finds the picture of any id in a bundle's tables: images in their sets, outliers by making them again."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from threading import Lock
from typing import NamedTuple

import numpy as np
from cachetools import LRUCache

from .. import data
from ..bundle import BundleError
from ..bundle.generated import decode_png
from ..outliers import Recipe
from ..text import one_line
from .same_images import find_images, through_own_jpeg
from .tables import Evidence, or_none

KEPT_BYTES = 150 * 2**20
# the first part of ids whose sets have no file under the data root
_WITHOUT_A_FILE = (*data.BUILT_IN, *(kind.rstrip(":") for kind in data.OWN_KINDS))
_NAME = re.compile(r"[\w.-]{1,60}")
_WORDNET = re.compile(r"^n\d{8} (?=\S)")


# a picture, uint8 (H,W,3), and its class name
_Shown = tuple[np.ndarray, str]
# pictures by id, one line for each reason why some are missing, and the ids that were not found in their sets
_Result = tuple[dict[str, _Shown], list[str], list[str]]


class Way(NamedTuple):
    """How to get the missing pictures of a set."""

    name: str
    split: str
    text: str  # Markdown, without a full stop
    is_absent: bool  # False if the split is on this machine, but with other ids

    @property
    def reason(self) -> str:
        """The line in `Pictures.missing` for an absent set."""
        return f"{self.name} ({self.split}) is not on this machine"


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of some ids."""

    images: np.ndarray  # uint8 (N,H,W,3), mid-grey for a missing one
    found: np.ndarray  # bool (N,)
    class_names: np.ndarray  # str (N,), known classes; "" for none, and for outliers
    missing: tuple[str, ...]  # one line for each reason why pictures are missing
    ways: tuple[Way, ...] = ()  # how to get the missing ones


def way_to_get(name: str, split: str | None = None) -> str:
    """How to get a named set: one line of Markdown without a full stop."""
    if name in data.DOWNLOADS:
        return f"`python -m sdviz download {name}` fetches it"
    part = "" if split in (None, "all") else f"_{split}"
    # a name from a bundle must not end the code span
    file, folder = (one_line(one).replace("`", "'") for one in (f"{name}{part}.parquet", data.data_root()))
    return f"put `{file}` in `{folder}`, or in another `SDVIZ_DATA`"


def _ways(lost: list[str]) -> list[Way]:
    """How to get the sets of these ids, for those that are kept in files."""
    parts = dict.fromkeys((one.split("/")[0], one.split("/")[1]) for one in lost if one.count("/") >= 2)
    ways = []
    for name, split in parts:
        if name in _WITHOUT_A_FILE or not _NAME.fullmatch(name) or not _NAME.fullmatch(split):
            continue
        if split in data.splits_here(name):
            file = f"`{name}_{split}.parquet` in `{data.data_root()}`"
            text = f"the images of {name} on this machine have other ids: the bundle's are from {file}"
            ways.append(Way(name, split, text, False))
        else:
            ways.append(Way(name, split, way_to_get(name, split), True))
    return ways


def without_wordnet_id(name: str) -> str:
    """Removes the WordNet id that some sets put before a class name, as in "n09428293 seashore, coast"."""
    return _WORDNET.sub("", name)


class PictureLibrary:
    """Pictures by id; the last ones used stay in memory. Safe in several threads."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._kept: LRUCache[str, _Shown] = LRUCache(KEPT_BYTES, getsizeof=lambda shown: shown[0].nbytes)
        self._lock = Lock()
        self._held_out = held_out_recipe(evidence)

    @cached_property
    def _outlier_rows(self) -> dict[str, int]:
        table = or_none(lambda: self._evidence.outliers)
        return {} if table is None else {name: row for row, name in enumerate(table.ids.tolist())}

    @cached_property
    def _generated(self) -> dict[str, bytes]:
        """PNG files by id."""
        table = or_none(lambda: self._evidence.generated)
        if table is None:
            return {}
        return dict(zip(table["id"].to_pylist(), table["png"].to_pylist(), strict=True))

    def outlier_row(self, one: str) -> int | None:
        """The row of an outlier's id in the bank, None for any other id."""
        return self._outlier_rows.get(one)

    def _is_of_held_out(self, one: str) -> bool:
        recipe = self._held_out
        is_kept = one in self._outlier_rows or one in self._generated
        return recipe is not None and one.endswith(f"~{recipe.seed}") and not is_kept

    def must_generate(self, one: str) -> bool:
        """Whether the picture is an outlier's that neither the bundle nor this library keeps."""
        with self._lock:
            if one in self._kept:
                return False
        row = self.outlier_row(one)
        return self._is_of_held_out(one) if row is None else self._evidence.outliers.png(row) is None

    def show(self, ids: np.ndarray | Sequence[str]) -> Pictures:
        """Finds the pictures of these ids.

        Outliers without a PNG in the bundle are made again on the bundle's device: ask for a few at a time, and
        hold the device's lock.
        """
        names = [str(one) for one in ids]
        with self._lock:
            known = {one: self._kept[one] for one in names if one in self._kept}
        generated = {one: self._generated[one] for one in names if one in self._generated and one not in known}
        new, damaged = self._decoded(generated)
        rest = [one for one in dict.fromkeys(names) if one not in known and one not in generated]
        outliers = [one for one in rest if one in self._outlier_rows]
        held_out = [one for one in rest if self._is_of_held_out(one)]
        made = {*outliers, *held_out}
        plain = [one for one in rest if one not in made]
        parts = [self._images(plain), self._outliers(outliers)]
        if self._held_out is not None and held_out:
            parts.append(self._make(np.array(held_out), _sources(held_out), self._held_out))
        new |= {one: shown for found, _, _ in parts for one, shown in found.items()}
        missing = dict.fromkeys([*damaged, *(line for _, lines, _ in parts for line in lines)])
        ways = _ways([one for _, _, lost in parts for one in lost]) if missing else []
        with self._lock:
            self._kept.update(new)
        known |= new
        size = self._evidence.bundle.manifest.image_size
        nothing = np.full((size, size, 3), 127, np.uint8), ""
        images = [known.get(one, nothing)[0] for one in names]
        return Pictures(
            np.stack(images) if names else np.empty((0, size, size, 3), np.uint8),
            np.array([one in known for one in names], bool),
            np.array([known.get(one, nothing)[1] for one in names], dtype=str),
            tuple(missing),
            tuple(ways),
        )

    def class_names(self, ids: np.ndarray | Sequence[str]) -> np.ndarray:
        """Reads the class of each image without its picture, str (N,), "" for an unknown class."""
        found = find_images(self._evidence.bundle, ids, self._evidence.sources, False).class_names
        short = {one: without_wordnet_id(one) for one in np.unique(found).tolist()}
        return np.array([short[one] for one in found.tolist()], dtype=str)

    def classes_of_sources(self, ids: np.ndarray | Sequence[str]) -> np.ndarray:
        """The class of the source of each SD outlier of held-out images, as `class_names`."""
        return self.class_names(_sources(ids))

    def _decoded(self, blobs: Mapping[str, bytes | None]) -> tuple[dict[str, _Shown], list[str]]:
        """The pictures of PNG files by id, and one line for each that is damaged."""
        size_px, found, damaged = self._evidence.bundle.manifest.image_size, dict[str, _Shown](), list[str]()
        for one, blob in blobs.items():
            try:
                found[one] = decode_png(blob, size_px), ""
            except BundleError as error:
                damaged.append(str(error))
        return found, damaged

    def _images(self, ids: list[str]) -> _Result:
        found = find_images(self._evidence.bundle, ids, self._evidence.sources)
        classes = map(without_wordnet_id, found.class_names.tolist())
        shown = zip(ids, found.images, classes, found.found, strict=True)
        images = {one: (image, name) for one, image, name, is_found in shown if is_found}
        lost = [one for one in ids if one not in images]
        missing = list(found.missing)
        if lost and not missing:
            missing = [f"{len(lost)} of {len(ids)} images are no longer what their id says"]
        return images, missing, lost

    def _outliers(self, ids: list[str]) -> _Result:
        """Outliers of the bank: from the bundle's PNGs, or made again."""
        made, missing, lost = dict[str, _Shown](), list[str](), list[str]()
        again: dict[Recipe, list[int]] = {}
        for one in ids:
            table, row = self._evidence.outliers, self._outlier_rows[one]
            blob = table.png(row)
            if blob is None:
                again.setdefault(table.recipe(row), []).append(row)
                continue
            shown, damaged = self._decoded({one: blob})
            made |= shown
            missing += damaged
        for recipe, rows in again.items():
            table = self._evidence.outliers
            labels = table.labels[rows], table.target_labels[rows]
            found, why, without = self._make(table.ids[rows], table.source_ids[rows], recipe, *labels)
            made |= found
            missing += why
            lost += without
        return made, missing, lost

    def _make(
        self,
        ids: np.ndarray,
        source_ids: np.ndarray,
        recipe: Recipe,
        labels: np.ndarray | None = None,
        target_labels: np.ndarray | None = None,
    ) -> _Result:
        """Makes outliers again from their sources; without labels the bundle's clusterer names them."""
        bundle = self._evidence.bundle
        sources = find_images(bundle, source_ids, self._evidence.sources)
        there, missing, lost = sources.found, list(sources.missing), source_ids[~sources.found].tolist()
        if not there.any():
            return {}, missing, lost
        try:
            bundle.load_networks()
            batch = bundle.generate(
                sources.images[there],
                labels=None if labels is None else labels[there],
                target_labels=None if target_labels is None else target_labels[there],
                ids=source_ids[there],
                **asdict(recipe),
            )
        except ValueError as error:  # a damaged network, or no clusterer to name the clusters
            return {}, [*missing, str(error)], lost
        pictures = zip(ids[there].tolist(), through_own_jpeg(bundle, batch.outliers), strict=True)
        return {one: (image, "") for one, image in pictures}, missing, lost


def _sources(ids: np.ndarray | Sequence[str]) -> np.ndarray:
    """The source of each SD outlier of held-out images, str (N,); their ids are SOURCE~SEED."""
    return np.array([str(one).rpartition("~")[0] for one in ids], dtype=str)


def held_out_recipe(evidence: Evidence) -> Recipe | None:
    """The recipe of the SD outliers of held-out images (`evaluation.sd_test`), None if there are none."""
    manifest = evidence.bundle.manifest
    wanted = manifest.setting("evaluation", "sd_test")
    if not wanted:
        return None
    o, d = manifest.setting("outliers") or {}, manifest.defaults
    interval = o.get("guidance_interval")
    return Recipe(
        wanted["start_timestep"],
        wanted["guidance_scale"],
        o.get("num_inference_steps") or d.num_inference_steps,
        o.get("solver") or d.solver,
        o.get("eta", 0.0),
        None if interval is None else (interval[0], interval[1]),
        wanted.get("seed", 0),
    )
