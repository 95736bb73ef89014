"""Text that many parts make: one-line messages, and hashes of configurations."""

import hashlib
import json
from typing import Any


def one_line(text: object) -> str:
    """The text of an error, or any other, with its lines and gaps joined by single spaces."""
    return " ".join(str(text).split())


def short_line(text: str) -> str:
    """The text without control characters and line breaks, cut to 120 characters."""
    flat = one_line("".join(c if c.isprintable() else " " for c in text))
    return flat if len(flat) <= 120 else f"{flat[:119]}…"


def tree_hash(tree: dict[str, Any]) -> str:
    """SHA-256 of a plain tree as JSON with sorted keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
