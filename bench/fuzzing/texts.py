"""Configurations, names of sets, labels, notes, names of clusters, and the files of a run."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import yaml

from sdviz import data
from sdviz.analysis.cluster_names import NamesError, read_names, rename
from sdviz.analysis.notes import NoteBook, NotesError, Seen
from sdviz.config.nodes import ConfigError
from sdviz.config.reading import key_paths, load_config, to_yaml
from sdviz.data import DataError
from sdviz.pipeline.shared.labels import read_label_table
from sdviz.runs import Run, RunError
from sdviz.runs.reading import leaves, metrics, outlier_sample, tail, trainings
from sdviz.text import message_line

from .cases import ROOT, Kind, Wrong, as_text, mutated, same

CONFIGS = tuple(path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml")))
VALUES = ("1", "0.5", "true", "[1, 2]", "scan", "{a: 1}", "null", "shapes", "3e-4", '"x"', "[x, y]")
NAMES = (
    "shapes",
    "shapes:test",
    "shapes-novel",
    "digits",
    "cifar10:train",
    f"folder:{ROOT}/docs/tour",
    "parquet:a.parquet",
)


def _written(text: bytes) -> dict[str, object]:
    """The values of a configuration as PyYAML's own loader reads them, dates as text."""
    tree = yaml.load(text, yaml.BaseLoader)
    return leaves(tree) if isinstance(tree, dict) else {}


def _same_scalar(found: object, written: object, key: str) -> None:
    """Compares a value with its text in YAML."""
    if isinstance(found, list | tuple) and isinstance(written, list):
        same(len(found), len(written), key)
        for i, (one, text) in enumerate(zip(found, written, strict=True)):
            _same_scalar(one, text, f"{key}.{i}")
    elif isinstance(written, str) and isinstance(found, str):
        same(found, written, key)
    elif isinstance(written, str) and isinstance(found, bool):
        same(found, written.lower() in ("true", "yes", "on"), key)
    elif isinstance(written, str) and isinstance(found, int | float):
        text = written.replace("_", "")
        if text.lstrip("+-").isdecimal() and not text.lstrip("+-").startswith("0"):
            same(found, int(text), key)
        else:
            with suppress(ValueError):
                value = float(text)
                if not text.lstrip("+-").startswith("0") or "." in text or "e" in text.lower():
                    same(found, value, key)


def _configuration(rng: random.Random, folder: Path) -> None:
    text = mutated(rng, rng.choice(CONFIGS))
    file = folder / "mine.yaml"
    file.write_bytes(text)
    config = load_config(file)
    tree = leaves(config.model_dump(mode="json"))
    for key, written in _written(text).items():
        if key in tree:
            _same_scalar(tree[key], written, key)
    again = folder / "again.yaml"
    again.write_text(to_yaml(config), "utf-8")
    same(load_config(again), config, "written and read again")


KEYS = tuple(key_paths())
USUAL = leaves(load_config(ROOT / "configs/shapes-tiny.yaml").model_dump(mode="json"))


def _override(rng: random.Random, folder: Path) -> None:
    key = rng.choice(tuple(USUAL) if rng.random() < 0.7 else KEYS)
    usual = json.dumps(USUAL[key]) if key in USUAL and rng.random() < 0.7 else rng.choice(VALUES)
    changed = mutated(rng, usual.encode())
    text = f"{key}={as_text(changed)}"
    if rng.random() < 0.2:
        text = as_text(mutated(rng, text.encode("utf-8", "surrogateescape")))
    config = load_config(ROOT / "configs/shapes-tiny.yaml", [text])
    tree = leaves(config.model_dump(mode="json"))
    key, _, value = text.partition("=")
    if key.strip() in tree:
        _same_scalar(tree[key.strip()], yaml.load(value, yaml.BaseLoader), key)


def _set_name(rng: random.Random, folder: Path) -> None:
    text = rng.choice(NAMES)
    if rng.random() < 0.9:
        text = as_text(mutated(rng, text.encode()))
    name, split = data.parse_source(text)
    n = data.count(name, split)
    if name == "digits":
        same(n, 1_797, text)
    if name == "shapes":
        same(n, 4_000 if split == "test" else 20_000, text)
    found = data.look_up([text, f"{name}/test/00001@abc"], pictures=False)
    same(len(found.found), 2, text)


