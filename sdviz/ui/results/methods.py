"""Results: other methods and ours on the same images."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import streamlit as st

from sdviz.analysis import Evidence
from sdviz.analysis.curves import roc_curve
from sdviz.analysis.methods import Method, methods_of
from sdviz.analysis.tables import or_none
from sdviz.baselines import BASELINES
from sdviz.evaluation.report import BaselineResult, ModeMetrics, Report
from sdviz.ui.cache.imports import import_problems, imports_of
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
IMPORTED_COLOUR = "#C2478F"
DASHES: tuple[Dash | None, ...] = (None, "dash", "dot", "dashdot")


def shown_methods(evidence: Evidence) -> tuple[Method, ...]:
    """The methods beside ours: those imported, then those of the bundle."""
    imported = tuple(
        Method(one.name, one.name, one.result, one.scores, is_imported=True)
        for one in imports_of(evidence).values()
        if one.result is not None
    )
    return (*imported, *(or_none(lambda: methods_of(evidence)) or ()))


def methods_table(evidence: Evidence) -> Table:
    """A row for each method and set, ours first, in %. Raises MissingPart: no report."""
    rows: list[list[object]] = []
    words = ["", *(settings_text(one.result) for one in shown_methods(evidence))]
    for (title, results), settings in zip(_systems(evidence), words, strict=True):
        for name, m in results.items():
            interval = m.auroc_interval or (None, None)
            values = shares(m.auroc, *interval, m.fpr95_id_recall, m.fpr95_ood_recall)
            rows.append([title, name, ROLE_NAMES[evidence.report.results[name].role], *values, settings])
    fprs = ("FPR95 at 95 % ID recall", "FPR95 at 95 % OOD recall")
    return ["method", "set", "role", "AUROC", "from", "to", *fprs, "settings"], rows


_VIEWS = {"run": "the run's views", "detector": "the detector's views", "flip": "mirrored only"}
_IN_WORDS: dict[str, Callable[[Any], str]] = {
    "imported": lambda file: f"imported from {file}",
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
    return [(OURS, ours), *((one.title, dict(one.result.results)) for one in shown_methods(evidence))]


def methods_html(evidence: Evidence) -> str:
    """AUROC of each method by set, and its mean by role; ▲ marks the best. Raises as `methods_table`."""
    report = evidence.report
    systems = _systems(evidence)
    means = [{role: modes["both"].auroc for role, modes in report.means.items()}]
    methods = shown_methods(evidence)
    means += [{role: mean.auroc for role, mean in one.result.means.items()} for one in methods]
    header: list[TableCell | str] = ["method"]
    columns = []
    for role in report.means:
        names = [name for name, one in report.results.items() if one.role == role]
        header += [TableCell(set_name(name), short_role(role)) for name in names]
        columns += [(role, name) for name in names]
        if len(names) > 1:
            header.append(TableCell("mean", short_role(role)))
            columns.append((role, ""))
    settings = ["", *(settings_text(one.result) for one in methods)]
    # None for a set that an import lacks
    values = [
        [(one[name].auroc if name in one else None) if name else mean.get(role) for role, name in columns]
        for (_, one), mean in zip(systems, means, strict=True)
    ]
    best = np.nanargmax(np.array(values, float), axis=0)
    lines = [(OUTLIER_COLOUR, None), *lines_of(methods)]
    rows = []
    for i, (title, one) in enumerate(systems):
        colour, dash = lines[i]
        cells: list[TableCell | str] = [TableCell(title, settings[i], colour, dash or "solid")]
        for j, (_, name) in enumerate(columns):
            interval = between(one[name].auroc_interval) if name in one else ""
            mark = "▲ " if best[j] == i else ""
            cells.append(TableCell(mark + points(values[i][j]), interval))
        rows.append(Row(cells, "strong" if i == 0 else ""))
    return table_html(header, rows)


def methods_chart(evidence: Evidence, name: str, methods: Sequence[Method]) -> Chart:
    """ROC curves on one OOD set, in %: ours, and those of some methods."""
    id_name = evidence.id_set.name
    everyone = shown_methods(evidence)
    line = dict(zip((one.title for one in everyone), lines_of(everyone), strict=True))
    sets = evidence.sets
    known, ood = (np.asarray(sets[one].total, np.float64) for one in (id_name, name))
    lines = [chance_line()]
    auroc = evidence.report.results[name].modes["both"].auroc
    ours: tuple[str, Dash | None] = (OUTLIER_COLOUR, None)
    drawn = [(OURS, known, ood, auroc, ours)]
    for one in methods:
        if name in one.scores:
            area, style = one.result.results[name].auroc, line[one.title]
            drawn.append((one.title, one.scores[id_name], one.scores[name], area, style))
    for title, id_scores, ood_scores, area, (colour, dash) in drawn:
        x, y = roc_curve(id_scores, ood_scores)
        label = f"{title}: AUROC {100 * area:.2f} %"
        lines.append(Line(label, 100 * x, 100 * y, colour, dash=dash or False, wide=title == OURS))
    return curve_chart(f"ROC on {set_name(name)}, method by method", lines)


def lines_of(methods: Sequence[Method]) -> list[tuple[str, Dash | None]]:
    """Colour and dash of each method, None for a solid line. An import does not change those of others."""
    lines: list[tuple[str, Dash | None]] = []
    n_imported = sum(one.is_imported for one in methods)
    for row, one in enumerate(methods):
        if one.is_imported:
            lines.append((IMPORTED_COLOUR, DASHES[row % len(DASHES)]))
        else:
            dash, colour = divmod(row - n_imported, len(COLOURS))
            lines.append((COLOURS[colour], DASHES[dash % len(DASHES)]))
    return lines


def near_set(report: Report) -> str:
    """The first near-OOD set, else the first set: the methods best on it are drawn at first."""
    return next((n for n, one in report.results.items() if one.role == "near"), next(iter(report.results)))


def first_methods(evidence: Evidence) -> list[Method]:
    """The methods drawn at first: those imported, and the best of the bundle's on `near_set`."""
    near, methods = near_set(evidence.report), shown_methods(evidence)
    own = [one for one in methods if not one.is_imported]
    best = sorted(own, key=lambda one: -one.result.results[near].auroc)[:DRAWN_FIRST]
    return [*(one for one in methods if one.is_imported), *best]


