"""Results: the score with encoders between the one before training and the trained one."""

import streamlit as st

from sdviz.analysis import Evidence
from sdviz.evaluation import Report
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.charts.parts import Line, Mark
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
from sdviz.ui.theme import ROLE_NAMES, role_colours, set_name

TITLE = "Between no training and the trained weights"
_X_TITLE = "share a of the trained weights, 0 is no training"


def own_share(evidence: Evidence) -> float:
    """The share of the trained weights in the bundle's detector."""
    found = evidence.bundle.manifest.setting("detector", "interpolation")
    return 1.0 if found is None else float(found)


def interpolation_chart(report: Report, own_share: float) -> Chart:
    """The mean AUROC of each role in % over the share a, with a mark at the detector's own."""
    shares_of = [float(share) for share in report.interpolation]
    colours = role_colours({role: role for role in report.means})
    lines = []
    for role in report.means:
        means = [one.means[role] for one in report.interpolation.values()]
        name = ROLE_NAMES[role] + (f", mean of {means[0].n_sets} sets" if means[0].n_sets > 1 else "")
        aurocs = [100 * one.auroc for one in means]
        lines.append(Line(name, shares_of, aurocs, colours[role], markers=True))
    return Chart(TITLE, _X_TITLE, "AUROC (%)", lines, (Mark(own_share, "this bundle's detector"),), height=320)


def interpolation_caption(report: Report) -> str:
    """The caption of the chart."""
    return (
        "AUROC by distance + α · votes if the encoder has (1 - a) of its weights before training and a of "
        "the trained ones (WiSE-FT). Where the line falls to the right, training forgets more than it "
        "learns. Choose a on the validation set only, as *detector.interpolation* of a run. Below, each set "
        f"with its 95 % bootstrap interval ({report.bootstrap.n:,} resamples)."
    )


def interpolation_table(report: Report) -> Table:
    """A row for each set and share, AUROC in %."""
    rows: list[list[object]] = []
    for name, result in report.results.items():
        for share, one in report.interpolation.items():
            found = one.results[name]
            values = shares(found.auroc, *(found.auroc_interval or (None, None)))
            rows.append([name, ROLE_NAMES[result.role], float(share), *values])
    return ["set", "role", "share of the trained weights", "AUROC", "from", "to"], rows


def interpolation_html(report: Report) -> str:
    """A row for each set and a column for each share."""
    rows = []
    for name, result in report.results.items():
        found = [one.results[name] for one in report.interpolation.values()]
        cells = [TableCell(points(one.auroc), between(one.auroc_interval)) for one in found]
        rows.append(Row([TableCell(set_name(name), short_role(result.role)), *cells]))
    return table_html(["set", *(f"a = {share}" for share in report.interpolation)], rows)


def show_interpolation(evidence: Evidence) -> None:
    """Shows the curve and its table; nothing for a bundle that was measured without."""
    report = evidence.report
    if not report.interpolation or not report.results:
        return
    st.markdown(f"##### {TITLE}")
    chart = interpolation_chart(report, own_share(evidence))
    lines = report_provenance(evidence)
    show_chart(chart, lines, key="results_interpolation", caption=interpolation_caption(report))
    show_table(interpolation_html(report))
    caption, table = "AUROC in %, from report.json.", interpolation_table(report)
    caption_with_table(caption, TITLE, table, lines, key="results_interpolation_table_csv")
