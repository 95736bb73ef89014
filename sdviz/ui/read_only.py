"""The read-only switch: with `SDVIZ_READ_ONLY=1` people can watch but change nothing."""

import os

READ_ONLY = "SDVIZ_READ_ONLY"


def is_read_only() -> bool:
    """Tells whether people may only watch."""
    return os.environ.get(READ_ONLY, "") not in ("", "0")
