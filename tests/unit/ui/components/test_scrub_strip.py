"""What the strip of pictures sends to the browser."""

from __future__ import annotations

from typing import Any

from sdviz.ui.components import scrub_strip


def test_a_strip_sends_a_picture_for_each_panel(sent: dict[str, Any]) -> None:
    pictures = ["data:a", "data:b", "data:c"]
    frames = [scrub_strip.Frame(str(s), f"S = {s}", "", pictures) for s in (0, 100)]
    panels = [("one", "#1"), ("two", "#2"), ("three", "#3")]
    scrub_strip.scrub_strip(frames, panels, key="s", at=1, on_choose=print)
    data = sent["data"]
    assert [len(frame["pictures"]) for frame in data["frames"]] == [len(data["panels"])] * 2
    assert data["at"] == 1 and sent["on_chosen_change"] is print
