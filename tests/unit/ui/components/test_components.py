"""What the components send to the browser."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sdviz.analysis.curves import histogram
from sdviz.runs.reading import StageView
from sdviz.ui.components import picture_grid, scatter, scrub_strip, stage_strip, threshold


class Sent(dict[str, Any]):
    """What a component was mounted with; itself the component, which answers with nothing."""

    def __call__(self, **given: Any) -> SimpleNamespace:  # noqa: ANN401
        self.update(given)
        return SimpleNamespace(clicked=None, selected=None, chosen=None)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    found = Sent()
    for module in (picture_grid, scatter, scrub_strip, stage_strip, threshold):
        monkeypatch.setattr(module, "component", lambda name: found)
    return found


def test_a_grid_sends_its_cells_row_by_row(sent: Sent) -> None:
    cells = [picture_grid.Cell("data:a", "a", "#111111", id="1"), picture_grid.Cell("", "", "#222222")]
    names = [picture_grid.Label("original", "in-distribution")]
    assert picture_grid.picture_grid(cells, 2, key="grid", row_names=names) is None
    data = sent["data"]
    assert [cell["src"] for cell in data["cells"]] == ["data:a", ""] and data["columns"] == 2
    assert data["row_names"] == [{"text": "original", "small": "in-distribution"}]
    assert data["column_names"] == [] and sent["key"] == "grid"


def test_a_strip_sends_a_picture_for_each_panel(sent: Sent) -> None:
    pictures = ["data:a", "data:b", "data:c"]
    frames = [scrub_strip.Frame(str(s), f"S = {s}", "", pictures) for s in (0, 100)]
    panels = [("one", "#1"), ("two", "#2"), ("three", "#3")]
    scrub_strip.scrub_strip(frames, panels, key="s", at=1, on_choose=print)
    data = sent["data"]
    assert [len(frame["pictures"]) for frame in data["frames"]] == [len(data["panels"])] * 2
    assert data["at"] == 1 and sent["on_chosen_change"] is print


def test_a_stage_says_how_far_it_is(sent: Sent) -> None:
    states = [("encoder", "done", 1.0), ("diffusion", "running", 0.5), ("bundle", "waiting", 0.0)]
    stages = [StageView(name, state, share, 60.0 if state == "done" else None) for name, state, share in states]
    stage_strip.stage_strip(stages, 120.0, key="strip")
    first, second, third = sent["data"]["stages"]
    assert (first["name"], third["note"]) == ("Encoder", "waits")
    assert second["note"].startswith("▶ 50 %, ") and second["note"].endswith(" left")
    assert second["title"] == "Noise predictor: running"


def test_scores_come_sorted_and_in_full_precision(sent: Sent) -> None:
    scores = {"test": np.array([0.3, 0.1, 0.2]), "digits": np.array([1.0, 2.0])}
    threshold.threshold_chart(
        histogram(scores, 0.25, "linear"),
        scores,
        threshold=0.25,
        own_threshold=0.25,
        titles={"test": "test (ID)"},
        colours={"test": "#0072B2"},
        id_name="test",
        height="share",
        shown=["test"],
        x_title="score",
        key="chart",
        on_change=print,
    )
    one, other = sent["data"]["sets"]
    assert np.frombuffer(base64.b64decode(one["scores"]), "<f8").tolist() == [0.1, 0.2, 0.3]
    assert (one["title"], one["is_id"], one["drawn"]) == ("test (ID)", True, True)
    assert (other["title"], other["is_id"], other["drawn"]) == ("digits", False, False)


def test_points_are_packed_in_the_order_of_their_ids(sent: Sent) -> None:
    points = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    groups = (scatter.Group("a", "#0072B2", 2), scatter.Group("b", "#D55E00", 1))
    rgb, group = np.full((3, 3), 7, np.uint8), np.array([0, 0, 1])
    clicked = scatter.scatter(
        points,
        key="points",
        layout="one",
        frames=[scatter.FrameName("epoch 1", ""), scatter.FrameName("epoch 2", "")],
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
