from __future__ import annotations

import csv
import io
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sdviz.analysis.notes import COLUMNS, VERDICTS, NoteBook, NotesError, Seen, notes_csv, tallies

SEEN = Seen("digits", "seven", 0.25, 0.5, "k = 10")


@pytest.fixture
def book(tmp_path: Path) -> NoteBook:
    return NoteBook(tmp_path / "runs" / "notes.sqlite")


def test_reading_makes_no_file(book: NoteBook) -> None:
    assert book.read("b") == {} and book.why_not() == ""
    assert not book.file.parent.exists()


def test_verdict_and_note_are_kept_apart_and_by_bundle(book: NoteBook) -> None:
    book.set_verdict("b", "digits/test/00001", "label wrong", SEEN)
    book.set_text("b", "digits/test/00001", "  a seven\nwith a bar ", SEEN)
    book.set_text("other", "digits/test/00001", "of another bundle", SEEN)
    (note,) = book.read("b").values()
    assert (note.verdict, note.text, note.seen) == ("label wrong", "a seven\nwith a bar", SEEN)
    book.set_verdict("b", "digits/test/00001", "really OOD", Seen("digits", "seven", 0.75, 0.5))
    (note,) = book.read("b").values()
    assert (note.verdict, note.text, note.seen.score) == ("really OOD", "a seven\nwith a bar", 0.75)
    assert book.why_not() == ""


def test_nothing_said_is_nothing_kept(book: NoteBook) -> None:
    book.set_verdict("b", "x", VERDICTS[0], SEEN)
    book.set_text("b", "x", "n", SEEN)
    book.set_verdict("b", "x", "", SEEN)
    assert list(book.read("b")) == ["x"]
    book.set_text("b", "x", "  ", SEEN)
    assert book.read("b") == {}
    with pytest.raises(ValueError, match="is none of really OOD"):
        book.set_verdict("b", "x", "nonsense", SEEN)


def test_a_text_is_data_and_no_sql(book: NoteBook) -> None:
    text = "'); DROP TABLE notes; --"
    book.set_text("b", text, text, Seen(text, text))
    assert book.read("b")[text].text == text


WRITE = """
import sys
from pathlib import Path
from sdviz.analysis.notes import VERDICTS, NoteBook, Seen

def write(file, first):
    book = NoteBook(Path(file))
    for i in range(first, first + 15):
        book.set_verdict("b", f"id/{i}", VERDICTS[i % 4], Seen())
        book.set_text("b", f"id/{i}", f"note {i}", Seen())

if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]))
"""


def test_threads_and_processes_at_once_lose_nothing(book: NoteBook) -> None:
    write: dict[str, Any] = {"__name__": "here"}
    exec(WRITE, write)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    others = [
        subprocess.Popen([sys.executable, "-c", WRITE, str(book.file), str(first)], env=environment)
        for first in (0, 15)
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda first: write["write"](book.file, first), (30, 45, 60, 75)))
    assert [one.wait(120) for one in others] == [0, 0]
    kept = book.read("b")
    assert {note.id: (note.verdict, note.text) for note in kept.values()} == {
        f"id/{i}": (VERDICTS[i % 4], f"note {i}") for i in range(90)
    }


def test_a_writer_waits_for_another_and_readers_wait_for_nobody(book: NoteBook) -> None:
    book.set_text("b", "x", "before", SEEN)
    with closing(sqlite3.connect(book.file)) as db:
        db.execute("BEGIN IMMEDIATE")
        assert book.read("b")["x"].text == "before" and book.why_not() == ""
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(book.set_text, "b", "x", "after", SEEN)
            db.commit()
            waiting.result(20)
    assert book.read("b")["x"].text == "after"


def test_a_damaged_file_or_place_is_one_line(book: NoteBook, tmp_path: Path) -> None:
    book.file.parent.mkdir()
    book.file.write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(NotesError, match=r"notes\.sqlite cannot be read: file is not a database"):
        book.read("b")
    with pytest.raises(NotesError, match=r"notes\.sqlite cannot be written"):
        book.set_text("b", "x", "y", SEEN)
    assert "not a database" in book.why_not()
    (tmp_path / "file").write_text("a file")
    nowhere = NoteBook(tmp_path / "file" / "notes.sqlite")
    assert nowhere.read("b") == {}
    assert "cannot be written" in nowhere.why_not()
    with pytest.raises(NotesError, match="cannot be written"):
        nowhere.set_text("b", "x", "y", SEEN)


@pytest.mark.parametrize(
    "schema",
    [
        b"\xff\xfe\xff",  # no text at all
        b"CREATE TABLE notes (a)",
        b"CREATE TABLE other (a)",
    ],
)
def test_a_damaged_schema_is_one_line(book: NoteBook, schema: bytes) -> None:
    book.set_text("b", "x", "y", SEEN)
    with closing(sqlite3.connect(book.file)) as db, db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = CAST(? AS TEXT) WHERE name = 'notes'", (schema,))
    for act in (lambda: book.read("b"), lambda: book.set_text("b", "x", "z", SEEN)):
        with pytest.raises(NotesError) as error:
            act()
        assert str(error.value).isprintable() and "notes.sqlite cannot be" in str(error.value)


