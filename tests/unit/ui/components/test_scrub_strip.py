"""What the strip of pictures sends to the browser."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdviz.ui.components import scrub_strip
from sdviz.ui.pictures import data_uri


def test_a_strip_sends_a_picture_for_each_panel(sent: dict[str, Any]) -> None:
    pictures = [data_uri(np.full((64, 64, 3), grey, np.uint8)) for grey in (0, 100, 200)]
    frames = [scrub_strip.Frame(str(s), f"S = {s}", "", pictures) for s in (0, 100)]
    panels = [("one", "#1"), ("two", "#2"), ("three", "#3")]
    scrub_strip.scrub_strip(frames, panels, key="s", at=1, on_choose=print)
    data = sent["data"]
    assert [len(frame["pictures"]) for frame in data["frames"]] == [len(data["panels"])] * 2
    assert (data["at"], data["side"]) == (1, 64) and sent["on_chosen_change"] is print
