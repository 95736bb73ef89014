"""Results: the report, a single HTML file."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from string import Template

import numpy as np
import streamlit as st

from sdviz import data
from sdviz.analysis import Evidence, MissingPart
from sdviz.analysis.curves import histogram
from sdviz.analysis.paper_tables import PAPER_DATASET, paper_tables
from sdviz.evaluation.tables import FRECHET_NAMES
from sdviz.ui.assets import read_asset, style
from sdviz.ui.charts import Chart
from sdviz.ui.charts.files import chart_file
from sdviz.ui.pictures import data_uri
from sdviz.ui.results import curves, interpolation, methods, metric_tables
from sdviz.ui.results.html_tables import Row, TableCell, table_html, table_style
from sdviz.ui.results.maps import k_alpha_chart, map_caption
from sdviz.ui.results.paper import about_family, paper_html
from sdviz.ui.results.records import all_records, families
from sdviz.ui.results.state import MODE_TITLES, find_results
from sdviz.ui.scores import ScoredSets
from sdviz.ui.text import counted, plain
from sdviz.ui.widgets import download

WORST = 12


def show_report(state: ScoredSets) -> None:
    """Says what the report holds, and shows the button that makes it."""
    bundle, settings = state.bundle, state.settings
    st.markdown(
        "**One HTML file with everything**: metrics, histogram at the threshold in force, ROC and "
        "precision-recall, controls, other methods, the map over k and α, clusters, Frechet distances, the "
        "worst failures, and where all of it comes from. It opens in any browser, needs no network, and prints."
    )
    with_map = st.toggle(
        "With the map over k and α, on the validation set",
        value=True,
        key="results_report_map",
        help="Takes a few seconds where it has not been looked at yet.",
    )
    foreign = [name for name in state.scores if not _is_built_in(state.evidence, name)]
    if foreign:
        st.caption(
            f"Pictures of {plain(', '.join(foreign))} stay out of it: those sets come from files on this "
            "machine. Their worst images stand there by id."
        )
    name = bundle.path.name if bundle.path else "bundle"
    download(
        "Report",
        lambda: report_html(state, with_map),
        f"sdviz-report-{name}-{bundle.hash[:8]}.html",
        key="results_report",
        type="primary",
        icon=":material/description:",
    )
    st.caption(
        f"k = {settings.k}, α = {settings.alpha:g}, features {settings.features}, threshold "
        f"{state.threshold:.6g}: as they are on the other views now. It is made when you press the button."
    )


def report_html(state: ScoredSets, with_map: bool) -> str:
    """The report. It has no pictures of sets from files; `with_map` adds the map over k and alpha."""
    evidence, bundle = state.evidence, state.bundle
    lines = state.provenance | {"threshold": f"{state.threshold!r}; above is called OOD"}
    results = find_results(state)
    title = f"{lines['bundle']}: {lines['trained on']}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        '<p class="about">How well scores tell out-of-distribution (OOD) from in-distribution (ID) images. '
        "A higher score is more OOD; ID images are the held-out ones.</p>",
        f'<div class="origins">{_table((), list(lines.items()), text=2)}</div>',
        "<h2>Metrics</h2>",
        _about(metric_tables.metrics_caption(results, evidence)),
        metric_tables.metrics_html(results, state.colours),
        "<h2>At the threshold</h2>",
        _table(["set", "images", "called OOD", "share called OOD, %", "that is"], _at_threshold(state)),
    ]
    drawn = histogram({n: state.column(n, "both") for n in state.scores}, state.reference.threshold, "log")
    shown = curves.first_sets(state)
    drawn_sets = ", ".join(state.titles[n] for n in shown)
    caption = f"{curves.HISTOGRAM_CAPTION} Drawn: {drawn_sets}; all sets are counted above."
    parts.append(_figure(curves.histogram_chart(state, drawn, "share", shown), lines, caption))
    if evidence.ood_sets:
        parts.append("<h2>Curves</h2>")
        for mode, means in (("both", curves.ROC_CAPTION), ("distance", "Read as the one before.")):
            parts.append(_figure(curves.roc_chart(state, mode), lines, f"ROC by {MODE_TITLES[mode]}. {means}"))
        parts.append(
            _figure(curves.precision_recall_chart(state, "both", "OOD"), lines, curves.precision_caption("OOD"))
        )
    parts += _of_the_report(evidence, lines)
    validation = [name for name, one in evidence.ood_sets.items() if one.role == "validation"]
    if with_map and validation:
        try:
            chart = k_alpha_chart(evidence, state.settings, validation)
            caption = f"{map_caption(evidence, state.settings, validation)} Only this set may choose settings."
            parts.append(f"<h2>k and α on the validation set</h2>{_figure(chart, lines, caption)}")
        except MissingPart as error:
            parts.append(f"<p>No map over k and α: {html.escape(str(error))}.</p>")
    parts += _paper(state)
    parts += _worst(state)
    config = json.dumps(bundle.manifest.config, indent=1, sort_keys=True)
    parts.append(
        f"<details><summary>Resolved configuration</summary><pre>{html.escape(config)}</pre></details>"
    )
    return Template(read_asset(__name__, ".html")).substitute(
        title=html.escape(title), styles=table_style() + style(__name__), body="\n".join(parts)
    )


def _at_threshold(state: ScoredSets) -> list[list[object]]:
    rows: list[list[object]] = []
    for name in state.scores:
        scores = state.column(name, "both")
        n = int((scores > state.threshold).sum())
        kind = "FPR, false alarms" if name == state.id_name else "TPR, OOD found"
        rows.append([state.titles[name], len(scores), n, 100 * n / max(1, len(scores)), kind])
    return rows


def _of_the_report(evidence: Evidence, lines: Mapping[str, str]) -> list[str]:
    """The parts from report.json: controls, interpolation, other methods, clusters, Frechet distances."""
    try:
        report = evidence.report
    except MissingPart as error:
        return [f"<p>{html.escape(str(error))}.</p>"]
    parts = []
    if report.controls:
        parts += [
            "<h2>Controls</h2>",
            _figure(metric_tables.control_chart(evidence), lines, metric_tables.controls_caption(report)),
            _about(metric_tables.controls_table_caption(report)),
        ]
        for mode in ("both", "distance"):
            table = metric_tables.controls_html(evidence, mode)
            parts.append(f"<p><b>By {html.escape(MODE_TITLES[mode])}</b></p>{table}")
    if report.interpolation and report.results:
        chart = interpolation.interpolation_chart(report, interpolation.own_share(evidence))
        parts += [
            f"<h2>{interpolation.TITLE}</h2>",
            _figure(chart, lines, interpolation.interpolation_caption(report)),
            interpolation.interpolation_html(report),
        ]
    if methods.shown_methods(evidence):
        parts += [
            "<h2>Other methods</h2>",
            _figure(
                methods.methods_chart(evidence, methods.near_set(report), methods.first_methods(evidence)),
                lines,
                methods.methods_caption(evidence),
            ),
            _about(methods.methods_table_caption(report)),
            methods.methods_html(evidence),
        ]
    if report.clusters is not None:
        c = report.clusters
        # written as on Pseudo-labels
        accuracy = "" if c.accuracy is None else f"{100 * c.accuracy:.2f}"
        parts_of_1 = ["" if v is None else f"{v:.4f}" for v in (c.nmi, c.ari)]
        header = ["labels from", "clusters", "images", "accuracy, %", "NMI, 0 to 1", "ARI, 0 to 1"]
        row = [c.source, c.n_clusters, c.n, accuracy, *parts_of_1]
        parts += ["<h2>Clusters</h2>", _table(header, [row], text=len(header))]
    if report.frechet:
        rows = [[name, *(getattr(one, key) for key in FRECHET_NAMES)] for name, one in report.frechet.items()]
        parts += ["<h2>Frechet distances</h2>", _table(["distance", *FRECHET_NAMES.values()], rows)]
    return parts


def _paper(state: ScoredSets) -> list[str]:
    if state.bundle.manifest.dataset != PAPER_DATASET:
        return []
    groups = families(all_records()[0])
    own = next((g for g in groups.values() if any(r.hash == state.bundle.hash for r in g)), [])
    if not own:
        return []
    parts = [f'<h2>The paper\'s tables</h2><p class="about">Ours: {html.escape(about_family(own))}</p>']
    for table in paper_tables(own):
        parts.append(f"<p><b>Table {table.number}.</b> {html.escape(table.title)}</p>{paper_html(table)}")
        parts += [f'<p class="about">{html.escape(note)}</p>' for note in table.notes]
    return parts


def _is_built_in(evidence: Evidence, name: str) -> bool:
    """Whether a set is drawn here or comes with scikit-learn, so that the report may have its pictures."""
    ids = evidence.sets[name].ids
    return len(ids) > 0 and all(str(one).split("/")[0] in data.BUILT_IN for one in ids)


def _worst(state: ScoredSets) -> list[str]:
    """The images furthest on the wrong side of the threshold, for each set."""
    parts = ["<h2>Worst failures</h2>"]
    for name, one in state.evidence.sets.items():
        margin = state.column(name, "both") - state.threshold
        wrong = margin > 0 if name == state.id_name else margin <= 0
        size = np.where(wrong, np.abs(margin), -1.0)
        rows = np.argsort(-size, kind="stable")[: min(WORST, int(wrong.sum()))]
        kind = "flagged by mistake" if name == state.id_name else "missed"
        parts.append(
            f"<p><b>{html.escape(state.titles[name])}</b>: {int(wrong.sum()):,} of {len(one):,} {kind}"
            + (f", the worst {counted(len(rows), 'image')}" if len(rows) else "")
            + "</p>"
        )
        if not len(rows):
            continue
        ids = one.ids[rows]
        texts = [
            f"{i}: score {state.column(name, 'both')[r]:.4g}, margin {margin[r]:+.4g}"
            for i, r in zip(ids, rows, strict=True)
        ]
        if not _is_built_in(state.evidence, name):
            items = "".join(f"<li>{html.escape(w)}</li>" for w in texts)
            parts.append(
                f'<p class="about">This set comes from files; its pictures are left out.</p><ul>{items}</ul>'
            )
            continue
        found = state.library.show(ids)
        # a line may end after a slash, never within a number
        figures = [
            f'<figure><img alt="{w}" src="{data_uri(found.images[i])}"><figcaption>'
            f"{html.escape(str(found.class_names[i]))} {w.replace('/', '/<wbr>')}</figcaption></figure>"
            for i, w in enumerate(map(html.escape, texts))
            if found.found[i]
        ]
        parts.append(f'<div class="worst">{"".join(figures)}</div>')
        parts += [f'<p class="about">{html.escape(line)}</p>' for line in found.missing]
    return parts


def _about(text: str) -> str:
    return f'<p class="about">{_italics(text)}</p>'


def _italics(text: str) -> str:
    """Text as HTML; *text between asterisks* becomes italic."""
    return re.sub(r"\*(.+?)\*", r"<i>\1</i>", html.escape(text))


def _figure(chart: Chart, lines: Mapping[str, str], caption: str) -> str:
    """The chart as inline SVG, without metadata, which has links to other sites."""
    svg = chart_file(chart, "svg", lines).decode("utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # its style rules would apply to the whole page
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)
    return f"<figure>{svg}<figcaption>{_italics(caption)}</figcaption></figure>"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]], text: int = 1) -> str:
    """A table of plain values; numbers with decimals get two."""

    def cell(value: object) -> TableCell:
        form = ".2f" if isinstance(value, float) else "," if isinstance(value, int) else ""
        shown = "" if value is None else format(value, form)
        return TableCell(shown, kind="text" if isinstance(value, str) else "")

    return table_html(header, [Row([cell(value) for value in row]) for row in rows], text)
