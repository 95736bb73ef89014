"""Drives the readers of files and texts from others with mutated inputs, and compares what they read.

Run as `python bench/fuzz.py [--cases N] [--seed S] [--kind KIND ...] [--state FILE]`. A case depends only on
seed, kind and index. Each has a limit of processor time. With --state the counts of each part are kept in a
file, and a call after an interruption goes on with the next part.

A case is
    read      accepted, and every value equals that of another reading of the same bytes,
    refused   ended by the reader's own error, in one printable line of at most 300 characters,
    raw       ended by any other error, or by a line that is longer or has control characters,
    wrong     accepted with another value,
    hang      not done within the limit.
The exit code is 1 if a case is raw, wrong or a hang.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sdviz import data
from sdviz.analysis import Evidence, MissingPart
from sdviz.analysis.cluster_names import NamesError, read_names, rename
from sdviz.analysis.notes import NoteBook, NotesError, Seen
from sdviz.bundle import Bundle, BundleError
from sdviz.bundle.manifest import MANIFEST, read_manifest, sha256
from sdviz.config.nodes import ConfigError
from sdviz.config.reading import key_paths, load_config, to_yaml
from sdviz.data import DataError
from sdviz.evaluation import Report, read_report
from sdviz.evaluation.report import ReportError
from sdviz.files import write_atomically
from sdviz.pipeline.shared.labels import read_label_table
from sdviz.runs import Run, RunError
from sdviz.runs.reading import leaves, metrics, outlier_sample, tail, trainings
from sdviz.text import MAX_LINE, message_line

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SEC = 20.0
PART = 200
OUTCOMES = ("read", "refused", "raw", "wrong", "hang")
# pieces that readers have stumbled over
TOKENS = (
    *("[" * 2_000, "{" * 2_000, '{"a":' * 900, "]" * 40, "}" * 40, "9" * 5_000, "1e999", "-1e999", "NaN"),
    *("null", "~", ".inf", "!!int x", "!!bool x", "!!float x", "!!binary x", "!!python/name:os.system", "&a"),
    *("*a", "<<: *a", "0x_", "0b_", "2026-13-45", "12:30:45", "1_000", "\x00", "\x1b[31m", "\u202e", "\ud800"),
    *("\ufeff", "\r\n", "../", "~nosuchuser/", "folder:/..", "parquet:", "npz:" + "x" * 300, "/" * 300, "%00"),
    *('"', "'", "#", ",", ":", "-", "\t", "\n", " ", "é", "\U0001f600", "$(id)", "=1+1"),
    *("18446744073709551616", "-9223372036854775809"),
)


class Wrong(Exception):
    """The reader accepted the input and gave another value."""


class Hang(BaseException):
    """The case took longer than its limit."""


@dataclass(frozen=True)
class Kind:
    """One reader."""

    run: Callable[[random.Random, Path], None]  # one case in an empty folder; raises what the reader raises
    own: tuple[type[Exception], ...]  # the errors that the reader may raise


# --- mutations ------------------------------------------------------------------------------------


def mutated(rng: random.Random, text: bytes) -> bytes:
    """The text after one to six changes: bytes flipped, cut, doubled or moved, or a token put in."""
    raw = bytearray(text)
    for _ in range(rng.randint(1, 6)):
        at, end = sorted(rng.randint(0, len(raw)) for _ in range(2))
        end = min(end, at + rng.choice((1, 4, 40, 4_000)))
        how = rng.randrange(6)
        if how == 0 and at < len(raw):
            raw[at] = rng.randrange(256)
        elif how == 1:
            del raw[at:end]
        elif how == 2:
            raw[at:at] = raw[at:end]
        elif how == 3:
            piece = raw[at:end]
            del raw[at:end]
            place = rng.randint(0, len(raw))
            raw[place:place] = piece
        else:
            raw[at : end if how == 4 else at] = rng.choice(TOKENS).encode("utf-8", "surrogatepass")
    return bytes(raw)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _same(found: object, expected: object, where: object) -> None:
    if found != expected and not (found != found and expected != expected):
        raise Wrong(f"{where}: {str(found)[:80]!r} instead of {str(expected)[:80]!r}")


# --- readers --------------------------------------------------------------------------------------

CONFIGS = tuple(path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml")))
VALUES = ("1", "0.5", "true", "[1, 2]", "scan", "{a: 1}", "null", "shapes", "3e-4", '"x"', "[x, y]")
NAMES = ("shapes", "shapes:test", "shapes-novel", "digits", "cifar10:train", "folder:/tmp", "parquet:a.parquet")


def _written(text: bytes) -> dict[str, object]:
    """The values of a configuration as PyYAML's own loader reads them, dates as text."""
    tree = yaml.load(text, yaml.BaseLoader)
    return leaves(tree) if isinstance(tree, dict) else {}


