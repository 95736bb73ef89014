"""A histogram of scores with a threshold to drag. The browser updates shares and counts without the server.

It gets all scores of all sets in full precision, sorted, so its counts are exact.
"""

import base64
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import numpy as np

from sdviz.analysis.curves import Histogram
from sdviz.ui.assets import component

Height = Literal["share", "count", "log"]


def threshold_chart(
    drawn: Histogram,
    scores: Mapping[str, np.ndarray],
    *,
    threshold: float,
    own_threshold: float,
    own_name: str,
    titles: Mapping[str, str],
    colours: Mapping[str, str],
    id_name: str,
    height: Height,
    shown: Collection[str],
    x_title: str,
    key: str,
    on_change: Callable[[], None],
) -> None:
    """Shows the histogram.

    Args:
        drawn: Bins and counts.
        scores: By set, (N,); these are counted.
        threshold: Where the line is; higher scores are called OOD.
        own_threshold: The one to go back to.
        own_name: What that is, as "95 % ID recall".
        id_name: The set of held-out ID images.
        shown: The sets with bars; all sets are counted.
        height: Bars as shares of their set, as counts, or as counts on a logarithmic axis.
        on_change: Called before the rerun of a drag, a key or an entry. `st.session_state[key].t` is the new
            threshold; `.own` is true if `own_threshold` was asked for instead.
    """
    data: dict[str, Any] = {
        "edges": drawn.edges.tolist(),
        "is_log": drawn.is_log,
        "t": threshold,
        "own": own_threshold,
        "own_name": own_name,
        "height": height,
        "x_title": x_title,
        "sets": [
            {
                "name": name,
                "title": titles.get(name, name),
                "colour": colours.get(name, "#8A94A0"),
                "is_id": name == id_name,
                "drawn": name in shown,
                "counts": drawn.counts[name].tolist(),
                "scores": base64.b64encode(np.sort(np.asarray(values, "<f8")).tobytes()).decode("ascii"),
            }
            for name, values in scores.items()
        ],
    }
    component(__name__)(key=key, data=data, on_t_change=on_change, on_own_change=on_change)
