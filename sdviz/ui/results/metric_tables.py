"""Results: every metric of every set, and the controls."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import streamlit as st

from sdviz.analysis import Evidence
from sdviz.analysis.curves import MODES, Results
from sdviz.analysis.tables import or_none
from sdviz.evaluation import Report
from sdviz.evaluation.report import MeanMetrics, ModeMetrics
from sdviz.evaluation.tables import CONTROL_NAMES, METRIC_NAMES, MODE_NAMES, images_line, overlap_line
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.charts.parts import Heat
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
from sdviz.ui.results.state import MODE_TITLES, Table, caption_with_table, find_results, report_provenance
from sdviz.ui.scores import ScoredSets
from sdviz.ui.theme import ROLE_NAMES, set_name
from sdviz.ui.widgets import choose_key, empty_state

KEYS = list(METRIC_NAMES)


@dataclass(frozen=True)
class _Measured:
    """A line of the table: the metrics of a set, or the mean of a role's sets, by one mode."""

    role: str
    set: str  # "" for a mean
    n: int  # images, or sets of a mean
    mode: str
    values: ModeMetrics | MeanMetrics

    @property
    def interval(self) -> tuple[float, float] | None:
        return self.values.auroc_interval if isinstance(self.values, ModeMetrics) else None


def _measured(results: Results) -> Iterator[_Measured]:
    """The lines of the table: for each role its sets by each mode, then the means."""
    for role, means in results.means.items():
        for name, one in results.results.items():
            if one.role == role:
                yield from (_Measured(role, name, one.n, m, one.modes[m]) for m in MODES if m in one.modes)
        yield from (_Measured(role, "", means[m].n_sets, m, means[m]) for m in MODES if m in means)


def metrics_table(results: Results) -> Table:
    """A row for each set and mode, then the means of each role; shares in %, None where there is none."""
    rows: list[list[object]] = [
        [
            one.set or f"mean of {one.n}",
            ROLE_NAMES[one.role],
            one.n if one.set else None,
            MODE_TITLES[one.mode],
            *shares(one.values.auroc, *(one.interval or (None, None))),
            *shares(*(getattr(one.values, key) for key in KEYS[1:])),
        ]
        for one in _measured(results)
    ]
    return ["set", "role", "images", "score by", "AUROC", "from", "to", *list(METRIC_NAMES.values())[1:]], rows


def metrics_html(results: Results, colours: Mapping[str, str]) -> str:
    """The same rows as HTML, a part for each role."""
    rows: list[Row] = []
    role = name = ""
    for one in _measured(results):
        if one.role != role:
            rows.append(Row([ROLE_NAMES[one.role]], "group"))
        rest = [points(getattr(one.values, key)) for key in KEYS[1:]]
        if one.set:
            first = (one.role, one.set) != (role, name)
            cell = TableCell(set_name(one.set), colour=colours.get(one.set, "")) if first else ""
            auroc = TableCell(points(one.values.auroc), between(one.interval))
            rows.append(Row([cell, MODE_NAMES[one.mode], f"{one.n:,}" if first else "", auroc, *rest]))
        elif sum(result.role == one.role for result in results.results.values()) > 1:
            title = f"mean of {one.n} sets" if one.mode == "both" else ""
            rows.append(Row([title, MODE_NAMES[one.mode], "", points(one.values.auroc), *rest], "strong"))
        role, name = one.role, one.set
    header = ["set", "score by", "images", "AUROC, 95 % interval", *list(METRIC_NAMES.values())[1:]]
    return table_html(header, rows, text=2)


def metrics_caption(results: Results, evidence: Evidence) -> str:
    """The caption of the table of metrics: their source, how its columns differ, and what is in two sets."""
    report = or_none(lambda: evidence.report)
    left_out = "" if report is None else " ".join(filter(None, [overlap_line(report), images_line(report)]))
    source = (
        "from report.json, measured when the bundle was made"
        if results.from_report
        else "computed now for these settings"
    )
    return (
        f"All in %, {source}; below AUROC stands its 95 % bootstrap interval over images "
        f"({results.n_bootstrap:,} resamples). The two FPR95 differ: the first is the share of OOD that is "
        "accepted where 95 % of ID are, the second the share of ID that is flagged where 95 % of OOD are. "
        "Means count every set the same. *g_bin alone* is the head that was trained to tell outliers from ID; "
        f"Eq. 6 does not use it. Settings may be chosen on the validation set only. {left_out}"
    ).rstrip()


def show_metrics(state: ScoredSets) -> None:
    """Shows the mean AUROC of each role and the table."""
    results = find_results(state)
    if not results.results:
        st.info("This bundle measured no OOD set.")
        return
    columns = st.columns(max(4, len(results.means)))
    for column, (role, modes) in zip(columns, results.means.items(), strict=False):
        n = modes["both"].n_sets
        title, about = "AUROC", "Of the one set of this kind."
        if n > 1:
            title, about = "mean AUROC", f"The mean of {n} sets, each counting the same."
        column.metric(f"{title}, {short_role(role)}", f"{100 * modes['both'].auroc:.2f} %", help=about)
    show_table(metrics_html(results, state.colours))
    caption, table = metrics_caption(results, state.evidence), metrics_table(results)
    caption_with_table(caption, "Metrics", table, state.provenance, key="results_metrics_csv")