def _same_scalar(found: object, written: object, key: str) -> None:
    """Compares a value with its text in YAML."""
    if isinstance(found, list | tuple) and isinstance(written, list):
        _same(len(found), len(written), key)
        for i, (one, text) in enumerate(zip(found, written, strict=True)):
            _same_scalar(one, text, f"{key}.{i}")
    elif isinstance(written, str) and isinstance(found, str):
        _same(found, written, key)
    elif isinstance(written, str) and isinstance(found, bool):
        _same(found, written.lower() in ("true", "yes", "on"), key)
    elif isinstance(written, str) and isinstance(found, int | float):
        text = written.replace("_", "")
        if text.lstrip("+-").isdecimal() and not text.lstrip("+-").startswith("0"):
            _same(found, int(text), key)
        else:
            with suppress(ValueError):
                value = float(text)
                if not text.lstrip("+-").startswith("0") or "." in text or "e" in text.lower():
                    _same(found, value, key)


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
    _same(load_config(again), config, "written and read again")


KEYS = tuple(key_paths())


def _override(rng: random.Random, folder: Path) -> None:
    key = rng.choice(KEYS)
    text = f"{key}={rng.choice(VALUES)}"
    if rng.random() < 0.8:
        text = _text(mutated(rng, text.encode()))
    config = load_config(ROOT / "configs/shapes-tiny.yaml", [text])
    tree = leaves(config.model_dump(mode="json"))
    key, _, value = text.partition("=")
    if key.strip() in tree:
        _same_scalar(tree[key.strip()], yaml.load(value, yaml.BaseLoader), key)


def _set_name(rng: random.Random, folder: Path) -> None:
    text = rng.choice(NAMES)
    if rng.random() < 0.9:
        text = _text(mutated(rng, text.encode()))
    name, split = data.parse_source(text)
    n = data.count(name, split)
    if name == "digits":
        _same(n, 1_797, text)
    if name == "shapes":
        _same(n, 4_000 if split == "test" else 20_000, text)
    found = data.look_up([text, f"{name}/test/00001@abc"], pictures=False)
    _same(len(found.found), 2, text)


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
            _same(found[one][1], expected, one)


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
        for one, text, score in db.execute("SELECT id, note, score FROM notes WHERE bundle = 'b'"):
            _same((found[one].text, found[one].seen.score), (text, score), one)
    _same(file.read_bytes(), raw, "reading changed the file")
    book.why_not()
    book.set_text("b", "new", "new", Seen())
    _same(book.read("b")["new"].text, "new", "new")


def _given_names(rng: random.Random, folder: Path) -> None:
    file, usual = folder / "cluster_names.json", ("cluster 0", "cluster 1", "cluster 2")
    rename(file, "b", 1, "mine", usual)
    file.write_bytes(mutated(rng, file.read_bytes()))
    found = read_names(file, "b")
    if found:
        kept = json.loads(file.read_bytes())["b"]
        _same(found, {int(key): kept[key] for key in kept if int(key) in found}, "names")
    rename(file, "b", 2, "other", usual)
    _same(read_names(file, "b")[2], "other", "renamed")


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
        _same(value, done["metrics"][key], key)
    # 2. the status may
    read = run.status()
    kept = json.loads(raw["status.json"])
    for key in ("step", "total", "share", "pid", "submitted"):
        if key in kept and read.state != "killed":
            _same(getattr(read, key), kept[key], key)
    for key in ("stage", "error"):
        if isinstance(kept.get(key), str) and read.state != "killed":
            _same(getattr(read, key), message_line(kept[key]), key)


