"""Reads a run's files without disturbing the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..files import parse_json, read_json
from .folder import Run
from .status import Status

if TYPE_CHECKING:
    from ..config.tree import RunConfig

TAIL_BYTES = 64 * 1024
MAX_POINTS = 400
StageState = Literal["done", "running", "failed", "cancelled", "killed", "waiting"]


@dataclass(frozen=True)
class StageView:
    """The state of one stage of a run."""

    name: str
    state: StageState  # "waiting" if it has not begun
    share: float  # done, 0..1
    sec: float | None  # spent in it so far; None if unknown


def stages(run: Run, config: RunConfig, status: Status) -> list[StageView]:
    """All stages of the run, in order."""
    from ..pipeline import stage_names

    found = []
    for name in stage_names(config):
        sec = status.stage_sec.get(name)
        if (run.path / f"{name}.done.json").is_file():
            found.append(StageView(name, "done", 1.0, sec))
        elif name == status.stage and status.state in ("running", "failed", "cancelled", "killed"):
            found.append(StageView(name, status.state, min(1.0, max(0.0, status.share)), sec))
        else:
            found.append(StageView(name, "waiting", 0.0, None))
    return found


def tail(path: Path, n_lines: int = 40) -> str:
    """The last lines of a text file; "" if there is no file."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - TAIL_BYTES))
            return "\n".join(stream.read().decode("utf-8", "replace").splitlines()[-n_lines:])
    except OSError:
        return ""


def trainings(stats: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Each stage with each of its trainings, "" for one without a name, in the order of the lines."""
    return list(dict.fromkeys((line["stage"], line.get("training", "")) for line in stats))


def curve(
    stats: list[dict[str, Any]], stage: str, key: str, training: str = ""
) -> tuple[list[int], list[float]]:
    """Steps and values of a measurement in a training, thinned out to `MAX_POINTS`; the last value stays."""
    points = [
        (line["step"], float(line[key]))
        for line in stats
        if (line["stage"], line.get("training", "")) == (stage, training) and _is_number(line.get(key))
    ]
    every = max(1, -(-len(points) // MAX_POINTS))
    points = points[::-1][::every][::-1]
    return [step for step, _ in points], [value for _, value in points]


def latest(stats: list[dict[str, Any]], key: str) -> float | None:
    """The last value of a measurement; None if there is none."""
    found = [line[key] for line in stats if _is_number(line.get(key))]
    return float(found[-1]) if found else None


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class OutlierSample:
    """Some of the outliers that a run has made so far."""

    images: np.ndarray  # uint8 (n,H,W,3)
    labels: list[str]  # the cluster of each source, "" if unknown
    target_labels: list[str]  # the wrong label of each, "" if unknown
    shards: int  # the number of shards so far


def outlier_sample(run: Run, n: int) -> OutlierSample | None:
    """The first `n` outliers of the newest shard; None if there is no shard."""
    shards = sorted((run.path / "outliers" / "wrong").glob("[!.]*.safetensors"))
    for path in sorted(shards, key=_changed, reverse=True):
        try:
            arrays = load_file(path)
            images, targets = arrays["images"][:n], arrays["target_labels"][:n]
        except (SafetensorError, OSError, KeyError):  # cut or foreign: try the next one
            continue
        fits = targets.shape == images.shape[:1] and targets.dtype.kind in "iu"
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not fits:
            continue
        rows = int(path.stem) + np.arange(len(images)) if path.stem.isdecimal() else np.zeros(0, int)
        names, labels = _labels(run)
        name_of = dict(enumerate(names))
        sources = [name_of.get(int(labels[r % len(labels)]), "") if len(labels) else "" for r in rows]
        return OutlierSample(
            images, sources or [""] * len(images), [name_of.get(int(t), "") for t in targets], len(shards)
        )
    return None


def _labels(run: Run) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the clusters, and the label of each training image; empty if they do not exist."""
    try:
        table = pq.read_table(run.path / "pseudo_labels" / "pseudo_labels.parquet", columns=["label"])
        names = tuple(str(one) for one in parse_json((table.schema.metadata or {})[b"cluster_names"]))
        return names, table["label"].to_numpy().astype(np.int64)
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
        return (), np.zeros(0, np.int64)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def metrics(run: Run, config: RunConfig) -> dict[str, float | int]:
    """The measurements of the complete stages; if two stages use one name, the later value counts."""
    from ..pipeline import stage_names

    found: dict[str, float | int] = {}
    for name in stage_names(config):
        try:
            tree = read_json(run.path / f"{name}.done.json")["metrics"]
            found |= {key: value for key, value in tree.items() if _is_number(value)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[object]]:
    """The keys, as in "a.b", in which configurations differ, with the value in each, None for no value."""
    flat = [leaves(one) for one in configs]
    keys = dict.fromkeys(key for tree in flat for key in tree)
    values = {key: [tree.get(key) for tree in flat] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """The values of a nested tree by key, as in "a.b"."""
    found: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def folder_bytes(run: Run) -> int:
    """The size of the run's folder; links are not followed."""
    total = 0
    for path in run.path.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:  # gone since it was listed
            continue
    return total
