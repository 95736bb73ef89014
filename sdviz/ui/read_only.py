"""The guard against changes by guests: `SDVIZ_READ_ONLY=1` lets people watch and change nothing."""

from __future__ import annotations

import os

READ_ONLY = "SDVIZ_READ_ONLY"


def is_read_only() -> bool:
    """Whether people may only watch here."""
    return os.environ.get(READ_ONLY, "") not in ("", "0")
