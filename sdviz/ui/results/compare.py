"""Results: up to four bundles side by side."""

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from sdviz.analysis.curves import roc_curve
from sdviz.analysis.records import BundleRecord, mean_auroc
from sdviz.bundle import Bundle, BundleError
from sdviz.detection import metrics
from sdviz.evaluation.tables import METRIC_NAMES
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.charts.parts import Line
from sdviz.ui.results.curves import chance_line, curve_chart
from sdviz.ui.results.html_tables import Row, between, points, show_table, table_html
from sdviz.ui.results.records import all_records, find_columns, many_lines
from sdviz.ui.results.state import Table, caption_with_table
from sdviz.ui.settings import show_differences
from sdviz.ui.theme import ROLE_NAMES, set_name
from sdviz.ui.widgets import empty_state, select_one

MOST = 4
# hues that no set of images has
COLOURS = ("#56B4E9", "#CC79A7", "#332288", "#999933")


def compare_table(records: Sequence[BundleRecord]) -> Table:
    """A row for each fact or metric, a column for each bundle; in %, "" for none."""
    names = dict.fromkeys(name for one in records if one.report for name in one.report.results)
    about: list[tuple[str, list[object]]] = [
        ("trained on", [one.manifest.dataset for one in records]),
        ("labels from", [one.manifest.labels_from for one in records]),
        ("S, w", [f"{one.recipe[0]}, {one.recipe[1]:g}" if one.recipe else "" for one in records]),
        ("k, α", [_score(one) for one in records]),
        ("hash", [one.hash[:10] for one in records]),
    ]
    for role, title in ROLE_NAMES.items():
        means = [mean_auroc(one, role) for one in records]
        if any(mean is not None for mean in means):
            about.append((f"{title} mean AUROC", [points(mean) for mean in means]))
    for key in ("auroc", "fpr95_id_recall", "fpr95_ood_recall"):
        for name in names:
            title = f"{METRIC_NAMES[key]}, {set_name(name)}"
            about.append((title, [_measure(one, name, key) for one in records]))
    return ["", *(one.name for one in records)], [[name, *values] for name, values in about]


def _score(one: BundleRecord) -> str:
    score = one.manifest.score
    return f"{score.k}, {score.alpha:g}" if score is not None else "no detector"


def _measure(one: BundleRecord, name: str, key: str) -> str:
    if one.report is None or name not in one.report.results:
        return ""
    found = one.report.results[name].modes["both"]
    interval = between(found.auroc_interval) if key == "auroc" else ""
    return points(getattr(found, key)) + (f" ({interval})" if interval else "")


def show_compare(bundle: Bundle) -> None:
    """Shows a chooser, ROC curves on a set that the bundles share, and the table."""
    records, problems = all_records()
    by_name = {one.name: one for one in records}
    key = "results_bundles"
    own = [one.name for one in records if one.hash == bundle.hash][:1]
    others = [name for name, one in by_name.items() if name not in own and one.report is not None]
    if key in st.session_state:
        st.session_state[key] = [n for n in st.session_state[key] if n in by_name][:MOST]
    names = st.multiselect(
        f"Up to {MOST} bundles",
        list(by_name),
        default=None if key in st.session_state else own + others[: 2 - len(own)],
        key=key,
        max_selections=MOST,
        persist_state="session",
    )
    chosen = [by_name[name] for name in names]
    if not chosen:
        st.caption("Pick one or more.")
        return
    lines = many_lines(chosen)
    header, rows = table = compare_table(chosen)
    _overlay(chosen, lines)
    show_table(table_html(header, [Row([str(cell) for cell in row]) for row in rows]))
    caption_with_table(
        "Each by its own k and α, from its report.json, in %; in brackets 95 % intervals over images. The two "
        "FPR95 differ, as *Metrics* says. Bundles with other training data have other ID images: do not "
        "compare their figures.",
        "Bundles compared",
        table,
        lines,
        key="results_compare_csv",
    )
    if len(chosen) > 1:
        _differences(chosen)
    for line in problems:
        st.caption(f"Not read: {line}")


def _overlay(chosen: Sequence[BundleRecord], lines: dict[str, str]) -> None:
    measured = [one for one in chosen if one.report is not None]
    of_all = [one.report.results for one in measured if one.report is not None]
    common = [name for name in (of_all or [{}])[0] if all(name in one for one in of_all)]
    if not common:
        empty_state(
            "These bundles share no OOD set.",
            "Here you would see their ROC curves on one set, on top of each other.",
        )
        return
    name = select_one("ROC on", common, "results_common", format_func=set_name)
    if len({one.manifest.dataset for one in measured}) > 1:
        st.caption("These bundles have other ID images: the curves do not compare.")
    try:
        chart = overlay_chart(measured, name)
    except BundleError as error:
        st.warning(str(error))
        return
    show_chart(
        chart,
        lines,
        key="results_overlay",
        caption=f"OOD images of {set_name(name)} found against ID images flagged, as the threshold falls. "
        "The higher at the left, the better.",
    )


def overlay_chart(records: Sequence[BundleRecord], name: str) -> Chart:
    """ROC of each bundle on one set, in %."""
    parts = [chance_line()]
    for one, colour in zip(records, COLOURS, strict=False):
        assert one.report is not None
        columns = find_columns(one)
        known, ood = columns[one.report.id_set.name]["both"], columns[name]["both"]
        x, y = roc_curve(known, ood)
        parts.append(
            Line(f"{one.name}: AUROC {100 * metrics.auroc(known, ood):.2f} %", 100 * x, 100 * y, colour)
        )
    return replace(curve_chart(f"ROC on {set_name(name)}", parts), height=430)


def _differences(chosen: Sequence[BundleRecord]) -> None:
    with st.expander("What differs in their configurations"):
        configs = {one.name: one.manifest.config for one in chosen}
        show_differences(configs, key="results_differences")
