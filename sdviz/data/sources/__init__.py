"""The kinds of image sets, one file each; every file here is found."""

from ...registry import modules_of
from ..source import Source

SOURCES: tuple[Source, ...] = tuple(
    sorted((module.SOURCE for module in modules_of(__name__)), key=lambda source: source.order)
)


def sources_of(name: str) -> tuple[Source, ...]:
    """The sources of a name, whether the set is here or not; the first one with a split is read."""
    for source in SOURCES:
        if name in source.built_in or name.startswith(source.prefixes):
            return (source,)
    return tuple(source for source in SOURCES if not source.built_in and not source.kinds)
