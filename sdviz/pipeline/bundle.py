"""Stage `bundle`: packs the run's networks and tables into one folder, a `sdviz.bundle.Bundle`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from .. import data
from ..bundle import Bundle, Defaults, make_manifest
from ..bundle.generated import FEATURES, TABLE, encode_pngs
from ..bundle.manifest import ScoreDefaults
from ..config.tree import RunConfig
from ..data import DataError
from ..data.sources.named_parquet import files_under
from ..data.sources.parquet import same_images_table
from ..table_files import write_parquet
from .backbone import load_backbone
from .clusterer import load_clusterer
from .detector import load_detector
from .diffusion import load_noise_predictor, phase_statistics
from .outliers import read_outliers
from .shared.labels import GIVEN, labels_path, read_cluster_names, read_labels
from .workspace import Metrics, Settings, Stage, Workspace

SOURCES = {
    "ground_truth": "ground truth",
    "scan": "SCAN",
    "kmeans": "k-means",
    "turtle": "TURTLE",
    "temi": "TEMI",
    "file": "a file",
}


def depends_on(config: RunConfig) -> Settings:
    """The whole configuration except the device."""
    return config.model_dump(mode="json", exclude={"device"})


def make(work: Workspace) -> Metrics:
    """Writes the bundle."""
    config, names = work.config, display_names(work)
    predictor = load_noise_predictor(work)
    manifest = make_manifest(
        dataset=work.images.name,
        n_clusters=len(names),
        class_names=names,
        labels_from=SOURCES[config.labels.source],
        image_size=config.data.size_px,
        pixel_unshuffle=predictor.pixel_unshuffle,
        phases=phase_statistics(work, predictor.pixel_unshuffle),
        max_train_timestep=config.max_train_timestep,
        defaults=Defaults(**config.defaults.model_dump()),
        score=ScoreDefaults(**config.evaluation.score.model_dump()) if config.detector else None,
        config=config.model_dump(mode="json"),
        metrics=work.metrics,
    )
    parts = {"pseudo_labels.parquet": labels_path(work)} | _original_order(work)
    if config.detector is not None:
        parts |= _parts_of_a_detector(work)
    if config.bundle.generated.n_images:
        written = (work.folder / "generated" / name for name in (TABLE, FEATURES))
        parts |= {one.name: one for one in written if one.is_file()}
    clusterer = load_clusterer(work)
    encoder = load_backbone(work) if config.encoder is not None else None
    detector = load_detector(work) if config.detector is not None else None
    if config.bundle.weights == "float16":
        for network in (clusterer, encoder, detector):
            if network is not None:
                _halve(network)
    bundle = Bundle(manifest, predictor, work.schedule, clusterer, encoder, detector, parts)
    return {"bundle_sha256": bundle.save(work.folder / "bundle").hash}


def _halve(network: nn.Module) -> None:
    """Rounds weights to float16, in place; norms and biases stay in float32."""
    with torch.no_grad():
        for tensor in network.parameters():
            if tensor.ndim > 1:
                tensor.copy_(tensor.half())


def display_names(work: Workspace) -> tuple[str, ...]:
    """Names the clusters for people, by the known classes of their images.

    A cluster with at least 90 % of its images in one class gets the name of that class. Any other gets its
    number and its most frequent class: "mostly" if that has more than half, else "often", followed by the
    second class if that is at least 80 % as large as the first.
    """
    names, images = read_cluster_names(work), work.images
    labels = read_labels(work)
    known = images.labels >= 0
    if work.config.labels.source in GIVEN or not known.any():
        return names
    shown = []
    for cluster, name in enumerate(names):
        counts = np.bincount(images.labels[known & (labels == cluster)], minlength=len(images.class_names))
        first, second = np.argsort(-counts, kind="stable")[:2] if len(counts) > 1 else (0, 0)
        top, share = images.class_names[int(first)], counts[first] / max(1, counts.sum())
        if not counts.any():
            shown.append(name)
        elif share >= 0.9:
            shown.append(top)
        elif share > 0.5:
            shown.append(f"{name}, mostly {top}")
        else:
            is_close = second != first and 5 * counts[second] >= 4 * counts[first]
            shown.append(f"{name}, often {top}" + f" and {images.class_names[int(second)]}" * bool(is_close))
    # clusters with the same name get their numbers, too
    return tuple(
        one if shown.count(one) == 1 else f"{name}, {one}" for one, name in zip(shown, names, strict=True)
    )


def _parts_of_a_detector(work: Workspace) -> dict[str, Path]:
    """The tables and features of a run with a detector, by their names in the bundle."""
    features, out = work.folder / "features", work.stage_folder("packed")
    _write_feature_rows(work, out / "features.parquet")
    _write_outliers_with_pictures(work, out / "outliers.parquet")
    parts = {
        "features.safetensors": features / "features.safetensors",
        "features.parquet": out / "features.parquet",
        "ood_features.safetensors": features / "ood_features.safetensors",
        "outliers.parquet": out / "outliers.parquet",
        "scores.parquet": work.folder / "evaluation" / "scores.parquet",
        "report.json": work.folder / "evaluation" / "report.json",
    }
    if (work.folder / "evaluation" / "baselines.parquet").is_file():
        parts["baselines.parquet"] = work.folder / "evaluation" / "baselines.parquet"
    for name in ("snapshots.safetensors", "snapshots.parquet"):
        if (features / name).is_file():
            parts[name] = features / name
    return parts


def _original_order(work: Workspace) -> dict[str, Path]:
    """same_images.parquet, for a Parquet file that has torchvision's images in another order."""
    name, tables = work.images.name, []
    if name not in data.DOWNLOADS:
        return {}
    files = files_under(data.data_root()).get(name, {})
    for images in (work.images, work.test):
        file = files.get(images.split) if images is not None else None
        if file is None or images is None or any("/tv-" in one for one in images.ids[:1].tolist()):
            continue
        try:
            tables.append(same_images_table(file, name, images.split))
        except DataError:  # its paths do not tell the order
            continue
    if not tables:
        return {}
    path = work.stage_folder("packed") / "same_images.parquet"
    write_parquet(pa.concat_tables(tables), path)
    return {"same_images.parquet": path}


def _write_feature_rows(work: Workspace, path: Path) -> None:
    """Writes features.parquet: the image of each row in features.safetensors."""
    outliers = pq.read_table(work.folder / "outliers" / "outliers.parquet", columns=["id"])["id"].to_pylist()
    n, m = len(work.sources), len(outliers)
    table = pa.table(
        {
            "role": ["id"] * n + ["outlier"] * m,
            "row": pa.array([*range(n), *range(m)], pa.int32()),
            "id": [*work.sources.ids.tolist(), *outliers],
        }
    )
    write_parquet(table, path)


def _write_outliers_with_pictures(work: Workspace, path: Path) -> None:
    """Writes outliers.parquet, with PNG bytes of the first `bundle.outlier_pictures`; pages remake the rest."""
    table = pq.read_table(work.folder / "outliers" / "outliers.parquet")
    pictures = read_outliers(work, "wrong")
    kept = work.config.bundle.outlier_pictures
    n_kept = len(pictures) if kept is None else min(kept, len(pictures))
    blobs = pa.concat_arrays([encode_pngs(pictures[:n_kept]), pa.nulls(len(pictures) - n_kept, pa.binary())])
    write_parquet(table.append_column("png", blobs), path)


STAGE = Stage(make, depends_on, title="Bundle")
