"""How often each class or cluster is called wrongly, on the page Failures."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from sdviz.analysis.failures import Rate, is_wrong, rates
from sdviz.analysis.provenance import provenance
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.charts.parts import Bars
from sdviz.ui.failures.state import facts_of, settings_text
from sdviz.ui.scores import ScoredSets
from sdviz.ui.theme import set_name

BY_CLASS, BY_CLUSTER = "by class", "by cluster"
MOST_BARS = 30
NO_CLASS = "no class known"
MOST_LETTERS = 34


def show_rates(view: ScoredSets, sets: Sequence[str], false_alarms: bool) -> None:
    """Shows a bar for each group of these sets, the worst first. The sets are all ID or all OOD."""
    what = "False alarms" if false_alarms else "Missed OOD"
    head = st.columns([3, 2], vertical_alignment="bottom")
    head[0].markdown(f"**{what}, share of each group**")
    with head[1]:
        grouping = st.segmented_control(
            "Groups",
            [BY_CLASS, BY_CLUSTER],
            default=BY_CLASS,
            required=True,
            key="failures_by",
            label_visibility="collapsed",
        )
    found: list[Rate] = []
    for name in sets:
        facts, total = facts_of(view, name), view.scores[name].total
        if grouping == BY_CLUSTER:
            groups = np.array([view.cluster_name(int(one), "unknown") for one in facts.clusters], dtype=str)
        else:
            groups = np.where(facts.classes == "", NO_CLASS, facts.classes)
        found += rates(name, groups, is_wrong(view.evidence.shown_sets[name], total, view.threshold))
    found.sort(key=lambda rate: -rate.at_least)
    failing = [rate for rate in found if rate.wrong]
    if not failing:
        st.caption(f"None of {len(found):,} groups has an image that is called wrongly.")
        return
    shown = failing[:MOST_BARS]
    chart = Chart(
        f"{what} {grouping}",
        f"{'class' if grouping == BY_CLASS else 'taken for the cluster'}, images called wrongly of all",
        "called wrongly, %",
        [
            Bars(
                "called wrongly, %",
                _labels(shown, len(sets) > 1),
                np.array([rate.percent for rate in shown]),
                [view.colours[rate.set] for rate in shown],
                lying=True,
            )
        ],
        height=80 + 20 * len(shown),
    )
    rest = len(found) - len(failing)
    more = " Ordered by the lower end of each share's 95 % interval (Wilson), so that size counts."
    more += f" The {MOST_BARS} worst of {len(failing)} groups." if len(failing) > MOST_BARS else ""
    more += f" {rest:,} more without any." if rest else ""
    means = (
        "Of the held-out ID images of each group, the share above the threshold"
        if false_alarms
        else "Of the OOD images of each group, the share that the threshold lets through as ID"
    )
    show_chart(
        chart,
        provenance(view.bundle, scores=settings_text(view.settings), threshold=f"{view.threshold:.6g}"),
        key="failures_rates",
        caption=f"{means}, 0 to 100 %, and the counts. A high bar: the detector does not know it.{more}",
    )
    with st.expander("As a table"):
        st.dataframe(
            pd.DataFrame(
                {
                    "set": [set_name(rate.set) for rate in found],
                    "group": [rate.name for rate in found],
                    "called wrongly": [rate.wrong for rate in found],
                    "images": [rate.n for rate in found],
                    "%": [round(rate.percent, 2) for rate in found],
                    "at least, %": [round(rate.at_least, 2) for rate in found],
                }
            ),
            hide_index=True,
            key="failures_rates_table",
        )


def _labels(shown: Sequence[Rate], with_set: bool) -> list[str]:
    """The label of each bar: group, set and counts. Long names lose their middle."""
    short = [_shortened(rate.name) for rate in shown]
    pairs = [(name, rate.set) for name, rate in zip(short, shown, strict=True)]
    labels = []
    for name, rate in zip(short, shown, strict=True):
        # where two names have one short form, both stay long
        name = name if pairs.count((name, rate.set)) == 1 else rate.name
        place = f" ({set_name(rate.set)})" if with_set else ""
        labels.append(f"{name}{place}, {rate.wrong:,} of {rate.n:,}")
    return labels


def _shortened(name: str) -> str:
    if len(name) <= MOST_LETTERS:
        return name
    tail = MOST_LETTERS // 3
    return f"{name[: MOST_LETTERS - 1 - tail].rstrip()}…{name[-tail:].lstrip()}"
