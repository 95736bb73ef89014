"""A histogram of scores with a threshold to drag: shares and counts follow in the browser, without the server.

Every score of every set goes to the browser in full precision, sorted, so that what is counted there is exact.
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
    titles: Mapping[str, str],
    colours: Mapping[str, str],
    id_name: str,
    height: Height,
    shown: Collection[str],
    x_title: str,
    key: str,
    on_change: Callable[[], None],
) -> None:
    """Draws it; after a drag, a key or an entry `on_change` is called.

    The value is then in `st.session_state[key].t`, and `st.session_state[key].own` is true where the threshold
    at 95 % ID recall was asked for instead.

    Args:
        drawn: Bins and counts.
        scores: By set, (N,), what is counted exactly.
        threshold: Where the line stands; above is called OOD.
        own_threshold: The one at 95 % ID recall.
        id_name: The held-out ID images.
        shown: The sets whose bars are drawn; all are counted.
        height: Bars as a share of their set, as counts, or as counts on a logarithmic axis.
        on_change: Called before the rerun.
    """
    data: dict[str, Any] = {
        "edges": drawn.edges.tolist(),
        "is_log": drawn.is_log,
        "t": threshold,
        "own": own_threshold,
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
