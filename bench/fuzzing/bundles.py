"""Bundles: their manifest, threshold, report, tables, pictures and weights."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from sdviz.analysis import Evidence, MissingPart
from sdviz.analysis.methods import methods_of
from sdviz.analysis.same_images import _places
from sdviz.bundle import Bundle, BundleError
from sdviz.bundle.generated import encode_pngs, generated_images
from sdviz.bundle.manifest import MANIFEST, read_manifest, sha256
from sdviz.bundle.threshold import reference_of
from sdviz.data import DataError
from sdviz.evaluation.report import ReportError, parse_report, read_report
from sdviz.nn.weights import EncoderError, load_file_weights

from .cases import ROOT, Kind, lightly, made_once, mutated, same
from .pictures import altered

SHIPPED = ROOT / "checkpoints/shapes"
N = 24  # rows of each table


def _manifest(rng: random.Random, folder: Path) -> None:
    text = mutated(rng, (SHIPPED / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(text)
    found, _ = read_manifest(folder)
    kept = json.loads(text)
    for key, value in json.loads(found.model_dump_json()).items():
        if key in kept and not isinstance(value, dict | list):
            same(value, kept[key], key)
    same(list(found.class_names), kept["class_names"], "class_names")
    same(found.defaults.model_dump(), kept["defaults"], "defaults")


def _threshold(rng: random.Random, folder: Path) -> None:
    copy = _copy(folder)
    tree = json.loads((copy / MANIFEST).read_bytes())
    given = rng.choice(("0.75", "95", "100", "0", "0.001", "12.5e0", "1"))
    keys = rng.choice((("value", "id_recall"), ("id_recall", "value")))
    text = json.dumps(tree | {"threshold": None})
    text = text.replace('"threshold": null', f'"threshold": {{"{keys[0]}": {given}, "{keys[1]}": null}}')
    at = text.rindex('"threshold"')
    change = rng.choice((mutated, lightly))
    (copy / MANIFEST).write_bytes(text[:at].encode() + change(rng, text[at:].encode()))
    bundle = Bundle.load(copy, "cpu", lazy=True)
    kept = json.loads((copy / MANIFEST).read_bytes()).get("threshold")
    scores = np.random.default_rng(rng.getrandbits(32)).normal(size=40)
    found = reference_of(bundle, scores).threshold
    if kept is not None and kept["value"] is not None:
        same(found, kept["value"], "threshold")
    else:
        recall = 95 if kept is None else kept["id_recall"]
        same((scores <= found).sum() >= round(recall * 100) * len(scores) / 10_000, True, "recall")
        same(found in scores, True, "one of the scores")


def _report(rng: random.Random, folder: Path) -> None:
    file = folder / "report.json"
    file.write_bytes(mutated(rng, (SHIPPED / "report.json").read_bytes()))
    found = json.loads(read_report(file).model_dump_json())
    _same_tree(found, json.loads(file.read_bytes()), "")


def _same_tree(found: object, kept: object, where: str) -> None:
    """Compares what was read with what stands there; what the file leaves out has its default."""
    if isinstance(kept, dict) and isinstance(found, dict):
        for key, value in kept.items():
            _same_tree(found[key], value, f"{where}.{key}")
    elif isinstance(kept, list) and isinstance(found, list):
        same(len(found), len(kept), where)
        for i, (one, value) in enumerate(zip(found, kept, strict=True)):
            _same_tree(one, value, f"{where}.{i}")
    else:
        same(found, kept, where)


# --- tables ---------------------------------------------------------------------------------------


def _copy(folder: Path) -> Path:
    return Path(shutil.copytree(small_bundle(), folder / "b"))


def _with_file(copy: Path, name: str, content: bytes) -> Bundle:
    """The bundle with another file, and the hash that fits."""
    (copy / name).write_bytes(content)
    tree = json.loads((copy / MANIFEST).read_bytes())
    tree["files"][name] = sha256(copy / name)
    (copy / MANIFEST).write_text(json.dumps(tree))
    return Bundle.load(copy, "cpu", lazy=True)


_TABLES = (
    "scores",
    "pseudo_labels",
    "outliers",
    "features",
    "snapshots",
    "generated",
    "same_images",
    "baselines",
)


def _bundle_table(rng: random.Random, folder: Path) -> None:
    copy, name = _copy(folder), rng.choice(_TABLES)
    file = copy / f"{name}.parquet"
    evidence = Evidence(_with_file(copy, file.name, _changed_table(rng, file)))
    if name == "generated":
        _compare_generated(evidence, file)
        return
    found = _columns(evidence, name, file)
    table = pq.read_table(file)
    for key, values in found.items():
        expected = table[key].to_pylist()
        same(len(values), len(expected), f"{name}: {key}")
        for value, kept in zip(values, expected, strict=True):
            # float64 of Parquet may be kept as float32
            is_close = isinstance(value, float) and isinstance(kept, float) and np.isclose(value, kept, 1e-6)
            same(value, value if is_close else kept, f"{name}: {key}")


def _changed_table(rng: random.Random, file: Path) -> bytes:
    """The bytes of a table, changed, or with a column of another kind, with gaps, or of other values."""
    if rng.random() < 0.5:
        return mutated(rng, file.read_bytes())
    table = pq.read_table(file)
    for _ in range(rng.randint(0, 2)):
        at = rng.randrange(table.num_columns)
        column, how = table.column(at), rng.randrange(6)
        values: list[Any] = column.to_pylist()
        if how == 0:
            values = [None, *values[1:]]
        elif how == 1:
            values = [rng.choice(("é", "=1", "\ud800".encode("utf-8", "replace").decode(), "")) for _ in values]
        elif how == 2:
            values = [rng.choice((float("nan"), float("inf"), 1e300, -1.0, 0.5)) for _ in values]
        elif how == 3:
            values = [rng.choice((-1, 2**62, 0, 7)) for _ in values]
        elif how == 4:
            rng.shuffle(values)
        else:
            table = table.remove_column(at) if table.num_columns > 1 else table
            continue
        kind = column.type if how in (0, 4) else None
        table = table.set_column(at, table.column_names[at], pa.array(values, kind))
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def _columns(evidence: Evidence, name: str, file: Path) -> dict[str, list[Any]]:
    """What the reader of a table gives, in the order of the file."""
    if name == "scores":
        sets = evidence.sets
        return {
            key: _in_file_order(file, {one: getattr(some, of) for one, some in sets.items()})
            for key, of in (("id", "ids"), ("distance", "distance"), ("votes", "votes"), ("total", "total"))
        }
    if name == "pseudo_labels":
        some = evidence.pseudo_labels
        return {"id": some.ids.tolist(), "label": some.labels.tolist(), "confidence": some.confidence.tolist()}
    if name == "outliers":
        rows = evidence.outliers
        recipes = [rows.recipe(row) for row in range(len(rows.ids))]
        return {
            "id": rows.ids.tolist(),
            "source_id": rows.source_ids.tolist(),
            "label": rows.labels.tolist(),
            "start_timestep": [one.start_timestep for one in recipes],
            "seed": [one.seed for one in recipes],
        }
    if name == "features":
        banks = evidence.banks
        return {"id": _in_file_order(file, {"id": banks.id_ids, "outlier": banks.outlier_ids}, "role")}
    if name == "snapshots":
        _, roles, ids = evidence.snapshots
        return {"role": roles.tolist(), "id": ids.tolist()}
    if name == "same_images":
        places = _places(str(file), str(file))
        return {
            "id": list(places),
            "label": [a for a, _ in places.values()],
            "nth": [b for _, b in places.values()],
        }
    (method,) = methods_of(evidence)
    return {"other": _in_file_order(file, method.scores)}


def _in_file_order(file: Path, columns: Mapping[str, np.ndarray], by: str = "set") -> list[Any]:
    """The values of each set, in the order in which the rows of all sets stand in the file."""
    waiting = {name: iter(values.tolist()) for name, values in columns.items()}
    return [next(waiting[name]) for name in pq.read_table(file)[by].to_pylist()]


def _compare_generated(evidence: Evidence, file: Path) -> None:
    images = generated_images(evidence.bundle)
    rows = pq.read_table(file).to_pylist()
    own = [row for row in rows if row["set"] == "generated"]
    same(images.ids.tolist(), [row["id"] for row in own], "id")
    same(images.labels.tolist(), [row["told"] for row in own], "told")
    for row, pixels in zip(own, images.images, strict=True):
        with Image.open(io.BytesIO(row["png"])) as picture:
            same(pixels.tobytes(), np.asarray(picture.convert("RGB")).tobytes(), row["id"])
    same(evidence.generated_labels.labels.tolist(), [row["cluster"] for row in own], "cluster")
    both = evidence.shown_sets
    totals = {name: one.total.tolist() for name, one in both.items() if name.startswith("generated")}
    for name, values in totals.items():
        same(values, [row["total"] for row in rows if row["set"] == name], "total")


def _bundle_picture(rng: random.Random, folder: Path) -> None:
    """A PNG in the cells of generated.parquet or outliers.parquet, changed."""
    copy = _copy(folder)
    file = copy / "generated.parquet"
    table = pq.read_table(file)
    blobs = table["png"].to_pylist()
    for row in rng.sample(range(len(blobs)), 3):
        blobs[row] = rng.choice((altered(rng, blobs[row]), b"", None)) if rng.random() < 0.7 else blobs[row]
    stream = io.BytesIO()
    at = table.column_names.index("png")
    pq.write_table(table.set_column(at, "png", pa.array(blobs, pa.binary())), stream)
    evidence = Evidence(_with_file(copy, file.name, stream.getvalue()))
    _compare_generated(evidence, file)


def small_bundle() -> Path:
    """The shipped bundle with a few rows of each table, and without its networks' weights."""
    return made_once("bundle", _make_small)