def methods_caption(evidence: Evidence) -> str:
    """The caption of the curves."""
    first = first_methods(evidence)
    n = sum(not one.is_imported for one in first)
    drawn = ["ours"]
    text = "Every method saw the same images, and where it needs them the same clusters and networks."
    if len(first) > n:
        text = "Every method saw the same images; those imported were scored elsewhere."
        drawn.append("those imported")
    if n:
        drawn.append(f"the {n} best of the others on {near_set(evidence.report)}")
    return f"{text} First drawn: {', '.join(drawn[:-1])}, and {drawn[-1]}."


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
    for problem in import_problems(evidence):
        st.warning(problem)
    methods = shown_methods(evidence)
    if not methods:
        others = ", ".join(one.title for one in BASELINES.values())
        box = empty_state(
            "This bundle was measured without other methods.",
            f"Here you would see {others} on the same images, clusters and networks. A run that takes over "
            "everything else from another one costs a part of its time:",
            "python -m sdviz run CONFIG --from RUN --set 'evaluation.baselines=[dn2, knn, ssd, msp]'",
        )
        box.markdown("Scores of the same images from elsewhere come here by:")
        box.code(import_command(evidence), language="bash", wrap_lines=True)
        return
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
    if (key := "results_methods_drawn") in st.session_state:
        # an import may be gone
        st.session_state[key] = [one for one in st.session_state[key] if one in titles]
    usual = None if key in st.session_state else [one.title for one in first]
    chosen = right.multiselect("Methods beside ours", titles, usual, key=key)
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
    st.caption(f"Imported rows are measured in the same way. To add one: `{import_command(evidence)}`")


def import_command(evidence: Evidence) -> str:
    """The command that adds others' scores."""
    return f"python -m sdviz import FILE --bundle {evidence.bundle.path}"
