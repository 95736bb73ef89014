"""Results: every metric of every set, and the controls beside the method."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import streamlit as st

from sdviz.analysis import Evidence
from sdviz.analysis.curves import MODES, Results
from sdviz.analysis.provenance import provenance
from sdviz.evaluation import Report
from sdviz.evaluation.tables import CONTROL_NAMES, METRIC_NAMES, MODE_NAMES
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.charts.parts import Heat
from sdviz.ui.results.html_tables import TABLE_CSS, Cell, Row, between, percent, short_role, table_html
from sdviz.ui.results.state import MODE_TITLES, ResultsState, find_results, offer_table
from sdviz.ui.theme import ROLE_NAMES, set_name

HEADER = ["set", "role", "images", "score by", "AUROC", "from", "to", *list(METRIC_NAMES.values())[1:]]


def metric_rows(results: Results) -> list[list[object]]:
    """One row for each set and mode, then the means of each role; shares in %, None where there is none."""
    rows: list[list[object]] = []
    for role, modes in results.means.items():
        of_role = {name: one for name, one in results.results.items() if one.role == role}
        for name, one in of_role.items():
            for mode in MODES:
                if mode not in one.modes:
                    continue
                m = one.modes[mode]
                low, high = (None, None) if m.auroc_interval is None else m.auroc_interval
                rows.append(
                    [
                        name,
                        ROLE_NAMES[role],
                        one.n,
                        MODE_TITLES[mode],
                        *(None if v is None else 100 * v for v in (m.auroc, low, high)),
                        *(100 * getattr(m, key) for key in list(METRIC_NAMES)[1:]),
                    ]
                )
        for mode in MODES:
            if mode in modes:
                mean = modes[mode]
                rest = [100 * getattr(mean, key) for key in list(METRIC_NAMES)[1:]]
                rows.append(
                    [
                        f"mean of {mean.n_sets}",
                        ROLE_NAMES[role],
                        None,
                        MODE_TITLES[mode],
                        100 * mean.auroc,
                        None,
                        None,
                        *rest,
                    ]
                )
    return rows


def metrics_html(results: Results, titles: Mapping[str, str], colours: Mapping[str, str]) -> str:
    """The same as a table to look at, a part for each role."""
    keys = list(METRIC_NAMES)
    rows: list[Row] = []
    for role, means in results.means.items():
        rows.append(Row([ROLE_NAMES[role]], "group"))
        of_role = {name: one for name, one in results.results.items() if one.role == role}
        for name, one in of_role.items():
            modes = [mode for mode in MODES if mode in one.modes]
            for mode in modes:
                m = one.modes[mode]
                first = mode == modes[0]
                rows.append(
                    Row(
                        [
                            Cell(set_name(name), colour=colours.get(name, "")) if first else "",
                            MODE_NAMES[mode],
                            f"{one.n:,}" if first else "",
                            Cell(percent(m.auroc), between(m.auroc_interval)),
                            *(percent(getattr(m, key)) for key in keys[1:]),
                        ]
                    )
                )
        for mode in MODES:
            if mode in means and len(of_role) > 1:
                name = f"mean of {means[mode].n_sets} sets" if mode == "both" else ""
                values = [percent(getattr(means[mode], key)) for key in keys]
                rows.append(Row([name, MODE_NAMES[mode], "", *values], "strong"))
    header = ["set", "score by", "images", "AUROC, 95 % interval", *list(METRIC_NAMES.values())[1:]]
    return table_html(header, rows, text=2)


def _of_role(role: str, n: int) -> str:
    return f"{'mean AUROC' if n > 1 else 'AUROC'}, {short_role(role)}"


def _of_sets(n: int) -> str:
    return f"The mean of {n} sets, each counting the same." if n > 1 else "Of the one set of this kind."


def metrics_caption(results: Results) -> str:
    """What the table of metrics is, and how its columns differ."""
    source = (
        "from report.json, measured when the bundle was made"
        if results.from_report
        else "computed now for these settings"
    )
    return (
        f"All in %, {source}; below AUROC stands its 95 % bootstrap interval over images "
        f"({results.n_bootstrap:,} resamples). The two FPR95 differ: the first is the share of OOD that is "
        "accepted where 95 % of ID are, the second the share of ID that is flagged where 95 % of OOD are. "
        "Means count every set the same. Settings may be chosen on the validation set only."
    )


def show_metrics(state: ResultsState) -> None:
    """Near and far at a glance, then the whole table."""
    results = find_results(state)
    if not results.results:
        st.info("This bundle measured no OOD set.")
        return
    tiles = [
        (_of_role(role, modes["both"].n_sets), modes["both"].auroc, modes["both"].n_sets)
        for role, modes in results.means.items()
    ]
    for column, (label, value, n) in zip(st.columns(max(4, len(tiles))), tiles, strict=False):
        column.metric(label, f"{100 * value:.2f} %", help=_of_sets(n))
    rows = metric_rows(results)
    st.html(TABLE_CSS + metrics_html(results, state.titles, state.colours))
    columns = st.columns([5, 1.2], vertical_alignment="center")
    columns[0].caption(metrics_caption(results))
    with columns[1]:
        offer_table("Metrics", HEADER, rows, state.lines, key="results_metrics_csv")


# --------------------------------------------------------------------------------------------------
# Controls
# --------------------------------------------------------------------------------------------------

CONTROL_HEADER = [
    "set",
    "role",
    "score by",
    "control",
    "SD outliers",
    "the control",
    "difference",
    "from",
    "to",
]
_WHAT = {
    "no_training": "features of the encoder as they are, without detector training",
    "right_label": "outliers that were denoised under the right label",
    "noise": "images with noise of the same σ in the place of outliers",
    "right_label_as_id": "half of the ID images shown as the U-Net rebuilds them under the right label",
    "lambda_zero": "outliers teach g_bin only, not the heads for clusters (λ = 0)",
}


def control_rows(evidence: Evidence) -> list[list[object]]:
    """One row for each set, mode and control, AUROC in %, differences in points.

    Raises:
        MissingPart: No report.
    """
    report = evidence.report
    rows: list[list[object]] = []
    for name, result in report.results.items():
        for mode in MODES:
            for control, one in report.controls.items():
                found = one.differences.get(name, {}).get(mode)
                if found is None or mode not in result.modes:
                    continue
                low, high = (None, None) if found.interval is None else found.interval
                values = (
                    result.modes[mode].auroc,
                    one.results[name].modes[mode].auroc,
                    found.auroc,
                    low,
                    high,
                )
                rows.append(
                    [
                        name,
                        ROLE_NAMES[result.role],
                        MODE_TITLES[mode],
                        CONTROL_NAMES.get(control, control),
                        *(None if v is None else 100 * v for v in values),
                    ]
                )
    return rows


def controls_html(evidence: Evidence, mode: str) -> str:
    """The same by one mode to look at: the method's AUROC and each control's, the difference below."""
    report = evidence.report
    controls = list(report.controls)
    rows = []
    for name, result in report.results.items():
        if mode not in result.modes:
            continue
        head = Cell(set_name(name), short_role(result.role))
        cells: list[Cell | str] = [head, percent(result.modes[mode].auroc)]
        for control in controls:
            one = report.controls[control]
            found = one.differences.get(name, {}).get(mode)
            if found is None:
                cells.append("")
                continue
            interval = between(found.interval, sign=True)
            ahead = percent(found.auroc, sign=True) + (f" ({interval})" if interval else "")
            cells.append(Cell(percent(one.results[name].modes[mode].auroc), ahead))
        rows.append(Row(cells))
    return table_html(["set", "SD outliers", *(CONTROL_NAMES.get(c, c) for c in controls)], rows)


def control_chart(evidence: Evidence, mode: str = "both") -> Chart:
    """The method's AUROC minus each control's, points, set by set."""
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
    """What the map of differences is, and what each control is; names in *italics*."""
    kinds = "; ".join(f"*{CONTROL_NAMES[c]}*: {_WHAT[c]}" for c in report.controls if c in _WHAT)
    return (
        "How many points of AUROC the SD outliers are ahead of each control on the same images; below 0 the "
        f"control is better. {kinds}."
    )


def controls_table_caption(report: Report) -> str:
    """What the table of controls is."""
    return (
        f"AUROC in %, from report.json with the bundle's own k = {report.score.k}, α = {report.score.alpha:g}; "
        "below each control how many points the SD outliers are ahead, with the paired 95 % bootstrap interval "
        f"({report.bootstrap.n:,} resamples): "
        "where it holds 0, these images do not tell the two apart."
    )


def show_controls(evidence: Evidence) -> None:
    """What stands beside the method: the same scores without what it claims to be the cause."""
    report = evidence.report
    if not report.controls:
        with st.container(border=True):
            st.markdown("**This bundle was measured without controls.**")
            st.markdown(
                "Here you would see what the same scores reach without detector training, with outliers "
                "under the "
                "right label, and with noise alone. Name them under `evaluation.controls` in the "
                "configuration of a run."
            )
        return
    score = report.score
    lines = provenance(evidence.bundle, k=score.k, alpha=f"{score.alpha:g}")
    words = [MODE_TITLES[mode] for mode in MODES if any(mode in one.modes for one in report.results.values())]
    chosen = st.segmented_control(
        "Score by",
        words,
        default=words[0],
        required=True,
        key="results_control_mode",
        bind="query-params",
        persist_state="session",
    )
    mode = next(m for m, word in MODE_TITLES.items() if word == chosen)
    show_chart(
        control_chart(evidence, mode),
        lines,
        key="results_controls",
        caption=controls_caption(report),
    )
    st.html(TABLE_CSS + controls_html(evidence, mode))
    columns = st.columns([5, 1.2], vertical_alignment="center")
    columns[0].caption(
        controls_table_caption(report),
    )
    with columns[1]:
        offer_table("Controls", CONTROL_HEADER, control_rows(evidence), lines, key="results_controls_table_csv")
