"""What the cases of all readers share: mutations, comparison, and the files that are made once."""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
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


def mutated(rng: random.Random, raw: bytes) -> bytes:
    """The bytes as they are, or a little or much changed."""
    how = rng.random()
    return raw if how < 0.2 else lightly(rng, raw) if how < 0.5 else heavily(rng, raw)


def lightly(rng: random.Random, raw: bytes) -> bytes:
    """The bytes with one to three letters or digits become others: often still valid, with other values."""
    found = bytearray(raw)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(found)) if found else 0
        for place in range(at, min(at + 200, len(found))):
            if found[place : place + 1].isdigit():
                found[place] = rng.choice(b"0123456789")
                break
            if found[place : place + 1].isalpha():
                found[place] = rng.choice(b"abcdefghijklmnopqrstuvwxyz")
                break
    return bytes(found)


def heavily(rng: random.Random, raw: bytes) -> bytes:
    """The bytes after one to six changes: flipped, cut, doubled or moved, or a token put in."""
    found = bytearray(raw)
    for _ in range(rng.randint(1, 6)):
        at, end = sorted(rng.randint(0, len(found)) for _ in range(2))
        end = min(end, at + rng.choice((1, 4, 40, 4_000)))
        how = rng.randrange(6)
        if how == 0 and at < len(found):
            found[at] = rng.randrange(256)
        elif how == 1:
            del found[at:end]
        elif how == 2:
            found[at:at] = found[at:end]
        elif how == 3:
            piece = found[at:end]
            del found[at:end]
            place = rng.randint(0, len(found))
            found[place:place] = piece
        else:
            token = rng.choice(TOKENS).encode("utf-8", "surrogatepass")
            found[at : end if how == 4 else at] = token
    return bytes(found)


def as_text(raw: bytes) -> str:
    """Bytes as text, those that are no UTF-8 as Python has them in the names of files."""
    return raw.decode("utf-8", "surrogateescape")


def a_word(rng: random.Random, longest: int = 80) -> str:
    """A word, or what a stranger may put in its place."""
    if rng.random() < 0.5:
        return rng.choice(("cat", "dog", "7", "é", "=1+1", "a b", "b/../c", "train", "None", "-1", "0"))
    return as_text(heavily(rng, b"some word"))[:longest]


def same(found: object, expected: object, where: object) -> None:
    """Raises Wrong unless both are equal, or both are NaN."""
    if found != expected and not (found != found and expected != expected):
        raise Wrong(f"{where}: {str(found)[:80]!r} instead of {str(expected)[:80]!r}")


_made: dict[str, Path] = {}


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made at the first call and removed at the end of the process."""
    if name not in _made:
        folder = Path(tempfile.mkdtemp(prefix="sdviz-fuzz-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        make(folder)
        _made[name] = folder
    return _made[name]
