"""The picture of any id that a bundle's tables name: images from their sets, outliers from their recipes."""

import io
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np
from PIL import Image

from .. import data
from ..bundle import BundleError
from ..outliers import Recipe
from .same_images import find_images, through_own_jpeg
from .tables import Evidence, or_none

KEPT_AT_MOST = 50_000
# ids that begin so have no file under the data root
_WITHOUT_A_FILE = (*data.BUILT_IN, *(kind.rstrip(":") for kind in data.OWN_KINDS))
_NAME = re.compile(r"[\w.-]{1,60}")
_WORDNET = re.compile(r"^n\d{8} (?=\S)")


class Way(NamedTuple):
    """How a set whose pictures are missing gets to this machine."""

    name: str
    split: str
    text: str  # what to do, for Markdown, without a full stop
    is_absent: bool  # whether the split is not on this machine; else what is here of it has other ids

    @property
    def reason(self) -> str:
        """What `Pictures.missing` says of an absent set."""
        return f"{self.name} ({self.split}) is not on this machine"


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of some ids."""

    images: np.ndarray  # uint8 (N,H,W,3), mid-grey where there is none
    found: np.ndarray  # bool (N,)
    class_names: np.ndarray  # str (N,), the image's own class; "" where it is unknown, and for outliers
    missing: tuple[str, ...]  # one line for each reason why pictures are missing
    ways: tuple[Way, ...] = ()  # how to get each split of a set that is not on this machine


def way_to_get(name: str, split: str | None = None) -> str:
    """How a named set gets to this machine, for Markdown: one line without its full stop."""
    if name in data.DOWNLOADS:
        return f"`python -m sdviz download {name}` fetches it"
    part = "" if split in (None, "all") else f"_{split}"
    return f"put `{name}{part}.parquet` in `{data.data_root()}`, or in another `SDVIZ_DATA`"


def _ways(lost: list[str]) -> list[Way]:
    """How to get the sets of these ids; skips names that are no data set and sets that are here."""
    parts = dict.fromkeys((one.split("/")[0], one.split("/")[1]) for one in lost if one.count("/") >= 2)
    ways = []
    for name, split in parts:
        if name in _WITHOUT_A_FILE or not _NAME.fullmatch(name) or not _NAME.fullmatch(split):
            continue
        if split in data.splits_here(name):
            file = f"`{name}_{split}.parquet` in `{data.data_root()}`"
            text = f"what is here of {name} has other ids: these are of {file}"
            ways.append(Way(name, split, text, False))
        else:
            ways.append(Way(name, split, way_to_get(name, split), True))
    return ways


def without_wordnet_id(name: str) -> str:
    """A class without the WordNet id that some sets put before it, as in "n09428293 seashore, coast"."""
    return _WORDNET.sub("", name)


class PictureLibrary:
    """Pictures by id, kept once seen. Safe from several threads."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._kept: OrderedDict[str, tuple[np.ndarray, str]] = OrderedDict()
        self._lock = Lock()
        self._outlier_row: dict[str, int] | None = None
        self._held_out = held_out_recipe(evidence)

    def outlier_row(self, one: str) -> int | None:
        """The row of an outlier's id in the bank, None for any other id."""
        if self._outlier_row is None:
            table = or_none(lambda: self._evidence.outliers)
            ids = [] if table is None else table.ids.tolist()
            self._outlier_row = {name: row for row, name in enumerate(ids)}
        return self._outlier_row.get(one)

    def _is_of_held_out(self, one: str) -> bool:
        recipe = self._held_out
        return recipe is not None and one.endswith(f"~{recipe.seed}") and self.outlier_row(one) is None

    def must_generate(self, one: str) -> bool:
        """Whether the picture is an outlier's that neither the bundle nor this library keeps."""
        if one in self._kept:
            return False
        row = self.outlier_row(one)
        return self._is_of_held_out(one) if row is None else self._evidence.outliers.png(row) is None

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
        held_out = [one for one in rest if self._is_of_held_out(one)]
        plain = [one for one in rest if self.outlier_row(one) is None and one not in held_out]
        new: dict[str, tuple[np.ndarray, str]] = {}
        if plain:
            found = find_images(self._evidence.bundle, plain, self._evidence.sources)
            missing += found.missing
            for i, one in enumerate(plain):
                if found.found[i]:
                    new[one] = (found.images[i], without_wordnet_id(str(found.class_names[i])))
            lost += [one for one in plain if one not in new]
            if lost and not found.missing:
                missing.append(f"{len(lost)} of {len(plain)} images are no longer what their id says")
        for make, wanted in ((self._outliers, outliers), (self._of_held_out, held_out)):
            if wanted:
                made, why, without = make(wanted)
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
        found = find_images(self._evidence.bundle, ids, self._evidence.sources, False).class_names
        short = {one: without_wordnet_id(one) for one in np.unique(found).tolist()}
        return np.array([short[one] for one in found.tolist()], dtype=str)

    def classes_of_sources(self, ids: np.ndarray | Sequence[str]) -> np.ndarray:
        """The class of what each SD outlier of held-out images is made of, str (N,), "" where unknown."""
        return self.class_names([str(one).rpartition("~")[0] for one in ids])

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
            pictures = through_own_jpeg(bundle, batch.outliers)
            made |= dict(zip(table.ids[there].tolist(), pictures, strict=True))
        return made, why, lost

    def _of_held_out(self, ids: list[str]) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
        """As `_outliers`, for SD outliers of held-out images (`evaluation.sd_test`)."""
        bundle, recipe = self._evidence.bundle, self._held_out
        assert recipe is not None
        names = np.array([one.rpartition("~")[0] for one in ids])
        sources = find_images(bundle, names, self._evidence.sources)
        there = sources.found
        if not there.any():
            return {}, list(sources.missing), names.tolist()
        try:
            bundle.load_networks()
            batch = bundle.generate(sources.images[there], ids=names[there], **asdict(recipe))
        except (BundleError, ValueError) as error:  # no clusterer names their clusters, or a damaged network
            return {}, [str(error)], []
        pictures = through_own_jpeg(bundle, batch.outliers)
        made = dict(zip(np.array(ids)[there].tolist(), pictures, strict=True))
        return made, list(sources.missing), names[~there].tolist()


def held_out_recipe(evidence: Evidence) -> Recipe | None:
    """How SD outliers of held-out images were made, where the bundle was measured on such; else None."""
    config = evidence.bundle.manifest.config or {}
    wanted = (config.get("evaluation") or {}).get("sd_test")
    if not wanted:
        return None
    o, d = config.get("outliers") or {}, evidence.bundle.manifest.defaults
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