@pytest.mark.parametrize("value", [b"\xff", 3, float("inf"), "text", None])
@pytest.mark.parametrize("column", ["note", "score", "time"])
def test_a_value_of_another_type_is_one_line(book: NoteBook, column: str, value: object) -> None:
    book.set_text("b", "x", "y", SEEN)
    with closing(sqlite3.connect(book.file)) as db, db:
        db.execute("CREATE TABLE free AS SELECT * FROM notes")  # without NOT NULL
        db.execute("DROP TABLE notes")
        db.execute("ALTER TABLE free RENAME TO notes")
        db.execute(f"UPDATE notes SET {column} = ?", (value,))
    is_right = (
        value is None or (type(value) is int) if column == "score" else isinstance(value, int | float | str)
    )
    try:
        (note,) = book.read("b").values()
    except NotesError as error:
        assert "cannot be read" in str(error)
        return
    assert is_right, note


def test_a_schema_that_never_ends_is_given_up(book: NoteBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdviz.analysis.notes._MOST_SEC", 0.2)
    book.file.parent.mkdir()
    with closing(sqlite3.connect(book.file)) as db, db:
        db.execute(
            "CREATE VIEW notes AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT i AS id, 'b' AS bundle, '' AS time FROM n"
        )
    with pytest.raises(NotesError, match="cannot be read: interrupted"):
        book.read("b")


def test_a_note_says_who_wrote_it_and_an_unsigned_file_keeps_its_notes(book: NoteBook) -> None:
    book.set_text("b", "x", "y", SEEN, "ada@example.org")
    assert book.read("b")["x"].author == "ada@example.org"
    with closing(sqlite3.connect(book.file)) as db, db:
        db.execute("ALTER TABLE notes DROP COLUMN author")
    assert (book.read("b")["x"].text, book.read("b")["x"].author) == ("y", "")
    book.set_verdict("b", "x", "label wrong", SEEN, "bob")
    note = book.read("b")["x"]
    assert (note.text, note.verdict, note.author) == ("y", "label wrong", "bob")
    assert "bob" in notes_csv([note], {})


def test_the_csv_opens_and_says_what_was_kept(book: NoteBook) -> None:
    texts = ['# no comment, "quoted"', "line\nbreak", "=1+1", "+1", "-1", "@x", "\tx=1"]
    for i, text in enumerate(texts):
        book.set_text("b", f"id/{i}", text, Seen("digits", "=HYPERLINK()", i / 3, 0.9, "k = 10"))
    book.set_verdict("b", "id/0", "label wrong", Seen("digits", "zero", 2.0, 0.9))
    book.set_verdict("b", "train/1", "semantics kept", Seen("SD outliers"))
    notes = list(book.read("b").values())
    text = notes_csv(notes, {"bundle": "b", "lines": "two\nof them"})
    table = pd.read_csv(io.StringIO(text), comment="#").set_index("id")
    assert tuple(["id", *table.columns]) == COLUMNS and len(table) == 8
    assert table.loc["id/0", "note"] == '# no comment, "quoted"'
    assert table.loc["id/1", "note"] == "line\nbreak"
    # cells that a spreadsheet would calculate
    assert [table.loc[f"id/{i}", "note"][:2] for i in (2, 3, 4, 5)] == ["'=", "'+", "'-", "'@"]
    assert table.loc["id/1", "label"] == "'=HYPERLINK()"
    assert table.loc["id/2", "score"] == 2 / 3 and table.loc["id/2", "called"] == "ID"
    assert table.loc["id/0", "called"] == "OOD" and pd.isna(table.loc["train/1", "score"])
    assert table["verdict"].value_counts().to_dict() == {"label wrong": 1, "semantics kept": 1}
    counts = tallies(notes)
    assert counts == {
        "really OOD": 0, "label wrong": 1, "semantics kept": 1, "nuisance lost": 0, "no verdict": 6,
    }  # fmt: skip
    head = [line for line in text.removeprefix("\ufeff").splitlines() if line.startswith("# ")]
    assert head[:2] == ["# bundle: b", "# lines: two of them"]
    assert head[2:7] == [f"# tally, {name}: {count}" for name, count in counts.items()]
    rows = list(csv.reader(line for line in io.StringIO(text).readlines()[7:]))
    assert len(rows) == 9 and {len(row) for row in rows} == {len(COLUMNS)}


def test_a_file_that_lost_its_table_is_not_an_empty_one(book: NoteBook) -> None:
    book.set_text("b", "x", "y", SEEN)
    with closing(sqlite3.connect(book.file)) as db, db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA writable_schema = ON")
        db.execute("DELETE FROM sqlite_master")
    with pytest.raises(NotesError, match=r"notes\.sqlite cannot be read: no such table"):
        book.read("b")


def test_a_file_that_is_being_created_has_no_notes(book: NoteBook) -> None:
    book.file.parent.mkdir()
    book.file.write_bytes(b"")
    assert book.read("b") == {}
    with closing(sqlite3.connect(book.file)) as db:
        db.execute("PRAGMA journal_mode = WAL")
    assert book.file.stat().st_size > 0 and book.read("b") == {}