def _label_table(rng: random.Random, folder: Path) -> None:
    rows = "".join(f"shapes/train/{i:05d},{rng.choice(('cat', 'dog', '7', '', '=1'))}\n" for i in range(12))
    text = mutated(rng, ("id,label\n" + rows).encode())
    file = folder / "labels.csv"
    file.write_bytes(text)
    found = read_label_table(file)
    reader = csv.reader(io.StringIO(text.decode("utf-8-sig"), newline=""))
    header = next(reader)
    at = {one: len(header) - 1 - header[::-1].index(one) for one in ("id", "label")}
    for row in reader:
        if not row:
            continue
        one, label = (row[at[name]] if at[name] < len(row) else None for name in ("id", "label"))
        expected = "" if label is None else label.strip()
        if one is not None and found[one][0].endswith(f" {reader.line_num}"):
            same(found[one][1], expected, one)


def _notes(rng: random.Random, folder: Path) -> None:
    file = folder / "notes.sqlite"
    book = NoteBook(file)
    for i in range(4):
        book.set_text("b", f"digits/test/{i}", f"note {i} é", Seen("digits", "7", i / 3, 0.5, "k"), "ada")
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    file.write_bytes(mutated(rng, file.read_bytes()))
    raw = file.read_bytes()
    found = book.read("b")
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as db:
        rows = db.execute("SELECT id, note, score FROM notes WHERE bundle = 'b'").fetchall()
        same(len(found), len(rows), "notes")
        for one, text, score in rows:
            same((found[one].text, found[one].seen.score), (text, score), one)
    same(file.read_bytes(), raw, "reading changed the file")
    book.why_not()
    book.set_text("b", "new", "new", Seen())
    same(book.read("b")["new"].text, "new", "new")


def _given_names(rng: random.Random, folder: Path) -> None:
    file, usual = folder / "cluster_names.json", ("cluster 0", "cluster 1", "cluster 2")
    rename(file, "b", 1, "mine", usual)
    file.write_bytes(mutated(rng, file.read_bytes()))
    found = read_names(file, "b")
    if found:
        kept = json.loads(file.read_bytes())["b"]
        same(found, {int(key): kept[key] for key in kept if int(key) in found}, "names")
    rename(file, "b", 2, "other", usual)
    same(read_names(file, "b")[2], "other", "renamed")


def _run_folder(rng: random.Random, folder: Path) -> None:
    run = Run(folder / "00001-x")
    run.path.mkdir()
    shutil.copy(ROOT / "configs/shapes-tiny.yaml", run.path / "config.yaml")
    status = {
        "state": rng.choice(("new", "running", "done", "failed")), "config_sha256": "a" * 64,
        "stage": "diffusion", "step": 3, "total": 9, "share": 0.3, "eta_sec": 12.5,
        "stage_sec": {"encoder": 3.0}, "pid": 2**22 + 1, "process_started": 1.5, "host": None, "boot": None,
        "devices": ["cpu"], "submitted": 1.0, "queue_place": None, "waits_for": [], "error": "none",
        "updated": 2.5, "format_version": 2,
    }  # fmt: skip
    line = {"stage": "diffusion", "step": 1, "total": 9, "loss": 0.5, "training": "a"}
    files = {
        "status.json": json.dumps(status),
        "stats.jsonl": "".join(json.dumps(line | {"step": i}) + "\n" for i in range(5)),
        "diffusion.done.json": json.dumps({"config_sha256": "a", "metrics": {"loss": 0.5, "n": 3}}),
        "log.txt": "a line\n" * 3,
    }
    raw = {name: mutated(rng, text.encode()) for name, text in files.items()}
    for name, text in raw.items():
        (run.path / name).write_bytes(text)
    # 1. these never refuse
    seen = run.stats()
    known = [_json_or_none(text) for text in raw["stats.jsonl"].decode("utf-8", "replace").splitlines()]
    for one in seen:
        if one not in known:
            raise Wrong(f"a line that is not there: {str(one)[:80]}")
    trainings(seen)
    tail(run.path / "log.txt")
    outlier_sample(run, 4)
    found = metrics(run, run.config())
    done = _json_or_none(raw["diffusion.done.json"])
    for key, value in found.items():
        same(value, done["metrics"][key], key)
    # 2. the status may
    read = run.status()
    kept = json.loads(raw["status.json"])
    for key in ("step", "total", "share", "pid", "submitted"):
        if key in kept and read.state != "killed":
            same(getattr(read, key), kept[key], key)
    for key in ("stage", "error"):
        if isinstance(kept.get(key), str) and read.state != "killed":
            same(getattr(read, key), message_line(kept[key]), key)


def _json_or_none(text: str | bytes) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


KINDS = {
    "configuration": Kind(_configuration, (ConfigError,)),
    "override": Kind(_override, (ConfigError,)),
    "set name": Kind(_set_name, (DataError,)),
    "labels": Kind(_label_table, (DataError,)),
    "notes": Kind(_notes, (NotesError,)),
    "cluster names": Kind(_given_names, (NamesError,)),
    "run": Kind(_run_folder, (RunError,)),
}
