"""Results: histogram with a threshold, ROC, precision and recall."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import streamlit as st

from sdviz.analysis.curves import (
    NEAR_THRESHOLDS,
    Histogram,
    Scale,
    has_g_bin,
    histogram,
    precision_recall_curve,
    roc_curve,
)
from sdviz.detection import metrics
from sdviz.ui.charts import Chart, offer_downloads, show_chart
from sdviz.ui.charts.parts import Line, Mark
from sdviz.ui.components.threshold import Height, threshold_chart
from sdviz.ui.results.state import MODE_TITLES, Table, offer_table
from sdviz.ui.scores import ScoredSets
from sdviz.ui.session import set_shared
from sdviz.ui.text import plain
from sdviz.ui.widgets import choose_key, choose_one, empty_state

SCALES: dict[Scale, str] = {"log": "Logarithmic", "near": "Around the threshold", "linear": "Linear"}
HEIGHTS: dict[Height, str] = {"share": "Share of each set", "count": "Counts", "log": "Counts, log"}
CHART_KEY = "results_threshold"
# captions of the page and the report
HISTOGRAM_CAPTION = (
    "How often each score occurs in each set. Every image to the right of the line is called OOD. The fewer "
    "colours overlap, the better ID and OOD are told apart."
)
ROC_CAPTION = (
    "As the threshold falls, more OOD images are found (up) and more ID images are flagged by mistake (right). "
    "A perfect score goes straight up at the left; chance is the dashed diagonal. AUROC is the area below: the "
    "share of pairs in which the OOD image scores higher. The dot is where the threshold stands."
)


def precision_caption(positive: str) -> str:
    """The caption of the curves of precision and recall; `positive` is "OOD" or "ID"."""
    return (
        f"Of the images called {positive}, how many are (precision), against how many of all {positive} images "
        f"are found (recall). The area below is AUPR-{'out' if positive == 'OOD' else 'in'}. It depends on how "
        "many images the sets hold; the dashed line is what chance reaches."
    )


def _take_threshold() -> None:
    said = st.session_state[CHART_KEY]
    if said.own:
        set_shared("t", None)
    elif said.t is not None:
        set_shared("t", repr(float(said.t)))


def show_histogram(state: ScoredSets) -> None:
    """Shows the scores of every set, with the threshold to drag and what it lets through."""
    left, right = st.columns(2)
    with left:
        scale = choose_key("Score axis", SCALES, "results_axis")
    with right:
        height = choose_key("Bars", HEIGHTS, "results_bars")
    scores = {name: state.column(name, "both") for name in state.scores}
    drawn = histogram(scores, state.reference.threshold, scale)
    # another bundle has other sets
    shown = st.pills(
        "Sets drawn",
        list(scores),
        selection_mode="multi",
        default=first_sets(state),
        format_func=lambda name: plain(state.titles[name]),
        key=f"results_drawn_{state.evidence.bundle.hash[:12]}",
        persist_state="session",
        help="Whose bars are drawn. The counts below are of every set.",
    )
    x_title = "score of Eq. 6, higher is more OOD" + (", logarithmic" if drawn.is_log else "")
    if drawn.n_beyond:
        x_title += f"; {drawn.n_beyond:,} higher ones stand in the last bar"
    threshold_chart(
        drawn,
        scores,
        threshold=state.threshold,
        own_threshold=state.reference.threshold,
        own_name=state.reference.name,
        titles=state.titles,
        colours=state.colours,
        id_name=state.id_name,
        height=height,
        shown=shown,
        x_title=x_title,
        key=CHART_KEY,
        on_change=_take_threshold,
    )
    columns = st.columns([4, 1.3, 1.1], vertical_alignment="center")
    columns[0].caption(
        f"{HISTOGRAM_CAPTION} Drag the line, or use the arrow keys on it. "
        f'"Around the threshold" ends at {NEAR_THRESHOLDS:g} times the threshold that pages start with.'
    )
    with columns[1]:
        offer_table(
            "All scores", _score_table(state), state.provenance, key="results_scores", label="All scores"
        )
    with columns[2]:
        chart = histogram_chart(state, drawn, height, shown)
        lines = state.provenance | {"threshold": f"{state.threshold:.6g}"}
        offer_downloads(chart, lines, key="results_histogram")


def first_sets(state: ScoredSets) -> list[str]:
    """The sets drawn at first: ID, near-OOD and the first far-OOD set. More are hard to tell apart."""
    roles = {name: one.role for name, one in state.evidence.sets.items()}
    far = [name for name in state.scores if roles[name] == "far"]
    return [name for name in state.scores if roles[name] in ("id", "near") or name in far[:1]]


def histogram_chart(state: ScoredSets, drawn: Histogram, height: Height, shown: Collection[str]) -> Chart:
    """The histogram of some sets as a chart for files."""
    parts = []
    for name, counts in drawn.counts.items():
        if name not in shown:
            continue
        y = 100 * counts / max(1, len(state.scores[name].total)) if height == "share" else counts
        colour, title = state.colours[name], state.titles[name]
        parts.append(Line(title, drawn.edges, np.append(y, y[-1]), colour, steps=True, fill=True))
    share = 100 * float((state.column(state.id_name, "both") <= state.threshold).mean())
    return Chart(
        "Scores, set by set",
        "score of Eq. 6, higher is more OOD",
        "share of the set (%)" if height == "share" else "images",
        parts,
        (
            Mark(
                max(state.threshold, drawn.edges[0]),
                f"threshold {state.threshold:.4g}: {share:.2f} % of ID pass",
            ),
        ),
        log_x=drawn.is_log,
        log_y=height == "log",
    )


def _score_table(state: ScoredSets) -> Table:
    rows: list[list[object]] = []
    for name, one in state.evidence.sets.items():
        s = state.scores[name]
        columns = (one.ids, one.labels, s.distance, s.votes, s.total)
        rows += [[name, one.role, *values] for values in zip(*(c.tolist() for c in columns), strict=True)]
    return ["set", "role", "id", "label", "distance", "votes", "total"], rows


WHOLE, CORNER = "Whole", "The corner, up to 10 % false alarms"


def show_roc(state: ScoredSets) -> None:
    """ROC of each OOD set."""
    if _no_ood(state):
        return
    mode, part = _choices(state, "Part", [WHOLE, CORNER], "results_roc", "part")
    chart = roc_chart(state, mode)
    if part == CORNER:
        chart = replace(chart, x_range=(-0.1, 10.0))
    lines = state.provenance | {"score by": MODE_TITLES[mode]}
    if mode == "both":
        lines |= {"threshold, the dots": f"{state.threshold:.6g}"}
    show_chart(chart, lines, key="results_roc", caption=ROC_CAPTION)


def roc_chart(state: ScoredSets, mode: str) -> Chart:
    """ROC of each OOD set, in %."""
    known = state.column(state.id_name, mode)
    lines = [chance_line()]
    for name in state.evidence.ood_sets:
        ood = state.column(name, mode)
        x, y = roc_curve(known, ood)
        title = f"{state.titles[name]}: AUROC {100 * metrics.auroc(known, ood):.2f} %"
        lines.append(Line(title, 100 * x, 100 * y, state.colours[name]))
        if mode == "both":
            x, y = (np.array([(scores > state.threshold).mean()]) for scores in (known, ood))
            what = f"{name} at the threshold"
            lines.append(Line(what, 100 * x, 100 * y, state.colours[name], markers=True, in_legend=False))
    return curve_chart(f"ROC, {MODE_TITLES[mode]}", lines)


def chance_line() -> Line:
    """The diagonal of random scores, in %."""
    return Line("chance", np.array([0.0, 100.0]), np.array([0.0, 100.0]), "#8A94A0", dash=True)


def curve_chart(
    title: str, lines: list[Line], axes: tuple[str, str] = ("ID flagged, FPR (%)", "OOD found, TPR (%)")
) -> Chart:
    """A chart of curves in %, by default of ROC curves; `axes` are the titles of x and y."""
    return Chart(title, *axes, lines, x_range=(-1, 101), y_range=(-1, 101), height=460)


def show_precision_recall(state: ScoredSets) -> None:
    """Precision over recall of each OOD set."""
    if _no_ood(state):
        return
    mode, positive = _choices(state, "To be found", ["OOD", "ID"], "results_pr", "positive")
    show_chart(
        precision_recall_chart(state, mode, positive),
        state.provenance | {"score by": MODE_TITLES[mode]},
        key="results_pr",
        caption=precision_caption(positive),
    )


def precision_recall_chart(state: ScoredSets, mode: str, positive: str) -> Chart:
    """Precision over recall, in %; `positive` is "OOD" or "ID"."""
    known = state.column(state.id_name, mode)
    area, kind = (metrics.aupr_out, "out") if positive == "OOD" else (metrics.aupr_in, "in")
    lines = []
    for name in state.evidence.ood_sets:
        ood = state.column(name, mode)
        recall, precision = precision_recall_curve(known, ood, "ood" if positive == "OOD" else "id")
        title = f"{state.titles[name]}: AUPR-{kind} {100 * area(known, ood):.2f} %"
        lines.append(Line(title, 100 * recall, 100 * precision, state.colours[name], steps=True))
        share = len(ood if positive == "OOD" else known) / (len(ood) + len(known))
        chance = replace(chance_line(), name=f"chance, {name}", y=np.full(2, 100 * share))
        lines.append(replace(chance, colour=state.colours[name], in_legend=False))
    title = f"Precision and recall, {positive} to be found, {MODE_TITLES[mode]}"
    return curve_chart(title, lines, ("recall (%)", "precision (%)"))


def _choices(state: ScoredSets, label: str, options: list[str], key: str, name: str) -> tuple[str, str]:
    """Widgets for the score's mode and one of the options, side by side; their keys begin with `key`."""
    has_votes = any(bool(one.votes.any()) for one in state.scores.values())
    shown = {"votes": has_votes, "g_bin": has_g_bin(state.evidence)}
    titles = {mode: title for mode, title in MODE_TITLES.items() if shown.get(mode, True)}
    with st.container(horizontal=True):  # one below the other in a narrow window
        mode = choose_key("Score by", titles, f"{key}_mode")
        return mode, choose_one(label, options, f"{key}_{name}")


def _no_ood(state: ScoredSets) -> bool:
    if not state.evidence.ood_sets:
        empty_state(
            "This bundle measured no OOD set.",
            "Here you would see one curve for each. Name sets under `evaluation.near` and `evaluation.far` in "
            "the configuration of a run.",
        )
    return not state.evidence.ood_sets
