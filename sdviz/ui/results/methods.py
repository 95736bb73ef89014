"""Results: other methods and ours on the same images."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import streamlit as st

from sdviz.analysis import Evidence
from sdviz.analysis.curves import roc_curve
from sdviz.analysis.methods import Method, methods_of
from sdviz.baselines import BASELINES
from sdviz.evaluation.report import BaselineResult, ModeMetrics, Report
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.charts.parts import Dash, Line
from sdviz.ui.links import put_in_link, take_from_link
from sdviz.ui.pictures import OUTLIER_COLOUR
from sdviz.ui.results.curves import chance_line, curve_chart
from sdviz.ui.results.html_tables import (
    Row,
    TableCell,
    between,
    points,
    shares,
    short_role,
    show_table,
    table_html,
)
from sdviz.ui.results.state import Table, caption_with_table, report_provenance
from sdviz.ui.theme import ROLE_NAMES, set_name
from sdviz.ui.widgets import empty_state

OURS = "SD outliers"
DRAWN_FIRST = 4
# hues that no set has, safe for the colour-blind and visible in both themes; more methods differ by dash.
# Ours is a wide line in the green of SD outliers
COLOURS = ("#7A5BD6", "#1299BC", "#8C8C1E")
DASHES: tuple[Dash | None, ...] = (None, "dash", "dot", "dashdot")


def methods_table(evidence: Evidence) -> Table:
    """A row for each method and set, ours first, in %. Raises MissingPart: no report, or no other methods."""
    rows: list[list[object]] = []
    words = ["", *(settings_text(one.result) for one in methods_of(evidence))]
    for (title, results), settings in zip(_systems(evidence), words, strict=True):
        for name, m in results.items():
            interval = m.auroc_interval or (None, None)
            values = shares(m.auroc, *interval, m.fpr95_id_recall, m.fpr95_ood_recall)
            rows.append([title, name, ROLE_NAMES[evidence.report.results[name].role], *values, settings])
    fprs = ("FPR95 at 95 % ID recall", "FPR95 at 95 % OOD recall")
    return ["method", "set", "role", "AUROC", "from", "to", *fprs, "settings"], rows


_VIEWS = {"run": "the run's views", "detector": "the detector's views", "flip": "mirrored only"}
_IN_WORDS: dict[str, Callable[[Any], str]] = {
    "k": lambda k: f"k = {k}",
    "alpha": lambda alpha: f"α = {alpha:g}",
    "normalize": lambda yes: "unit length" if yes else "raw features",
    "frozen_blocks": lambda n: f"{n} {'block' if n == 1 else 'blocks'} frozen" if n else "no block frozen",
    "learning_rate": lambda rate: f"learning rate {rate:g}",
    "views": lambda name: _VIEWS[name],
    "reconstructed_id": lambda share: f"{100 * share:g} % rebuilt ID images",
    "epochs": lambda n: f"{n:g} epochs",
}


def settings_text(result: BaselineResult) -> str:
    """A method's settings that are not its authors', in words, and of how many trials they are the best."""
    words = [
        _IN_WORDS[name](value) if name in _IN_WORDS else f"{name.replace('_', ' ')} {value}"
        for name, value in result.settings.items()
        if name != "network"
    ]
    if result.trials:
        words.append(f"best of {len(result.trials)} trials")
    return ", ".join(words)


def _systems(evidence: Evidence) -> list[tuple[str, dict[str, ModeMetrics]]]:
    ours = {name: one.modes["both"] for name, one in evidence.report.results.items()}
    return [(OURS, ours), *((one.title, dict(one.result.results)) for one in methods_of(evidence))]


def methods_html(evidence: Evidence) -> str:
    """AUROC of each method by set, and its mean by role; ▲ marks the best. Raises as `methods_table`."""
    report = evidence.report
    systems = _systems(evidence)
    means = [{role: modes["both"].auroc for role, modes in report.means.items()}]
    means += [{role: mean.auroc for role, mean in one.result.means.items()} for one in methods_of(evidence)]
    header: list[TableCell | str] = ["method"]
    columns = []
    for role in report.means:
        names = [name for name, one in report.results.items() if one.role == role]
        header += [TableCell(set_name(name), short_role(role)) for name in names]
        columns += [(role, name) for name in names]
        if len(names) > 1:
            header.append(TableCell("mean", short_role(role)))
            columns.append((role, ""))
    settings = ["", *(settings_text(one.result) for one in methods_of(evidence))]
    values = [
        [one[name].auroc if name else mean[role] for role, name in columns]
        for (_, one), mean in zip(systems, means, strict=True)
    ]
    best = np.argmax(np.array(values), axis=0)
    rows = []
    for i, (title, one) in enumerate(systems):
        colour, dash = line_of(i)
        cells: list[TableCell | str] = [TableCell(title, settings[i], colour, dash or "solid")]
        for j, (_, name) in enumerate(columns):
            interval = between(one[name].auroc_interval) if name else ""
            mark = "▲ " if best[j] == i else ""
            cells.append(TableCell(mark + points(values[i][j]), interval))
        rows.append(Row(cells, "strong" if i == 0 else ""))
    return table_html(header, rows)


def methods_chart(evidence: Evidence, name: str, methods: Sequence[Method]) -> Chart:
    """ROC curves on one OOD set, in %: ours, and those of some methods."""
    id_name = evidence.id_set.name
    order = [one.key for one in methods_of(evidence)]
    sets = evidence.sets
    known, ood = (np.asarray(sets[one].total, np.float64) for one in (id_name, name))
    lines = [chance_line()]
    auroc = evidence.report.results[name].modes["both"].auroc
    drawn = [(OURS, known, ood, auroc, line_of(0))]
    for one in methods:
        area, style = one.result.results[name].auroc, line_of(1 + order.index(one.key))
        drawn.append((one.title, one.scores[id_name], one.scores[name], area, style))
    for title, id_scores, ood_scores, area, (colour, dash) in drawn:
        x, y = roc_curve(id_scores, ood_scores)
        label = f"{title}: AUROC {100 * area:.2f} %"
        lines.append(Line(label, 100 * x, 100 * y, colour, dash=dash or False, wide=title == OURS))
    return curve_chart(f"ROC on {set_name(name)}, method by method", lines)


def line_of(row: int) -> tuple[str, Dash | None]:
    """Colour and dash of the method in a row of the table: row 0 is ours, None is a solid line."""
    if row == 0:
        return OUTLIER_COLOUR, None
    dash, colour = divmod(row - 1, len(COLOURS))
    return COLOURS[colour], DASHES[dash % len(DASHES)]


def near_set(report: Report) -> str:
    """The first near-OOD set, else the first set: the methods best on it are drawn at first."""
    return next((n for n, one in report.results.items() if one.role == "near"), next(iter(report.results)))


def first_methods(evidence: Evidence) -> list[Method]:
    """The methods drawn at first: the best on `near_set`."""
    near = near_set(evidence.report)
    return sorted(methods_of(evidence), key=lambda one: -one.result.results[near].auroc)[:DRAWN_FIRST]


def methods_caption(evidence: Evidence) -> str:
    """The caption of the curves."""
    n = len(first_methods(evidence))
    return (
        "Every method saw the same images, and where it needs them the same clusters and networks. First "
        f"drawn: ours, and the {n} best of the others on {near_set(evidence.report)}."
    )


def methods_table_caption(report: Report) -> str:
    """The caption of the table."""
    text = (
        f"AUROC in %, from report.json with the bundle's own k = {report.score.k}, α = {report.score.alpha:g}; "
        "below it the 95 % bootstrap interval over images. ▲ is the highest of a column: where intervals "
        "overlap, these images do not tell the methods apart."
    )
    if report.tuning is not None:
        asked = report.tuning
        on = {"validation": "the validation sets", "left_out": "clusters that were left out for it"}
        text += (
            f" Every method, ours too, was tried with up to {asked.trials} settings on {on[asked.criterion]}, "
            "one seed each; a row says “tuned” if it has the best of them. No test set took part in the choice."
        )
    return text


def show_methods(evidence: Evidence) -> None:
    """Shows ROC curves on one set, and a table of all methods."""
    report = evidence.report
    if not report.baselines:
        others = ", ".join(one.title for one in BASELINES.values())
        empty_state(
            "This bundle was measured without other methods.",
            f"Here you would see {others} on the same images, clusters and networks. A run that takes over "
            "everything else from another one costs a part of its time:",
            "python -m sdviz run CONFIG --from RUN --set 'evaluation.baselines=[dn2, knn, ssd, msp]'",
        )
        return
    methods = methods_of(evidence)
    lines = report_provenance(evidence)
    left, right = st.columns([1, 2.2], vertical_alignment="bottom")
    with left:
        key, names = "results_methods_set", list(report.results)
        if st.session_state.get(key) not in names:
            st.session_state.pop(key, None)
        take_from_link(key, names)
        name = st.selectbox("OOD set", names, format_func=set_name, key=key)
        put_in_link(key, [name], names[:1])
    first = first_methods(evidence)
    titles = [one.title for one in methods]
    chosen = right.multiselect(
        "Methods beside ours", titles, [one.title for one in first], key="results_methods_drawn"
    )
    show_chart(
        methods_chart(evidence, name, [one for one in methods if one.title in chosen]),
        lines,
        key="results_methods",
        caption=methods_caption(evidence),
    )
    show_table(methods_html(evidence))
    caption = methods_table_caption(report)
    caption_with_table(
        caption, "Other methods", methods_table(evidence), lines, key="results_methods_table_csv"
    )
