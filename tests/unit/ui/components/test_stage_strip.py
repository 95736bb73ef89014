"""What the strip of stages sends to the browser."""

from __future__ import annotations

from typing import Any

from sdviz.runs.reading import StageView
from sdviz.ui.components import stage_strip


def test_a_stage_says_how_far_it_is(sent: dict[str, Any]) -> None:
    states = [("encoder", "done", 1.0), ("diffusion", "running", 0.5), ("bundle", "waiting", 0.0)]
    stages = [StageView(name, state, share, 60.0 if state == "done" else None) for name, state, share in states]
    stage_strip.stage_strip(stages, 120.0, key="strip")
    first, second, third = sent["data"]["stages"]
    assert (first["name"], third["note"]) == ("Encoder", "waits")
    assert second["note"].startswith("▶ 50 %, ") and second["note"].endswith(" left")
    assert second["title"] == "Noise predictor: running"
