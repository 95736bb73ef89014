"""Formats numbers, names and times for pages."""

import math


def counted(number: int, one: str) -> str:
    """Returns a number with its noun, in the plural unless it is 1."""
    return f"{number:,} {one}{'s' * (number != 1)}"


def percent(share: float, digits: int = 1) -> str:
    """Formats a share of 0..1, as in 98.7 %."""
    return f"{100 * share:.{digits}f} %"


def short_of_all(share: float) -> str:
    """Formats a share of 0..100, as in 98.7 %; only all gives 100.0 %, and only none 0.0 %."""
    tenths = round(share, 1)
    if tenths != share and tenths in (0.0, 100.0):
        return f"{max(0.01, math.floor(100 * share) / 100):.2f} %"
    return f"{share:.1f} %"


def about(seconds: float) -> str:
    """Formats a rough time: "under a minute", "about 12 min", "about 3 h 10 min"."""
    minutes = round(seconds / 60)
    if seconds < 50:
        return "under a minute"
    if minutes < 60:
        return f"about {max(1, minutes)} min"
    return f"about {minutes // 60} h {round(minutes % 60, -1) % 60} min"


def in_bytes(n: float) -> str:
    """Formats a size in bytes, as in 3.1 GB."""
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.0f} {unit}"
        n /= 1000
    return f"{n:.1f} GB"


def ordinal(n: int) -> str:
    """Returns 1st, 2nd, 3rd, 4th."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def plain(text: str) -> str:
    """Escapes text of a file or a name, so that nothing in it is read as Markdown."""
    for mark in "\\`*_[]<>$#:~|":
        text = text.replace(mark, f"\\{mark}")
    return text


def code_span(text: str, most: int | None = None) -> str:
    """Returns text of a link or a file as a Markdown code span of one line and at most `most` characters."""
    return "`" + text[:most].replace("`", "'").replace("\n", " ") + "`"


def minute(time: str) -> str:
    """Formats an ISO time to the minute, as in 2026-01-31 12:05."""
    return time[:16].replace("T", " ")