def _json_or_none(text: str | bytes) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _manifest(rng: random.Random, folder: Path) -> None:
    text = mutated(rng, (ROOT / "checkpoints/shapes" / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(text)
    found, _ = read_manifest(folder)
    kept = json.loads(text)
    for key, value in json.loads(found.model_dump_json()).items():
        if key in kept and not isinstance(value, dict | list):
            _same(value, kept[key], key)


def _report(rng: random.Random, folder: Path) -> None:
    file = folder / "report.json"
    file.write_bytes(mutated(rng, (ROOT / "checkpoints/shapes/report.json").read_bytes()))
    found = read_report(file)
    _same(
        Report.model_validate(json.loads(file.read_bytes(), parse_constant=float)).results,
        found.results,
        "results",
    )


_TABLES = {"scores.parquet": "sets", "pseudo_labels.parquet": "pseudo_labels", "outliers.parquet": "outliers"}


def _bundle_table(rng: random.Random, folder: Path) -> None:
    """A mutated table of a small bundle, with the hash that fits."""
    copy = Path(shutil.copytree(_small_bundle(), folder / "b"))
    name = rng.choice(tuple(_TABLES))
    (copy / name).write_bytes(mutated(rng, (copy / name).read_bytes()))
    tree = json.loads((copy / MANIFEST).read_bytes())
    tree["files"][name] = sha256(copy / name)
    (copy / MANIFEST).write_text(json.dumps(tree))
    bundle = Bundle.load(copy, "cpu", lazy=True)
    evidence = Evidence(bundle)
    found = getattr(evidence, _TABLES[name])
    if name != "scores.parquet":
        table = pq.read_table(copy / name)
        _same(found.ids.tolist(), table["id"].to_pylist(), "id")
        _same(found.labels.tolist(), table["label"].to_pylist(), "label")


_made: dict[str, Path] = {}


def _small_bundle() -> Path:
    """The shipped bundle with 50 rows of three tables and without its networks' weights, made once."""
    if "small" not in _made:
        folder = Path(tempfile.mkdtemp(prefix="sdviz-fuzz-"))
        shipped = ROOT / "checkpoints/shapes"
        tree = json.loads((shipped / MANIFEST).read_bytes())
        for name in _TABLES:
            table = pq.read_table(shipped / name).slice(0, 50)
            pq.write_table(
                table.drop_columns([one for one in table.column_names if one == "png"]), folder / name
            )
        (folder / "scheduler").mkdir()
        (folder / "unet").mkdir()
        for name in ("scheduler/scheduler_config.json", "unet/config.json"):
            shutil.copy(shipped / name, folder / name)
        (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"")
        names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        tree |= {"clusterer": None, "files": {name: sha256(folder / name) for name in names}}
        (folder / MANIFEST).write_text(json.dumps(tree))
        _made["small"] = folder
    return _made["small"]


KINDS = {
    "configuration": Kind(_configuration, (ConfigError,)),
    "override": Kind(_override, (ConfigError,)),
    "set name": Kind(_set_name, (DataError,)),
    "labels": Kind(_label_table, (DataError,)),
    "notes": Kind(_notes, (NotesError,)),
    "cluster names": Kind(_given_names, (NamesError,)),
    "run": Kind(_run_folder, (RunError,)),
    "manifest": Kind(_manifest, (BundleError,)),
    "report": Kind(_report, (ReportError,)),
    "bundle table": Kind(_bundle_table, (MissingPart, BundleError)),
}


# --- the campaign ---------------------------------------------------------------------------------


@contextmanager
def limited(sec: float) -> Iterator[None]:
    """Raises Hang in the block after so many seconds of processor time."""

    def stop(signal_number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, sec)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def run_case(kind: str, seed: int, index: int, folder: Path) -> tuple[str, str]:
    """Runs one case in an empty folder; gives its outcome and one line about it."""
    rng = random.Random(f"{seed} {kind} {index}")
    try:
        with limited(LIMIT_SEC):
            KINDS[kind].run(rng, folder)
    except Hang:
        return "hang", f"more than {LIMIT_SEC:g} s"
    except Wrong as error:
        return "wrong", str(error)
    except KINDS[kind].own as error:
        text = str(error)
        if len(text) <= MAX_LINE and text.isprintable():
            return "refused", text
        return "raw", f"{len(text)} characters: {text[:100]!r}"
    except Exception as error:
        return "raw", f"{type(error).__name__}: {str(error)[:200]!r}"
    return "read", ""


def campaign(
    n_cases: int, seed: int, kinds: list[str], state: Path | None, say: Callable[[str], None]
) -> dict[str, Counter[str]]:
    """Runs the cases in parts, spread evenly over the kinds; gives the counts by kind and outcome."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    done: dict[str, Any] = {}
    if state is not None and state.is_file():
        done = json.loads(state.read_text("utf-8"))
    for first in range(0, n_cases, PART):
        part = f"{seed} {first} {min(first + PART, n_cases)} {' '.join(kinds)}"
        if part not in done:
            found = {kind: Counter[str]() for kind in kinds}
            for i in range(first, min(first + PART, n_cases)):
                kind = kinds[i % len(kinds)]
                with tempfile.TemporaryDirectory() as name:
                    outcome, line = run_case(kind, seed, i, Path(name))
                found[kind][outcome] += 1
                if outcome not in ("read", "refused"):
                    say(f"{kind}, case {i}, seed {seed}: {outcome}: {line}")
            done[part] = found
            if state is not None:
                write_atomically(state, json.dumps(done))
        for kind, outcomes in done[part].items():
            counts[kind].update(outcomes)
    return counts


def table_of(counts: dict[str, Counter[str]]) -> str:
    """The counts as Markdown."""
    rows = [*counts.items(), ("all", sum(counts.values(), Counter()))]
    lines = [f"| reader | cases | {' | '.join(OUTCOMES)} |", "|---|" + "--:|" * (len(OUTCOMES) + 1)]
    for kind, found in rows:
        numbers = [sum(found.values()), *(found[one] for one in OUTCOMES)]
        lines.append(f"| {kind} | {' | '.join(f'{n:,}' for n in numbers)} |")
    return "\n".join(lines)


def main() -> int:
    """Runs the campaign that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--state", type=Path, help="keeps the counts of finished parts, to go on from")
    asked = parser.parse_args()
    started = time.perf_counter()
    counts = campaign(asked.cases, asked.seed, asked.kind or list(KINDS), asked.state, print)
    for folder in _made.values():
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{table_of(counts)}\n\n{time.perf_counter() - started:,.0f} s, seed {asked.seed}")
    total = sum(counts.values(), Counter[str]())
    return int(any(total[one] for one in ("raw", "wrong", "hang")))


if __name__ == "__main__":
    sys.exit(main())
