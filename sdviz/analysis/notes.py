"""Verdicts and notes of users on images, kept in an SQLite file in the runs' folder."""

import math
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from ..table_files import csv_text
from ..text import LineError, message_line

FILE = "notes.sqlite"
VERDICTS = ("really OOD", "label wrong", "semantics kept", "nuisance lost")
NO_VERDICT = "no verdict"
MAX_LENGTH = 2_000
COLUMNS = (
    *("id", "set", "label", "score", "threshold", "called"),
    *("verdict", "note", "author", "time", "settings"),
)
_BUSY_SEC = 5.0
# a query of a file with a hostile schema would go on for ever
_MOST_SEC = 10.0
_TABLE = """
CREATE TABLE IF NOT EXISTS notes (
  bundle TEXT NOT NULL, id TEXT NOT NULL, set_name TEXT NOT NULL, label TEXT NOT NULL,
  score REAL, threshold REAL, settings TEXT NOT NULL, verdict TEXT NOT NULL, note TEXT NOT NULL,
  time TEXT NOT NULL, author TEXT NOT NULL DEFAULT '', PRIMARY KEY (bundle, id))
"""
# what SQLite and Python raise at a damaged file, a schema that is no text, or a number too large
_ERRORS = (sqlite3.Error, ValueError, OverflowError)


class NotesError(LineError):
    """Notes cannot be read or written; the message is one line."""


@dataclass(frozen=True)
class Seen:
    """What the page showed for an image when its note was written."""

    set: str = ""  # the scored set, "outliers", or "" for another image
    label: str = ""  # known class, "" for none
    score: float | None = None  # Eq. 6
    threshold: float | None = None  # a score above it means OOD
    settings: str = ""  # k, alpha and normalisation, as text


@dataclass(frozen=True)
class Note:
    """Verdict and note on one image."""

    id: str
    verdict: str  # one of `VERDICTS`, "" for none
    text: str
    time: str  # of the last change, ISO 8601 in UTC
    seen: Seen  # at that time
    author: str = ""  # who changed it last, "" where nobody signs in


