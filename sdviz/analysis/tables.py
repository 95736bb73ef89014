"""A bundle's tables, opened when they are first asked for and checked against each other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open

from ..bundle import Banks, Bundle
from ..data import OWN_KINDS
from ..evaluation import OODReference, Report, ood_reference, read_report
from ..evaluation.sets import HEADS
from ..outliers import Recipe

T = TypeVar("T")

HOW_TO_MAKE = "python -m sdviz run configs/shapes-quick.yaml"


class MissingPart(ValueError):
    """A bundle lacks what was asked for; the message says what, in one line."""


def or_none(read: Callable[[], T]) -> T | None:
    """What `read` returns, None where the bundle lacks that part."""
    try:
        return read()
    except MissingPart:
        return None


@dataclass(frozen=True, eq=False)
class ScoredSet:
    """The held-out ID images or one OOD set, scored by Eq. 6 when the bundle was made."""

    name: str  # "test" for the ID images, else the set's name
    role: str  # "id", "near", "far" or "validation"
    ids: np.ndarray  # str (N,)
    labels: np.ndarray  # int64 (N,), known classes, -1 where unknown
    distance: np.ndarray  # float64 (N,), the first term
    votes: np.ndarray  # int64 (N,), the second without alpha, 0..k
    total: np.ndarray  # float64 (N,)
    features: np.ndarray | None  # float32 (N,D) of the detector; None in a bundle without them
    # Logits float32 by head, "g_bin" (N,2), "g_in" (N,C), "g_out" (N,C); empty without them
    heads: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """The clusters of the training images."""

    ids: np.ndarray  # str (N,)
    labels: np.ndarray  # int64 (N,), 0..C-1
    confidence: np.ndarray  # float32 (N,), the largest probability, 0..1


@dataclass(frozen=True, eq=False)
class OutlierTable:
    """How each outlier of the bank was made."""

    ids: np.ndarray  # str (M,)
    source_ids: np.ndarray  # str (M,), the training image that it was made of
    labels: np.ndarray  # int64 (M,), y~ of the source
    target_labels: np.ndarray  # int64 (M,), the wrong label that it was made with
    table: pa.Table

    def recipe(self, row: int) -> Recipe:
        """S, w and what else made one outlier."""
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
        """sigma of S."""
        return float(self.table["sigma"][row].as_py())

    def png(self, row: int) -> bytes | None:
        """The picture's file, None where it has to be made again."""
        blob: bytes | None = self.table["png"][row].as_py() if "png" in self.table.column_names else None
        return blob


class Evidence:
    """The tables of one bundle, each read once, when it is first asked for.

    Every property raises MissingPart, with what is missing in one line, where the bundle has no such part.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @cached_property
    def banks(self) -> Banks:
        """The reference features: of the ID images and of the outliers."""
        try:
            return self.bundle.banks()
        except ValueError as error:
            raise MissingPart(str(error)) from error

    @cached_property
    def sets(self) -> dict[str, ScoredSet]:
        """Every scored set by name, the held-out ID images first, in the order of the scores."""
        table = pq.read_table(self._part("scores.parquet", "it was never measured"))
        features = self.bundle.parts.get("ood_features.safetensors")
        stored: dict[str, np.ndarray] = {}
        if features is not None:
            with safe_open(str(features), "np") as file:
                stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        names = np.array(table["set"].to_pylist(), dtype=str)
        found: dict[str, ScoredSet] = {}
        for name in dict.fromkeys(names.tolist()):
            part = table.filter(pa.array(names == name))
            n = part.num_rows
            f = stored.get(name)
            heads = {h: stored[f"{name}.{h}"] for h in HEADS if len(stored.get(f"{name}.{h}", ())) == n}
            found[name] = ScoredSet(
                name,
                part["role"][0].as_py(),
                np.array(part["id"].to_pylist(), dtype=str),
                part["label"].to_numpy(),
                part["distance"].to_numpy(),
                part["votes"].to_numpy(),
                part["total"].to_numpy(),
                f.astype(np.float32) if f is not None and len(f) == n else None,
                heads,
            )
        return dict(sorted(found.items(), key=lambda item: item[1].role != "id"))

    @property
    def id_set(self) -> ScoredSet:
        """The held-out ID images."""
        for one in self.sets.values():
            if one.role == "id":
                return one
        raise MissingPart("scores.parquet holds no held-out ID images: there is no threshold")

    @property
    def ood_sets(self) -> dict[str, ScoredSet]:
        """The OOD sets by name: near, far, and those for validation."""
        return {name: one for name, one in self.sets.items() if one.role != "id"}

    @cached_property
    def reference(self) -> OODReference:
        """The held-out ID scores in order, and the threshold at 95 % ID recall."""
        return ood_reference(self.id_set.total)

    @cached_property
    def pseudo_labels(self) -> PseudoLabels:
        """The clusters of the training images."""
        table = pq.read_table(self._part("pseudo_labels.parquet", "it does not know its training images"))
        return PseudoLabels(
            np.array(table["id"].to_pylist(), dtype=str),
            table["label"].to_numpy().astype(np.int64),
            table["confidence"].to_numpy().astype(np.float32),
        )

    @cached_property
    def outliers(self) -> OutlierTable:
        """How the outliers of the bank were made, in the bank's order."""
        table = pq.read_table(self._part("outliers.parquet", "it does not know its outliers"))
        return OutlierTable(
            np.array(table["id"].to_pylist(), dtype=str),
            np.array(table["source_id"].to_pylist(), dtype=str),
            table["label"].to_numpy().astype(np.int64),
            table["target_label"].to_numpy().astype(np.int64),
            table,
        )

    @cached_property
    def report(self) -> Report:
        """report.json."""
        return read_report(self._part("report.json", "it was never measured"))

    @cached_property
    def snapshots(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features float32 (epochs + 1, N, D) from before training on; role and id of each row, str (N,)."""
        path = self._part("snapshots.safetensors", "detector training left no snapshots in it")
        table = pq.read_table(self._part("snapshots.parquet", "detector training left no snapshots in it"))
        with safe_open(str(path), "np") as file:
            stack = np.stack([file.get_tensor(key) for key in sorted(file.keys())])
        roles, ids = (np.array(table[column].to_pylist(), dtype=str) for column in ("role", "id"))
        return stack.astype(np.float32), roles, ids

    @property
    def sources(self) -> tuple[str, ...]:
        """The folders and files among the data that the bundle was made from, for `data.look_up`."""
        config: dict[str, Any] = self.bundle.manifest.config or {}
        evaluation = config.get("evaluation") or {}
        named = [(config.get("data") or {}).get("id") or ""]
        for role in ("near", "far", "validation"):
            named += evaluation.get(role) or []
        return tuple(one for one in named if one.startswith(OWN_KINDS))

    def _part(self, name: str, why: str) -> Any:  # noqa: ANN401 - a Path; pyarrow and safetensors take it
        path = self.bundle.parts.get(name)
        if path is None:
            raise MissingPart(f"this bundle has no {name}: {why}")
        return path