_WHAT_IS = {
    "no_training": "features of the encoder as they are, without detector training",
    "right_label": "outliers that were denoised under the right label",
    "noise": "images with noise of the same σ in the place of outliers",
    "right_label_as_id": "half of the ID images shown as the U-Net rebuilds them under the right label",
    "lambda_zero": "outliers teach g_bin only, not the heads for clusters (λ = 0)",
    "no_outliers": "trained as long, on ID images alone",
}


def controls_table(evidence: Evidence) -> Table:
    """A row for each set, mode and control, AUROC in %. Raises MissingPart: no report."""
    report = evidence.report
    rows: list[list[object]] = []
    for name, result in report.results.items():
        for mode in MODES:
            for control, one in report.controls.items():
                found = one.differences.get(name, {}).get(mode)
                if found is None or mode not in result.modes:
                    continue
                ours, its = result.modes[mode].auroc, one.results[name].modes[mode].auroc
                values = shares(ours, its, found.auroc, *(found.interval or (None, None)))
                title = CONTROL_NAMES.get(control, control)
                rows.append([name, ROLE_NAMES[result.role], MODE_TITLES[mode], title, *values])
    aurocs = ("SD outliers", "the control", "difference", "from", "to")
    return ["set", "role", "score by", "control", *aurocs], rows


def controls_html(evidence: Evidence, mode: str) -> str:
    """The controls by one mode as HTML: the method's AUROC, then each control's with the difference below."""
    report = evidence.report
    controls = list(report.controls)
    rows = []
    for name, result in report.results.items():
        if mode not in result.modes:
            continue
        head = TableCell(set_name(name), short_role(result.role))
        cells: list[TableCell | str] = [head, points(result.modes[mode].auroc)]
        for control in controls:
            one = report.controls[control]
            found = one.differences.get(name, {}).get(mode)
            if found is None:
                cells.append("")
                continue
            interval = between(found.interval, sign=True)
            difference = points(found.auroc, sign=True) + (f" ({interval})" if interval else "")
            cells.append(TableCell(points(one.results[name].modes[mode].auroc), difference))
        rows.append(Row(cells))
    return table_html(["set", "SD outliers", *(CONTROL_NAMES.get(c, c) for c in controls)], rows)


def control_chart(evidence: Evidence, mode: str = "both") -> Chart:
    """The method's AUROC minus each control's, in points, for each set."""
    report = evidence.report
    sets, controls = list(report.results), list(report.controls)
    z = np.full((len(controls), len(sets)), np.nan)
    for i, control in enumerate(controls):
        for j, name in enumerate(sets):
            found = report.controls[control].differences.get(name, {}).get(mode)
            z[i, j] = np.nan if found is None else 100 * found.auroc
    names = [CONTROL_NAMES.get(control, control) for control in controls]
    titles = [set_name(one) for one in sets]
    heat = Heat("points of AUROC", titles, names, z, "+.2f", signed=True, from_top=True)
    return Chart(
        f"SD outliers minus each control, {MODE_TITLES[mode]}",
        "OOD set",
        "control",
        [heat],
        height=110 + 60 * len(names),
    )


def controls_caption(report: Report) -> str:
    """The caption of the map of differences, which says what each control is."""
    kinds = "; ".join(f"*{CONTROL_NAMES[c]}*: {_WHAT_IS[c]}" for c in report.controls if c in _WHAT_IS)
    return (
        "How many points of AUROC the SD outliers are ahead of each control on the same images; below 0 the "
        f"control is better. {kinds}."
    )


def controls_table_caption(report: Report) -> str:
    """The caption of the table of controls."""
    return (
        f"AUROC in %, from report.json with the bundle's own k = {report.score.k}, α = {report.score.alpha:g}; "
        "below each control how many points the SD outliers are ahead, with the paired 95 % bootstrap interval "
        f"({report.bootstrap.n:,} resamples): "
        "where it holds 0, these images do not tell the two apart."
    )


def show_controls(evidence: Evidence) -> None:
    """Shows the controls: the same scores with one ingredient of the method removed."""
    report = evidence.report
    if not report.controls:
        empty_state(
            "This bundle was measured without controls.",
            "Here you would see what the same scores reach without detector training, with outliers under the "
            "right label, and with noise alone. Name them under `evaluation.controls` in the configuration of "
            "a run.",
        )
        return
    lines = report_provenance(evidence)
    modes = [mode for mode in MODES if any(mode in one.modes for one in report.results.values())]
    mode = choose_key("Score by", {mode: MODE_TITLES[mode] for mode in modes}, "results_control_mode")
    show_chart(control_chart(evidence, mode), lines, key="results_controls", caption=controls_caption(report))
    show_table(controls_html(evidence, mode))
    caption = controls_table_caption(report)
    caption_with_table(caption, "Controls", controls_table(evidence), lines, key="results_controls_table_csv")
