"""Tables from others: scores and features to import, and the manifest.csv of outliers."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sdviz.analysis import Evidence
from sdviz.analysis.imports import ImportFile, ImportProblem, add_import, read_features, read_import
from sdviz.analysis.imports.reading import Given, read_given
from sdviz.bundle import Bundle
from sdviz.outliers import manifest_csv, read_manifest
from sdviz.table_files import TableError, as_written, csv_text

from .bundles import small_bundle
from .cases import Kind, Wrong, made_once, mutated, same

_IDS = ("a", "=b", "c d", "é", "5", "f")


def _given(rng: random.Random, folder: Path) -> None:
    n, with_features = rng.randint(1, 6), rng.random() < 0.5
    draw = np.random.default_rng(rng.getrandbits(32))
    scores, sets = draw.normal(size=n), [rng.choice(("test", "digits", "+1")) for _ in range(n)]
    features = draw.normal(size=(n, 3)).astype(np.float32)
    columns = {"id": list(_IDS[:n]), "set": sets, "score": scores.tolist()}
    if with_features:
        columns["feature"] = [row.tolist() for row in features]
    file = folder / f"given{rng.choice(('.csv', '.parquet', '.npz'))}"
    if file.suffix == ".csv":
        plain = csv_text(list(columns), zip(*columns.values(), strict=True), {"by": "a, b"})
        file.write_bytes(mutated(rng, plain.encode()))
    elif file.suffix == ".parquet":
        table = pa.table(columns | ({"score": [*scores[:-1], None]} if rng.random() < 0.1 else {}))
        pq.write_table(table, file)
        file.write_bytes(mutated(rng, file.read_bytes()))
    else:
        np.savez(file, **{key: np.array(one) for key, one in columns.items()})
        file.write_bytes(mutated(rng, file.read_bytes()))
    found = read_given(file)
    _same_rows(found, _by_pandas(file))


def _by_pandas(file: Path) -> pd.DataFrame | None:
    """The rows by another reading; None where a comment or a quote of the CSV was changed."""
    if file.suffix == ".parquet":
        return pq.read_table(file).to_pandas()
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            known = [one for one in ("id", "set", "score", "feature") if one in arrays.files]
            return pd.DataFrame({one: list(arrays[one]) for one in known})
    text = file.read_bytes().decode("utf-8-sig")
    lines = text.split("\n")
    if not lines[0].startswith("# by: ") or not lines[1].startswith('"id","set","score"'):
        return None
    rows = [row for row in csv.reader(io.StringIO("\n".join(lines[1:]), newline="")) if row]
    table = pd.DataFrame(rows[1:], columns=rows[0]).map(as_written)
    table["score"] = [float(one) if one else np.nan for one in table["score"]]
    if "feature" in table:
        table["feature"] = table["feature"].map(json.loads)
    return table


def _same_rows(found: Given, table: pd.DataFrame | None) -> None:
    if table is None:
        return
    same(found.ids.tolist(), [str(one) for one in table["id"]], "id")
    same(found.sets.tolist(), [str(one) for one in table["set"]], "set")
    if found.scores is not None and not np.array_equal(
        found.scores, table["score"].to_numpy(np.float64), equal_nan=True
    ):
        raise Wrong("score")
    if found.features is not None and not np.array_equal(
        found.features, np.array(table["feature"].tolist(), np.float32)
    ):
        raise Wrong("feature")


def _kept_import(rng: random.Random, folder: Path) -> None:
    """The file of an import of the small bundle, changed, and read as pages do."""
    made = next(made_once("import", _make_import).rglob("*.parquet"))
    path = folder / "mine.parquet"
    path.write_bytes(mutated(rng, made.read_bytes()))
    file = ImportFile(path, 0)
    found, features = read_import(file), read_features(file)
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"sdviz import"])
    same((found.source, found.sets), (about["source"], about["sets"]), "metadata")
    rows = table.to_pylist()
    for name, scores in found.scores.items():
        same(scores.tolist(), [row["score"] for row in rows if row["set"] == name], "score")
    for name, (ids, values) in features.items():
        own = [row for row in rows if row["set"] == name]
        same(ids.tolist(), [row["id"] for row in own], "id")
        same(values.tolist(), [row["feature"] for row in own], "feature")


def _make_import(folder: Path) -> None:
    evidence = Evidence(Bundle.load(small_bundle(), "cpu", lazy=True))
    scored = evidence.sets
    table = pa.table(
        {
            "id": np.concatenate([one.ids for one in scored.values()]).tolist(),
            "set": [name for name, one in scored.items() for _ in one.ids],
            "score": np.concatenate([one.total for one in scored.values()]),
        }
    )
    values = [[float(row), 1.0] for row in range(len(table))]
    given = folder / "given.parquet"
    pq.write_table(table.append_column("feature", pa.array(values, pa.list_(pa.float32()))), given)
    before = os.environ.get("SDVIZ_RUNS")
    os.environ["SDVIZ_RUNS"] = str(folder)
    try:
        add_import(evidence, given, "mine")
    finally:
        os.environ.pop("SDVIZ_RUNS") if before is None else os.environ.update(SDVIZ_RUNS=before)
    given.unlink()


def _outlier_manifest(rng: random.Random, folder: Path) -> None:
    rows = [
        {
            "source_id": rng.choice(_IDS), "label": i, "label_name": rng.choice(_IDS), "target_label": 7 - i,
            "target_name": "x", "S": rng.randint(0, 900), "sigma": rng.random(), "w": rng.uniform(-1, 20),
            "guidance_sigma_lo": rng.choice((None, 0.25)), "guidance_sigma_hi": 3.5, "solver": "ddim",
            "steps": 4, "eta": 0.0, "seed": 2**62, "bundle_sha256": "a" * 64, "file": f"{i}.png",
        }
        for i in range(rng.randint(1, 4))
    ]  # fmt: skip
    file = folder / "manifest.csv"
    file.write_bytes(mutated(rng, manifest_csv(rows).encode()))
    found = read_manifest(file)
    stored = list(csv.reader(io.StringIO(file.read_bytes().decode("utf-8-sig"), newline="")))
    lines = [row for row in stored[1:] if row]
    if stored[0] != list(rows[0]):
        return
    same(len(found), len(lines), "rows")
    for row, line in zip(found, lines, strict=True):
        for key, text in zip(stored[0], line, strict=True):
            value = row[key]
            if isinstance(value, str):
                same(value, as_written(text), key)
            else:
                same(
                    value,
                    float(text) if text and isinstance(value, float) else int(text) if text else None,
                    key,
                )


KINDS = {
    "import": Kind(_given, (ImportProblem,)),
    "kept import": Kind(_kept_import, (ImportProblem,)),
    "manifest of outliers": Kind(_outlier_manifest, (TableError,)),
}
