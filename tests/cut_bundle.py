"""A small full bundle: the shipped one with only a few rows of each table, measured anew on those."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from sdviz.bundle import Bundle
from sdviz.config.tree import ScoreConfig
from sdviz.evaluation import FeatureSet, cluster_report, evaluate, id_accuracy, make_report
from tests.tiny_bundle import with_parts

SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints" / "shapes"
HEADS = ("g_bin", "g_in", "g_out")


def save_cut_bundle(
    path: Path,
    n_id: int = 240,
    n_per_set: int = 40,
    sets: tuple[str, ...] = ("shapes-novel", "shapes-empty", "digits", "shapes-novel-val"),
    detector: bool = True,
    n_snapshots: int = 90,
    blend: float = 0.0,
) -> Path:
    """Writes a bundle with the shipped networks and the first rows of the shipped tables.

    Args:
        path: Where to.
        n_id: Images in the ID bank, and outliers in the outlier bank.
        n_per_set: Images of the ID test set and of each OOD set.
        sets: OOD sets to keep.
        detector: Without, the bundle makes outliers and clusters, and scores nothing.
        n_snapshots: Images followed through detector training.
        blend: How much of an OOD image's features is an ID test image's: near 1 the scores of both overlap, and
            no metric is 100 %.

    Returns:
        `path`.
    """
    whole = Bundle.load(SHIPPED, "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = {"pseudo_labels.parquet": folder / "pseudo_labels.parquet"}
        bank, some = _rows_to_keep(whole, n_id, n_snapshots)
        labels = pq.read_table(whole.parts["pseudo_labels.parquet"]).take(pa.array(bank))
        pq.write_table(labels, folder / "pseudo_labels.parquet")
        if detector:
            parts |= _tables(whole, folder, bank, some, n_per_set, sets, blend)
        manifest = whole.manifest if detector else whole.manifest.model_copy(update={"score": None})
        Bundle(
            manifest,
            whole.noise_predictor,
            whole.schedule,
            whole.clusterer,
            whole.encoder,
            whole.detector if detector else None,
            parts,
        ).save(path)
    return path


def change_table(bundle: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Replaces one Parquet table of a saved bundle; its hash changes.

    Args:
        bundle: Its folder.
        name: As in "scores.parquet".
        change: Gives the new rows.
    """
    whole = Bundle.load(bundle, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        parts = {one: Path(shutil.copy(path, folder)) for one, path in whole.parts.items()}
        schema = pq.read_schema(parts[name])
        new = pa.Table.from_pandas(change(pd.read_parquet(parts[name])), schema, preserve_index=False)
        pq.write_table(new, parts[name])
        with_parts(whole, parts).save(bundle)


def _rows_to_keep(whole: Bundle, n_id: int, n_snapshots: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the banks, the same for images and the outliers made of them, and rows of the snapshots."""
    followed = pq.read_table(whole.parts["snapshots.parquet"])
    some = np.linspace(0, followed.num_rows - 1, n_snapshots).astype(int)
    names = np.array(
        pq.read_table(whole.parts["outliers.parquet"], columns=["id"])["id"].to_pylist(), dtype=str
    )
    made = np.flatnonzero(np.isin(names, np.array(followed["id"].to_pylist(), dtype=str)[some]))
    others = np.setdiff1d(np.arange(n_id + len(made)), made)
    return np.sort(np.concatenate([made, others])[:n_id]), some


def _tables(
    whole: Bundle,
    folder: Path,
    bank: np.ndarray,
    some: np.ndarray,
    n_per_set: int,
    sets: tuple[str, ...],
    blend: float,
) -> dict[str, Path]:
    # 1. banks and outliers
    banks = {key: array[bank] for key, array in load_file(whole.parts["features.safetensors"]).items()}
    save_file(banks, folder / "features.safetensors")
    rows = pq.read_table(whole.parts["features.parquet"])
    role = np.array(rows["role"].to_pylist())
    keep = np.concatenate([np.flatnonzero(role == one)[bank] for one in ("id", "outlier")])
    kept = rows.take(pa.array(keep)).set_column(1, "row", pa.array([*range(len(bank))] * 2, pa.int32()))
    pq.write_table(kept, folder / "features.parquet")
    outliers = pq.read_table(whole.parts["outliers.parquet"])
    pq.write_table(outliers.take(pa.array(bank)), folder / "outliers.parquet")

    # 2. the sets, measured anew
    stored, scores = (
        load_file(whole.parts["ood_features.safetensors"]),
        pq.read_table(whole.parts["scores.parquet"]),
    )
    kept: dict[str, np.ndarray] = {}
    scored = []
    for one in ("test", *sets):
        part = scores.filter(pa.array(np.array(scores["set"].to_pylist()) == one)).slice(0, n_per_set)
        here = {
            key: array[:n_per_set] for key, array in stored.items() if key == one or key.startswith(f"{one}.")
        }
        if one != "test":
            mixed = blend * stored["test"][: len(here[one])] + (1 - blend) * here[one]
            here[one] = mixed.astype(here[one].dtype)
        kept |= here
        scored.append(
            FeatureSet(
                one,
                part["role"][0].as_py(),
                part["id"][0].as_py().split("/")[1],
                here[one].astype(np.float32),
                np.array(part["id"].to_pylist(), dtype=str),
                part["label"].to_numpy(),
                {head: here[f"{one}.{head}"] for head in HEADS},
            )
        )
    save_file(kept, folder / "ood_features.safetensors")
    config = ScoreConfig(**whole.manifest.score.model_dump())  # type: ignore[union-attr]
    ids = np.array(rows["id"].to_pylist(), dtype=str)[role == "id"][bank]
    found = evaluate(
        banks["id_features"].astype(np.float32),
        ids,
        banks["outlier_features"].astype(np.float32),
        scored,
        config,
        20,
        0,
        "cpu",
    )
    pq.write_table(found.scores, folder / "scores.parquet")
    labels = banks["id_labels"]
    report = make_report(
        found.report,
        {},
        bootstrap=20,
        bootstrap_seed=0,
        seeds={"run": 0},
        config_sha256="0" * 64,
        id_accuracy=id_accuracy(kept["test.g_in"], scored[0].labels, scored[0].labels),
        clusters=cluster_report(labels, labels, whole.n_clusters, "scan"),
    )
    (folder / "report.json").write_text(json.dumps(report))

    # 3. what was followed through training
    table = pq.read_table(whole.parts["snapshots.parquet"])
    pq.write_table(table.take(pa.array(some)), folder / "snapshots.parquet")
    epochs = load_file(whole.parts["snapshots.safetensors"])
    save_file({key: array[some] for key, array in epochs.items()}, folder / "snapshots.safetensors")
    names = (
        "features.safetensors", "features.parquet", "outliers.parquet", "ood_features.safetensors",
        "scores.parquet", "report.json", "snapshots.parquet", "snapshots.safetensors",
    )  # fmt: skip
    return {name: folder / name for name in names}
