"""A strip of frames: the mouse over it, or the arrow keys, show each frame without asking the server."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from sdviz.ui.assets import component
from sdviz.ui.pictures import side_of


@dataclass(frozen=True)
class Frame:
    """One position of a scrub strip."""

    id: str  # also the text below the strip
    title: str
    text: str
    pictures: list[str]  # `data:` addresses, one for each panel; the strip shows that of the outlier, the third


def scrub_strip(
    frames: list[Frame], panels: list[tuple[str, str]], *, key: str, at: int, on_choose: Callable[[], None]
) -> None:
    """Shows the strip, and above it the large pictures of one frame.

    Args:
        frames: From left to right.
        panels: Name and colour of each large picture.
        at: The frame shown first.
        on_choose: Called before the rerun that a click makes; the id is in `st.session_state[key].chosen`.
    """
    data = {
        "frames": [asdict(frame) for frame in frames],
        "panels": [{"name": name, "colour": colour} for name, colour in panels],
        "at": at,
        "side": side_of(frames[0].pictures[0]),
    }
    component(__name__)(key=key, data=data, on_chosen_change=on_choose)
