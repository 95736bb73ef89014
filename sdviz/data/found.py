"""What a source found beside the pictures that it gives."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Found:
    """What was read, how it was read, and what was not, so that nothing is left out in silence."""

    passed_over: dict[str, int] = field(default_factory=dict)  # suffix as .heic, or folder as @eaDir -> files
    unreadable: tuple[str, ...] = ()  # names of files and folders that could not be read
    value_range: str = "0..255"  # the pixel values that became black and white; one range for the set
    sizes: dict[str, int] = field(default_factory=dict)  # as 640x480, stored width and height -> pictures
    modes: dict[str, int] = field(default_factory=dict)  # as RGB, L, I;16, float32 -> pictures
    splits: dict[str, int] = field(default_factory=dict)  # every split of the set -> its pictures
    offered: tuple[str, ...] = ()  # OOD sets in the same place, such as defects, by their names
    warnings: tuple[str, ...] = ()  # one line each
