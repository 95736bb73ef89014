"""What the map of points sends to the browser."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from sdviz.ui.components import scatter


def test_points_are_packed_in_the_order_of_their_ids(sent: dict[str, Any]) -> None:
    points = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    groups = (scatter.Group("a", "#0072B2", 2), scatter.Group("b", "#D55E00", 1))
    rgb, group = np.full((3, 3), 7, np.uint8), np.array([0, 0, 1])
    clicked = scatter.scatter(
        points,
        key="points",
        layout="one",
        frames=[scatter.PanelTitle("epoch 1", ""), scatter.PanelTitle("epoch 2", "")],
        panels=[0, 1],
        ids=np.array(["x", "y", "z"]),
        texts=["x", "y", "z"],
        colouring=scatter.Colouring("by set", rgb, group, groups),
        edge=rgb,
        sheets="sheets",
        lacking=[2],
        are_coming=True,
        marked=-1,
        chosen=[1],
        height=540,
        on_select=print,
    )
    data = sent["data"]
    assert clicked is None and data["dims"] == 2 and data["ids"] == ["x", "y", "z"]
    assert np.frombuffer(base64.b64decode(data["points"]), "<f4").tolist() == list(range(12))
    assert np.frombuffer(base64.b64decode(data["group"]), "<u2").tolist() == [0, 0, 1]
    assert [one["name"] for one in data["groups"]] == ["a", "b"] and data["ramp"] is None
