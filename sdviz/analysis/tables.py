"""The tables of a bundle, read on first use."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from ..bundle import Banks, Bundle, BundleError
from ..bundle.generated import FEATURES, GENERATED, GENERATED_OUTLIERS, TABLE, has_generated
from ..bundle.parts import numbers, reading, texts
from ..bundle.threshold import reference_of
from ..data import BUILT_IN, OWN_KINDS, splits_here
from ..detection.knn import unit_length
from ..evaluation import OODReference, Report, read_report
from ..evaluation.sets import HEADS, OOD_ROLES
from ..outliers import Recipe
from ..text import LineError

T = TypeVar("T")

HOW_TO_MAKE = "python -m sdviz run configs/shapes-quick.yaml"


# groups of images besides the scored sets: the two banks
TRAIN, OUTLIERS = "train", "SD outliers"
RECIPE_COLUMNS = ("start_timestep", "guidance_scale", "num_inference_steps", "eta", "seed", "sigma")
# the roles of images that are ID: held-out ones, and generated ones, which stand in for them
ID_ROLES = ("id", GENERATED)
HALVES = (GENERATED, GENERATED_OUTLIERS)
# sets whose pictures every machine has
WITH_PICTURES = (*HALVES, *BUILT_IN)


class MissingPart(LineError):
    """A bundle lacks a part; the message names it in one line."""


def or_none(read: Callable[[], T]) -> T | None:
    """The result of `read`, None if the bundle lacks that part."""
    try:
        return read()
    except MissingPart:
        return None


def scaled(features: np.ndarray, normalize: bool) -> np.ndarray:
    """Features (...,D) as float32, of unit length if `normalize`, as Eq. 6 takes them."""
    return unit_length(features) if normalize else np.asarray(features, np.float32)


def by_set(table: pa.Table) -> dict[str, pa.Table]:
    """The rows of each set of a table, by the column "set", in the order of their first rows."""
    names = texts(table["set"])
    return {name: table.filter(pa.array(names == name)) for name in dict.fromkeys(names.tolist())}


@dataclass(frozen=True, eq=False)
class ScoredSet:
    """The held-out ID images, an OOD set, or generated images or outliers, scored when the bundle was made."""

    name: str  # "test" for the ID images, else the set's name
    role: str  # "id", "near", "far", "validation", "sd" or "generated"
    ids: np.ndarray  # str (N,)
    labels: np.ndarray  # int64 (N,), known classes, -1 for unknown
    distance: np.ndarray  # float64 (N,), first term of Eq. 6
    votes: np.ndarray  # int64 (N,), 0..k
    total: np.ndarray  # float64 (N,), Eq. 6
    features: np.ndarray | None  # float32 (N,D) of the detector, if kept
    # logits float32, "g_bin" (N,2), "g_in" (N,C), "g_out" (N,C); empty if not kept
    heads: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """The clusters of the training images, or of the generated ones."""

    ids: np.ndarray  # str (N,)
    labels: np.ndarray  # int64 (N,), 0..C-1
    confidence: np.ndarray  # float32 (N,), the largest probability, 0..1


@dataclass(frozen=True, eq=False)
class OutlierTable:
    """How each outlier of the bank was made."""

    ids: np.ndarray  # str (M,)
    source_ids: np.ndarray  # str (M,), training images
    labels: np.ndarray  # int64 (M,), y~ of the source
    target_labels: np.ndarray  # int64 (M,), the wrong labels
    table: pa.Table

    def recipe(self, row: int) -> Recipe:
        """The settings that made one outlier."""
        r = self.table.slice(row, 1).to_pylist()[0]
        low, high = r["guidance_sigma_lo"], r["guidance_sigma_hi"]
        return Recipe(
            r["start_timestep"],
            round(float(r["guidance_scale"]), 6),
            r["num_inference_steps"],
            r["solver"],
            round(float(r["eta"]), 6),
            None if low is None else (float(low), float(high)),
            r["seed"],
        )

    def sigma(self, row: int) -> float:
        """The noise level of S."""
        return float(self.table["sigma"][row].as_py())

    def png(self, row: int) -> bytes | None:
        """The PNG file of the picture, None if the bundle keeps none."""
        blob: bytes | None = self.table["png"][row].as_py() if "png" in self.table.column_names else None
        return blob


class Evidence:
    """The tables of one bundle, each read once, on first use.

    Every property raises MissingPart if the bundle lacks that part.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @cached_property
    def banks(self) -> Banks:
        """The reference features of ID images and outliers."""
        try:
            return self.bundle.banks()
        except ValueError as error:
            raise MissingPart(str(error)) from error

    @cached_property
    def sets(self) -> dict[str, ScoredSet]:
        """The scored sets by name, the held-out ID images first."""
        found = self._scored("scores.parquet", "it was never measured", "ood_features.safetensors")
        return dict(sorted(found.items(), key=lambda item: item[1].role != "id"))

    @cached_property
    def shown_sets(self) -> dict[str, ScoredSet]:
        """As `sets`, and after them the generated images and their outliers, if the bundle carries some."""
        if not has_generated(self.bundle) or "total" not in self.generated.column_names:
            return self.sets
        return self.sets | self._scored(TABLE, "", FEATURES)

    @property
    def sets_at_hand(self) -> dict[str, ScoredSet]:
        """The sets to show images of: `sets`, or if `stands_in` those whose pictures every machine has."""
        if not self.stands_in:
            return self.sets
        shown = self.shown_sets
        return {name: shown[name] for name in WITH_PICTURES if name in shown}

    @property
    def stands_in(self) -> bool:
        """Whether generated images stand in for the bundle's own set, which is not on this machine."""
        return has_generated(self.bundle) and not splits_here(self.bundle.manifest.dataset)

    @cached_property
    def generated(self) -> pa.Table:
        """The generated images and their outliers, see `sdviz.bundle.generated`."""
        with self.part(TABLE, "it carries no generated images") as file:
            table = pq.read_table(file)
            for name in ("cluster", "told", "target_label", "confidence"):
                numbers(table[name], np.float64)
            texts(table["id"])
            if GENERATED not in texts(table["set"]) or not pa.types.is_binary(table["png"].type):
                raise ValueError("it holds no generated images")
            return table

    def _scored(self, name: str, why: str, features_part: str) -> dict[str, ScoredSet]:
        features = self.bundle.parts.get(features_part)
        found: dict[str, ScoredSet] = {}
        with self.part(name, why) as file:
            stored = {} if features is None else load_file(features)
            for name, part in by_set(pq.read_table(file)).items():
                n, role = part.num_rows, str(part["role"][0])
                if role not in (*ID_ROLES, *OOD_ROLES):
                    raise ValueError(f"{role!r} is no role")
                f = stored.get(name)
                heads = {h: stored[f"{name}.{h}"] for h in HEADS if len(stored.get(f"{name}.{h}", ())) == n}
                found[name] = ScoredSet(
                    name,
                    role,
                    texts(part["id"]),
                    numbers(part["label"], np.int64) if "label" in part.column_names else np.full(n, -1),
                    numbers(part["distance"], np.float64),
                    numbers(part["votes"], np.int64),
                    numbers(part["total"], np.float64),
                    f.astype(np.float32) if f is not None and len(f) == n else None,
                    heads,
                )
        return found

    @property
    def id_set(self) -> ScoredSet:
        """The held-out ID images."""
        for one in self.sets.values():
            if one.role == "id":
                return one
        raise MissingPart("scores.parquet holds no held-out ID images: there is no threshold")

    @property
    def ood_sets(self) -> dict[str, ScoredSet]:
        """The OOD sets by name."""
        return {name: one for name, one in self.sets.items() if one.role != "id"}

    @cached_property
    def reference(self) -> OODReference:
        """The held-out ID scores and the threshold that the bundle keeps."""
        return reference_of(self.bundle, self.id_set.total)

    @cached_property
    def pseudo_labels(self) -> PseudoLabels:
        """The clusters of the training images."""
        with self.part("pseudo_labels.parquet", "it does not know its training images") as file:
            table = pq.read_table(file)
            return PseudoLabels(
                texts(table["id"]), numbers(table["label"], np.int64), numbers(table["confidence"], np.float32)
            )

    @cached_property
    def generated_clusters(self) -> dict[str, tuple[int, int, int]]:
        """Of each picture in `generated`, by its id: y~, the label it was made under, and c_r, else -1."""
        columns = [self.generated[key].to_pylist() for key in ("cluster", "told", "target_label")]
        return dict(zip(self.generated["id"].to_pylist(), zip(*columns, strict=True), strict=True))

    @cached_property
    def generated_labels(self) -> PseudoLabels:
        """The clusters of the generated images."""
        table = by_set(self.generated)[GENERATED]
        return PseudoLabels(
            texts(table["id"]),
            table["cluster"].to_numpy().astype(np.int64),
            table["confidence"].to_numpy().astype(np.float32),
        )

    @cached_property
    def outliers(self) -> OutlierTable:
        """How the outliers of the bank were made, in the bank's order."""
        with self.part("outliers.parquet", "it does not know its outliers") as file:
            table = pq.read_table(file)
            for name in RECIPE_COLUMNS:
                numbers(table[name], np.float64)
            texts(table["solver"])
            for name in ("guidance_sigma_lo", "guidance_sigma_hi"):
                numbers(table[name].drop_null(), np.float64)
            return OutlierTable(
                texts(table["id"]),
                texts(table["source_id"]),
                numbers(table["label"], np.int64),
                numbers(table["target_label"], np.int64),
                table,
            )

    @cached_property
    def report(self) -> Report:
        """report.json."""
        with self.part("report.json", "it was never measured") as file:
            return read_report(file)

    @cached_property
    def snapshots(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features float32 (epochs + 1, N, D) before training and after each epoch; role and id, str (N,)."""
        why = "detector training left no snapshots in it"
        with self.part("snapshots.safetensors", why) as file, self.part("snapshots.parquet", why) as rows:
            table, epochs = pq.read_table(rows), load_file(file)
            stack = np.stack([epochs[key] for key in sorted(epochs)]).astype(np.float32)
            if stack.ndim != 3 or stack.shape[1] != table.num_rows:
                raise ValueError(f"{stack.shape} features of {table.num_rows} images")
            return stack, texts(table["role"]), texts(table["id"])

    @property
    def sources(self) -> tuple[str, ...]:
        """The folders and files among the bundle's data sets, for `data.look_up`."""
        setting = self.bundle.manifest.setting
        named = [setting("data", "id") or ""]
        for role in ("near", "far", "validation"):
            named += setting("evaluation", role) or []
        return tuple(one for one in named if one.startswith(OWN_KINDS))

    @contextmanager
    def part(self, name: str, why: str) -> Iterator[Path]:
        """Yields the file of a part to read. Raises MissingPart: there is none, or it cannot be read."""
        path = self.bundle.parts.get(name)
        if path is None:
            raise MissingPart(f"this bundle has no {name}: {why}")
        try:
            with reading(path):
                yield path
        except BundleError as error:
            raise MissingPart(str(error)) from error