class NoteBook:
    """The notes in one file, for several threads and processes: every call opens the file anew.

    Verdict and note are written separately, so that two users do not overwrite each other.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self, bundle_hash: str) -> dict[str, Note]:
        """Reads the notes on a bundle's images by id, the oldest first. Raises NotesError: unreadable file."""
        if not self.file.is_file():
            return {}
        try:
            return {row["id"]: _note(row) for row in self._rows(bundle_hash)}
        except (*_ERRORS, IndexError) as error:
            raise NotesError(f"{self.file} cannot be read: {error}") from error

    def set_verdict(self, bundle_hash: str, one: str, verdict: str, seen: Seen, author: str = "") -> None:
        """Saves a verdict, "" to remove it. Raises ValueError: not in `VERDICTS`; NotesError: not writable."""
        if verdict and verdict not in VERDICTS:
            raise ValueError(f"verdict {verdict!r} is none of {', '.join(VERDICTS)}")
        self._write(bundle_hash, one, "verdict", verdict, seen, author)

    def set_text(self, bundle_hash: str, one: str, text: str, seen: Seen, author: str = "") -> None:
        """Saves up to `MAX_LENGTH` characters of a note, "" to remove it. Raises NotesError: not writable."""
        self._write(bundle_hash, one, "note", text.strip()[:MAX_LENGTH], seen, author)

    def why_not(self) -> str:
        """Checks, without creating the file, whether notes can be written: "" or the reason why not."""
        if self.file.exists():
            try:
                with closing(_connect(str(self.file), 0)) as db:
                    db.execute("BEGIN IMMEDIATE")
                    db.rollback()
            except sqlite3.OperationalError as error:
                # another process is writing
                return "" if "locked" in str(error) else message_line(f"{self.file} cannot be written: {error}")
            except _ERRORS as error:
                return message_line(f"{self.file} cannot be written: {error}")
            return ""
        place = self.file.parent.absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
            return ""
        return f"{self.file} cannot be made: {place} cannot be written"

    def _write(self, bundle_hash: str, one: str, column: str, value: str, seen: Seen, author: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        empty = {"verdict": "", "note": ""} | {column: value}
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as db, db:
                db.execute("BEGIN IMMEDIATE")
                db.execute(
                    "INSERT INTO notes (bundle, id, set_name, label, score, threshold, settings, verdict,"
                    " note, time, author) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                    f" ON CONFLICT (bundle, id) DO UPDATE SET {column} = excluded.{column},"
                    " set_name = excluded.set_name, label = excluded.label,"
                    " score = excluded.score, threshold = excluded.threshold, settings = excluded.settings,"
                    " time = excluded.time, author = excluded.author",
                    (bundle_hash, one, *astuple(seen), *empty.values(), now, author),
                )
                db.execute("DELETE FROM notes WHERE bundle = ? AND verdict = '' AND note = ''", (bundle_hash,))
        except (*_ERRORS, OSError) as error:
            why = getattr(error, "strerror", None) or error
            raise NotesError(f"{self.file} cannot be written: {why}") from error

    def _open(self) -> sqlite3.Connection:
        db = _connect(str(self.file))
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(_TABLE)
            if "author" not in [row["name"] for row in db.execute("PRAGMA table_info(notes)")]:
                # a file from before notes were signed keeps its notes
                db.execute("ALTER TABLE notes ADD COLUMN author TEXT NOT NULL DEFAULT ''")
            db.commit()
        except _ERRORS:
            db.close()
            raise
        return db

    def _rows(self, bundle_hash: str) -> list[sqlite3.Row]:
        query = "SELECT * FROM notes WHERE bundle = ? ORDER BY time, id"
        address = f"file:{quote(str(self.file.resolve()))}?mode=ro"
        try:
            with closing(_connect(address)) as db:
                if _is_being_created(db):
                    return []
                return db.execute(query, (bundle_hash,)).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                raise
            # WAL cannot create its files in a read-only folder, which nobody else can write to either
            with closing(_connect(address + "&immutable=1")) as db:
                return db.execute(query, (bundle_hash,)).fetchall()


def _is_being_created(db: sqlite3.Connection) -> bool:
    """Whether nothing was written yet: one that lost its table has more pages."""
    is_empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    return is_empty and db.execute("PRAGMA page_count").fetchone()[0] <= 1


def _connect(address: str, busy_sec: float = _BUSY_SEC) -> sqlite3.Connection:
    """Opens a file or URI; a statement that takes longer than `_MOST_SEC` fails."""
    db = sqlite3.connect(address, timeout=busy_sec, uri=address.startswith("file:"))
    db.row_factory = sqlite3.Row
    ends = time.monotonic() + _MOST_SEC
    db.set_progress_handler(lambda: time.monotonic() > ends, 100_000)
    return db


def _note(row: sqlite3.Row) -> Note:
    """The note in a row; ValueError for a value of another type."""
    texts = [row[key] for key in ("id", "verdict", "note", "time", "set_name", "label", "settings")]
    author = row["author"] if "author" in row.keys() else ""  # noqa: SIM118 - a Row has no `in`
    score, threshold = row["score"], row["threshold"]
    if not all(isinstance(one, str) for one in (*texts, author)):
        raise ValueError("a text is of another type")
    if not all(one is None or (isinstance(one, float) and math.isfinite(one)) for one in (score, threshold)):
        raise ValueError("a score is no number")
    one, verdict, text, when, group, label, settings = texts
    return Note(one, verdict, text, when, Seen(group, label, score, threshold, settings), author)


def tallies(notes: Sequence[Note]) -> dict[str, int]:
    """Counts the images with each verdict, and those with a note only."""
    counts = {verdict: sum(note.verdict == verdict for note in notes) for verdict in VERDICTS}
    return counts | {NO_VERDICT: sum(not note.verdict for note in notes)}


def notes_csv(notes: Sequence[Note], provenance: Mapping[str, str]) -> str:
    """Writes notes as CSV with `COLUMNS`; provenance and tallies stand above, in lines that begin with #."""
    lines = dict(provenance) | {f"tally, {verdict}": str(count) for verdict, count in tallies(notes).items()}
    rows = []
    for note in notes:
        seen = note.seen
        what = note.id, seen.set, seen.label, seen.score, seen.threshold, _called(seen)
        rows.append([*what, note.verdict, note.text, note.author, note.time, seen.settings])
    return csv_text(COLUMNS, rows, lines)


def _called(seen: Seen) -> str:
    if seen.score is None or seen.threshold is None:
        return ""
    return "OOD" if seen.score > seen.threshold else "ID"