def _make_small(folder: Path) -> None:
    tree = json.loads((SHIPPED / MANIFEST).read_bytes())
    scores = pq.read_table(SHIPPED / "scores.parquet")
    sets = np.array(scores["set"].to_pylist())
    rows = np.concatenate([np.flatnonzero(sets == one)[:N] for one in dict.fromkeys(sets.tolist())])
    scores = scores.take(rows)
    features = load_file(SHIPPED / "features.safetensors")
    names = pq.read_table(SHIPPED / "features.parquet")
    bank = np.concatenate([np.arange(N), len(features["id_labels"]) + np.arange(N)])
    outliers = pq.read_table(SHIPPED / "outliers.parquet").slice(0, N).drop_columns(["png"])
    images = np.random.default_rng(0).integers(0, 256, (2 * N, 32, 32, 3), np.uint8)
    halves = ["generated"] * N + ["generated-outliers"] * N
    generated = {
        "set": halves,
        "role": ["generated"] * N + ["sd"] * N,
        "id": [f"generated/{i}" for i in range(2 * N)],
        **{key: pa.array([i % 8 for i in range(2 * N)]) for key in ("told", "cluster")},
        "target_label": [-1] * N + [i % 8 for i in range(N)],
        "confidence": pa.array([0.5] * 2 * N, pa.float32()),
        "png": encode_pngs(images),
        **{key: scores[key].slice(0, 2 * N) for key in ("distance", "votes", "total")},
    }
    report = json.loads((SHIPPED / "report.json").read_bytes())
    report["baselines"] = {"other": {"title": "Other", "settings": {}, "results": {}, "means": {}}}
    report["bootstrap"]["n"] = 2
    parse_report(json.dumps(report), "the small bundle")
    tables = {
        "scores": scores,
        "pseudo_labels": pq.read_table(SHIPPED / "pseudo_labels.parquet").slice(0, N),
        "outliers": outliers,
        "features": names.take(bank),
        "snapshots": pq.read_table(SHIPPED / "snapshots.parquet").slice(0, N),
        "generated": pa.table(generated),
        "same_images": pa.table({"id": [f"x/train/{i}" for i in range(N)], "label": [i % 3 for i in range(N)],
                                 "nth": list(range(N))}),
        "baselines": pa.table({"set": scores["set"], "id": scores["id"], "other": scores["total"]}),
    }  # fmt: skip
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    save_file({key: one[:N] for key, one in features.items()}, folder / "features.safetensors")
    stack = load_file(SHIPPED / "snapshots.safetensors")
    save_file({key: one[:N] for key, one in stack.items()}, folder / "snapshots.safetensors")
    (folder / "report.json").write_text(json.dumps(report))
    for name in ("scheduler/scheduler_config.json", "unet/config.json"):
        (folder / name).parent.mkdir()
        shutil.copy(SHIPPED / name, folder / name)
    (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"")
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    tree |= {"clusterer": None, "encoder": None, "files": {name: sha256(folder / name) for name in files}}
    (folder / MANIFEST).write_text(json.dumps(tree))


