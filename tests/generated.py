"""Generated images for a bundle of tests: drawn images take their place, to see how pages show them."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.bundle.generated import FEATURES, GENERATED, GENERATED_OUTLIERS, TABLE, encode_pngs
from sdviz.nn.detector import detector_outputs
from tests.cut_bundle import HEADS


def carry_generated(folder: Path, n: int = 30, dataset: str = "cifar10") -> pd.DataFrame:
    """Gives a saved bundle n generated images, and makes it one of a set that is not here; returns its table.

    The ids of its own set, in every table, become those of the other set.
    """
    bundle = Bundle.load(folder, "cpu")
    images = data.load("shapes", "test", limit=n).images
    told = np.arange(n) % bundle.n_clusters
    ids = np.array([f"generated/toy/{c:03d}-{i:04d}" for i, c in enumerate(told.tolist())])
    clusters, confidence = bundle.pseudo_label(images) if bundle.has_clusterer else (told, np.ones(n))
    batch = bundle.generate(images, clusters, ids=ids, num_inference_steps=2)
    halves, stored = [], {}
    for name, role, pictures, own_ids, targets in (
        (GENERATED, GENERATED, images, ids, np.full(n, -1)),
        (GENERATED_OUTLIERS, "sd", batch.outliers, np.char.add(ids, "~0"), batch.target_labels),
    ):
        columns = {
            "set": [name] * n,
            "role": [role] * n,
            "id": own_ids.tolist(),
            "told": told,
            "cluster": clusters,
            "confidence": np.asarray(confidence, np.float32),
            "target_label": targets,
            "png": encode_pngs(pictures),
        }
        if bundle.detector is not None:
            said = detector_outputs(bundle.detector, pictures, "cpu")
            stored |= {name: said.features} | {f"{name}.{head}": getattr(said, head) for head in HEADS}
            found = bundle.scorer.score(said.features)
            columns |= {"distance": found.distance, "votes": found.votes, "total": found.total}
        halves.append(pa.table(columns))
    with tempfile.TemporaryDirectory() as kept:
        parts = {name: Path(kept) / name for name in bundle.parts}
        for name, path in bundle.parts.items():
            parts[name].write_bytes(path.read_bytes())
            if path.suffix == ".parquet":
                pq.write_table(_renamed(pq.read_table(path), bundle.manifest.dataset, dataset), parts[name])
        parts[TABLE] = Path(kept) / TABLE
        pq.write_table(pa.concat_tables(halves), parts[TABLE])
        if stored:
            parts[FEATURES] = Path(kept) / FEATURES
            save_file({key: np.ascontiguousarray(one) for key, one in stored.items()}, parts[FEATURES])
        networks = (bundle.noise_predictor, bundle.schedule, bundle.clusterer, bundle.encoder, bundle.detector)
        manifest = bundle.manifest.model_copy(update={"dataset": dataset})
        Bundle(manifest, *networks, parts).save(folder)
    return pd.concat([one.to_pandas() for one in halves], ignore_index=True)


def _renamed(table: pa.Table, old: str, new: str) -> pa.Table:
    for key in {"id", "source_id"} & set(table.column_names):
        ids = [re.sub(f"^{old}/", f"{new}/", one) for one in table[key].to_pylist()]
        table = table.set_column(table.column_names.index(key), key, pa.array(ids))
    return table
