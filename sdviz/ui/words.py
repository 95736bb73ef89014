"""Small texts that several modules of the pages write."""

from __future__ import annotations


def counted(number: int, one: str) -> str:
    """The number with its noun, in the plural where it is not 1."""
    return f"{number} {one}{'s' * (number != 1)}"
