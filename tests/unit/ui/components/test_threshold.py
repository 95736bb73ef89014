"""What the chart of the threshold sends to the browser."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from sdviz.analysis.curves import histogram
from sdviz.ui.components import threshold


def test_scores_come_sorted_and_in_full_precision(sent: dict[str, Any]) -> None:
    scores = {"test": np.array([0.3, 0.1, 0.2]), "digits": np.array([1.0, 2.0])}
    threshold.threshold_chart(
        histogram(scores, 0.25, "linear"),
        scores,
        threshold=0.25,
        own_threshold=0.25,
        own_name="95 % ID recall",
        titles={"test": "test (ID)"},
        colours={"test": "#0072B2"},
        id_name="test",
        height="share",
        shown=["test"],
        x_title="score",
        key="chart",
        on_change=print,
    )
    assert sent["data"]["own_name"] == "95 % ID recall"
    one, other = sent["data"]["sets"]
    assert np.frombuffer(base64.b64decode(one["scores"]), "<f8").tolist() == [0.1, 0.2, 0.3]
    assert (one["title"], one["is_id"], one["drawn"]) == ("test (ID)", True, True)
    assert (other["title"], other["is_id"], other["drawn"]) == ("digits", False, False)
