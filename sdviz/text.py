"""Text that many parts make: one-line messages, and hashes of configurations."""

import hashlib
import json
from typing import Any

MAX_LINE = 300


def one_line(text: object) -> str:
    """The text of an error, or any other, with its lines and gaps joined by single spaces."""
    return " ".join(str(text).split())


def short_line(text: object) -> str:
    """The text without control characters and line breaks, cut to 120 characters."""
    flat = _printable(text)
    return flat if len(flat) <= 120 else f"{flat[:119]}…"


def message_line(text: object) -> str:
    """The text without control characters and line breaks, and of more than 300 characters both ends."""
    flat = _printable(text)
    return flat if len(flat) <= MAX_LINE else f"{flat[: MAX_LINE // 2 - 1]}…{flat[-MAX_LINE // 2 :]}"


def _printable(text: object) -> str:
    return one_line("".join(c if c.isprintable() else " " for c in str(text)))


class LineError(ValueError):
    """An error whose message is one printable line of at most 300 characters, whatever it quotes."""

    def __init__(self, message: object) -> None:
        super().__init__(message_line(message))


def tree_hash(tree: dict[str, Any]) -> str:
    """SHA-256 of a plain tree as JSON with sorted keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
