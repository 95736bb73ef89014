"""The picture of any id that a bundle's tables name: images from their sets, outliers from their recipes."""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from threading import Lock

import numpy as np
from PIL import Image

from .. import data
from ..bundle import BundleError
from ..data import MissingDataError
from ..data.decode import through_jpeg
from ..data.torchvision_sets import NAMES as CAN_BE_FETCHED
from ..outliers import Recipe
from .same_images import find_images
from .tables import Evidence, MissingPart

KEPT_AT_MOST = 50_000
# ids that begin so have no file under the data root
_WITHOUT_A_FILE = (*data.BUILT_IN, *(kind.rstrip(":") for kind in data.OWN_KINDS))
_NAME = re.compile(r"[\w.-]{1,60}")


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of some ids.

    Attributes:
        images: uint8 (N,H,W,3), mid-grey where there is none.
        found: bool (N,).
        class_names: str (N,), the image's own class; "" where it is unknown, and for outliers.
        missing: One line for each reason why pictures are missing.
        ways: One line for each set that is not on this machine: how to get it.
    """

    images: np.ndarray
    found: np.ndarray
    class_names: np.ndarray
    missing: tuple[str, ...]
    ways: tuple[str, ...] = ()


def way_to_get(name: str, split: str | None = None) -> str:
    """How a set that is not on this machine gets there, for Markdown: one line without its full stop.

    Args:
        name: Of the set, without a path.
        split: The one that is wanted, if one is.
    """
    if name in CAN_BE_FETCHED:
        return f"`python -m sdviz download {name}` fetches it"
    part = "" if split in (None, "all") else f"_{split}"
    return f"Put `{name}{part}.parquet` in `{data.data_root()}`, or set `SDVIZ_DATA` to the folder that has it"


def _ways(lost: list[str]) -> list[str]:
    """How to get the sets of these ids, one line each; none for what is no set's name, or is here after all."""
    parts = dict.fromkeys((one.split("/")[0], one.split("/")[1]) for one in lost if one.count("/") >= 2)
    ways: dict[str, None] = {}
    for name, split in parts:
        if name in _WITHOUT_A_FILE or not _NAME.fullmatch(name) or not _NAME.fullmatch(split):
            continue
        if _is_here(name, split):
            root = data.data_root()
            way = f"What is here of {name} has other ids: these are of `{name}_{split}.parquet` in `{root}`"
        else:
            way = way_to_get(name, split)
        ways[f"{way}."] = None
    return list(ways)


def _is_here(name: str, split: str) -> bool:
    try:
        return split in data.splits(name)
    except MissingDataError:
        return False


class PictureLibrary:
    """Pictures by id, kept once seen. Safe from several threads."""

    def __init__(self, evidence: Evidence) -> None:
        """Nothing is read yet.

        Args:
            evidence: Of the bundle whose ids these are.
        """
        self._evidence = evidence
        self._kept: OrderedDict[str, tuple[np.ndarray, str]] = OrderedDict()
        self._lock = Lock()
        self._outlier_row: dict[str, int] | None = None

    def outlier_row(self, one: str) -> int | None:
        """The row of an outlier's id in the bank, None for any other id."""
        if self._outlier_row is None:
            try:
                ids = self._evidence.outliers.ids
            except MissingPart:
                ids = np.array([], str)
            self._outlier_row = {name: row for row, name in enumerate(ids.tolist())}
        return self._outlier_row.get(one)

    def show(self, ids: np.ndarray | Sequence[str]) -> Pictures:
        """The pictures of these ids, in this order.

        Outliers come from the PNG in the bundle, else they are made again from their source on the bundle's
        device: ask for few of those at a time, under whatever lock the device needs.
        """
        names = [str(one) for one in ids]
        size = self._evidence.bundle.manifest.image_size
        with self._lock:
            known = {one: self._kept[one] for one in names if one in self._kept}
        missing: list[str] = []
        lost: list[str] = []
        rest = [one for one in dict.fromkeys(names) if one not in known]
        outliers = [one for one in rest if self.outlier_row(one) is not None]
        plain = [one for one in rest if self.outlier_row(one) is None]
        new: dict[str, tuple[np.ndarray, str]] = {}
        if plain:
            found = find_images(self._evidence.bundle, plain, self._evidence.sources)
            missing += found.missing
            for i, one in enumerate(plain):
                if found.found[i]:
                    new[one] = (found.images[i], str(found.class_names[i]))
            lost += [one for one in plain if one not in new]
            if lost and not found.missing:
                missing.append(f"{len(lost)} of {len(plain)} images are no longer what their id says")
        if outliers:
            made, why, without = self._outliers(outliers)
            new |= {one: (image, "") for one, image in made.items()}
            missing += why
            lost += without
        with self._lock:
            self._kept.update(new)
            while len(self._kept) > KEPT_AT_MOST:
                self._kept.popitem(last=False)
        known |= new
        images = np.full((len(names), size, size, 3), 127, np.uint8)
        here = np.array([one in known for one in names], bool)
        for i, one in enumerate(names):
            if here[i]:
                images[i] = known[one][0]
        classes = np.array([known[one][1] if one in known else "" for one in names], dtype=str)
        ways = _ways(lost) if missing else []
        return Pictures(images, here, classes, tuple(dict.fromkeys(missing)), tuple(ways))

    def class_names(self, ids: np.ndarray | Sequence[str]) -> np.ndarray:
        """The class of each image without its picture, str (N,), "" where it is unknown."""
        return find_images(self._evidence.bundle, ids, self._evidence.sources, False).class_names

    def _outliers(self, ids: list[str]) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
        """Pictures by id, why some are missing, and the sources that were not found."""
        table, made, why = self._evidence.outliers, dict[str, np.ndarray](), list[str]()
        lost: list[str] = []
        again: OrderedDict[Recipe, list[int]] = OrderedDict()
        for one in ids:
            row = self.outlier_row(one)
            assert row is not None
            blob = table.png(row)
            if blob is not None:
                with Image.open(io.BytesIO(blob), formats=["PNG"]) as picture:
                    made[one] = np.asarray(picture.convert("RGB"))
            else:
                again.setdefault(table.recipe(row), []).append(row)
        bundle = self._evidence.bundle
        for recipe, rows in again.items():
            sources = find_images(bundle, table.source_ids[rows], self._evidence.sources)
            why += sources.missing
            lost += table.source_ids[rows][~sources.found].tolist()
            there = np.array(rows)[sources.found]
            if not len(there):
                continue
            try:
                bundle.load_networks()
            except BundleError as error:
                why.append(str(error))
                break
            batch = bundle.generate(
                sources.images[sources.found],
                labels=table.labels[there],
                target_labels=table.target_labels[there],
                ids=table.source_ids[there],
                **asdict(recipe),
            )
            pictures = batch.outliers
            jpeg = ((bundle.manifest.config or {}).get("outliers") or {}).get("jpeg")
            if jpeg:
                pictures = through_jpeg(pictures, jpeg["quality"], jpeg["subsampling"])
            made |= dict(zip(table.ids[there].tolist(), pictures, strict=True))
        return made, why, lost