# --- weights --------------------------------------------------------------------------------------


def _weights(rng: random.Random, folder: Path) -> None:
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2))
    draw = np.random.default_rng(rng.getrandbits(32))
    own = {key: one.numpy() for key, one in body.state_dict().items()}
    arrays = {key: np.asarray(draw.normal(size=one.shape), one.dtype) for key, one in own.items()}
    file = folder / f"a{rng.choice(('.safetensors', '.safetensors', '.pth'))}"
    if file.suffix == ".pth":
        torch.save({key: torch.from_numpy(one) for key, one in arrays.items()}, file)
    else:
        save_file(arrays, file)
    file.write_bytes(mutated(rng, file.read_bytes()))
    load_file_weights(body, file)
    if file.suffix == ".pth":
        expected = {key: one.numpy() for key, one in torch.load(file, "cpu", weights_only=True).items()}
    else:
        expected = _tensors(file.read_bytes())
    for key, found in body.state_dict().items():
        if key in expected:
            same(found.numpy().tobytes(), expected[key].astype(found.numpy().dtype).tobytes(), key)


def _tensors(raw: bytes) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file by its documented layout."""
    (size,) = struct.unpack("<Q", raw[:8])
    kinds = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
    found = {}
    for key, one in json.loads(raw[8 : 8 + size]).items():
        if key != "__metadata__" and one["dtype"] in kinds:
            first, last = one["data_offsets"]
            content = raw[8 + size + first : 8 + size + last]
            found[key] = np.frombuffer(content, kinds[one["dtype"]]).reshape(one["shape"])
    return found


KINDS = {
    "manifest": Kind(_manifest, (BundleError,)),
    "threshold": Kind(_threshold, (BundleError,)),
    "report": Kind(_report, (ReportError,)),
    "bundle table": Kind(_bundle_table, (MissingPart, BundleError, DataError)),
    "bundle picture": Kind(_bundle_picture, (MissingPart, BundleError, DataError)),
    "weights": Kind(_weights, (EncoderError,)),
}
