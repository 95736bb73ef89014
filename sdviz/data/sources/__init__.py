"""The kinds of image sets, one file each: a new one is found by being here."""

from ...registry import modules_of
from ..source import Source

SOURCES: tuple[Source, ...] = tuple(
    sorted((module.SOURCE for module in modules_of(__name__)), key=lambda source: source.order)
)


def sources_of(name: str) -> tuple[Source, ...]:
    """The sources that answer for a name, whether the set is there or not, the first to be read first."""
    for source in SOURCES:
        if name in source.built_in or name.startswith(source.prefixes):
            return (source,)
    return tuple(source for source in SOURCES if not source.built_in and not source.kinds)
