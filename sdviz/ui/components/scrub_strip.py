"""A strip of frames: the mouse over it, or the arrow keys, show each one without asking the server."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from sdviz.ui.assets import component

LARGE_PX = 192


@dataclass(frozen=True)
class Frame:
    """One position of a scrub strip: a picture for each panel, in order."""

    id: str
    tick: str
    title: str
    text: str
    pictures: list[str]


def scrub_strip(
    frames: list[Frame],
    panels: list[tuple[str, str]],
    *,
    key: str,
    at: int,
    strip_panel: int,
    on_choose: Callable[[], None],
) -> None:
    """Shows the strip, and above it the large pictures of one frame.

    Args:
        frames: From left to right.
        panels: (name, colour) of each large picture.
        at: The frame shown first.
        strip_panel: Whose pictures stand in the strip.
        on_choose: Called before the rerun that a click makes; the id is in `st.session_state[key].chosen`.
    """
    data = {
        "frames": [asdict(f) for f in frames],
        "panels": [{"name": name, "colour": colour} for name, colour in panels],
        "at": at,
        "strip_panel": strip_panel,
        "size_px": LARGE_PX,
    }
    component(__name__)(key=key, data=data, on_chosen_change=on_choose)
