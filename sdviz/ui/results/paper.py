"""Results: the paper's Tables 1 to 4, with our figure next to the paper's where one was measured."""

from collections.abc import Mapping, Sequence

import streamlit as st

from sdviz.analysis.paper_report import system_name
from sdviz.analysis.paper_tables import PAPER_DATASET, SD_TEST, Ours, PaperTable, other_sets, paper_tables
from sdviz.analysis.records import BundleRecord, once_each
from sdviz.bundle import Bundle
from sdviz.ui.results.html_tables import Row, TableCell, show_table, table_html
from sdviz.ui.results.records import all_records, families, many_lines
from sdviz.ui.results.state import Table, offer_table
from sdviz.ui.text import counted, plain
from sdviz.ui.theme import set_name
from sdviz.ui.widgets import select_one

# by set, then by the S and w of training
Others = dict[str, dict[tuple[int, float], Ours]]


def _show(name: str, title: str, table: Table, as_html: str, lines: Mapping[str, str], *, key: str) -> None:
    """Shows a table with its title and, at the right, the button that gives it as CSV."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.markdown(title, width="stretch")
        offer_table(name, table, lines, key=key)
    show_table(as_html, wide=True)


def ours_text(ours: Ours) -> tuple[str, str]:
    """A figure of ours as text, and the runs, interval and images behind it."""
    text = f"{ours.mean:.2f}" + (f" ± {ours.sd:.2f}" if ours.sd is not None else "")
    small = [counted(ours.n_bundles, "run")] if ours.n_bundles > 1 else []
    if ours.interval is not None:
        small.append(f"{ours.interval[0]:.1f} to {ours.interval[1]:.1f}")
    if ours.n_images:
        part = f" of {ours.whole:,}" if ours.n_images < ours.whole else ""
        small.append(f"{ours.n_images:,}{part} images")
    return text, ", ".join(small)


def paper_html(table: PaperTable) -> str:
    """A table as HTML, with the paper's figure and ours in two columns; empty where nothing was measured."""
    rows = []
    for row in table.rows:
        cells: list[TableCell | str] = [row]
        digits = 2 if row.startswith("FID") else 1
        for column in table.columns:
            value, ours = table.paper.get((row, column)), table.ours.get((row, column))
            text, small = ours_text(ours) if ours is not None else ("", "")
            cells += ["" if value is None else f"{value:.{digits}f}", TableCell(text, small, kind="ours")]
        rows.append(Row(cells))
    return table_html(["", *["paper", "ours"] * len(table.columns)], rows, over=table.columns)


def file_table(table: PaperTable) -> Table:
    """The table for a file."""
    rows: list[list[object]] = []
    for row in table.rows:
        for column in table.columns:
            ours = table.ours.get((row, column))
            values: list[object] = ["", "", "", ""]
            if ours is not None:
                values = [ours.mean, "" if ours.sd is None else ours.sd, ours.n_bundles, ours.n_images]
            rows.append([row, column, table.paper.get((row, column), ""), *values])
    return ["row", "column", "paper", "ours", "ours_sd", "ours_runs", "ours_images"], rows


def about_family(records: Sequence[BundleRecord]) -> str:
    """How the bundles of a family were made, in one line."""
    limit = ((records[0].manifest.config or {}).get("data") or {}).get("limit")
    score = records[0].manifest.score
    recipes = sorted({one.recipe for one in records if one.recipe is not None})
    parts = [
        f"detector from {system_name(records[0])}",
        f"S, w = {'; '.join(f'{s}, {w:g}' for s, w in recipes)}",
        f"k = {score.k}, α = {score.alpha:g}" if score else "no detector",
    ]
    if limit:
        parts.append(f"{limit:,} training images")
    return ", ".join(parts) + f" ({counted(len(records), 'bundle')})"


def family_names(groups: Sequence[Sequence[BundleRecord]]) -> list[str]:
    """A line for each family; equal lines get the names of their bundles."""
    lines = [about_family(group) for group in groups]
    return [
        f"{line}: {', '.join(one.name for one in group)}" if lines.count(line) > 1 else line
        for line, group in zip(lines, groups, strict=True)
    ]


def show_paper(bundle: Bundle) -> None:
    """The four tables."""
    records, problems = all_records()
    fit = [one for one in records if one.manifest.dataset == PAPER_DATASET and one.report is not None]
    groups = list(families(fit).values())
    chosen: list[BundleRecord] = []
    if groups:
        names = family_names([once_each(group) for group in groups])
        own = next((i for i, group in enumerate(groups) if any(r.hash == bundle.hash for r in group)), 0)
        label = "Ours: bundles that differ in S, w and seeds only"
        name = select_one(label, names, "results_family", index=own)
        chosen = once_each(groups[names.index(name)])
    else:
        st.info(
            f"No bundle on this machine was trained on `{PAPER_DATASET}` and measured: the paper's figures "
            "stand alone, and ours stay empty. `python -m sdviz run configs/cifar10.yaml` makes one."
        )
    st.caption(
        "Yoon et al.; ID is CIFAR-10, AUROC in %. A figure of ours is in a row of the paper's only if network, "
        "S and w are those of the row, and in a column only if the set has the column's name. Other networks "
        "have rows of their own, *network of ours*. Training budgets may differ. The paper's LSUN column mixes "
        "two variants: no set here is the same. Ours: mean ± standard deviation over runs, or the 95 % "
        "interval over images of one run."
    )
    lines = many_lines(chosen) or {"source": "Yoon et al., Tables 1 to 4"}
    for table in paper_tables(chosen):
        name, key = f"Table {table.number}", f"results_paper_{table.number}"
        _show(name, f"**{name}.** {table.title}", file_table(table), paper_html(table), lines, key=key)
        for note in table.notes:
            st.caption(note)
    if others := other_sets(chosen):
        name = "Measured here on sets that the paper has not"
        title = f"**{name}**, under their own names: AUROC in %, by the S and w of training"
        _show(name, title, others_table(others), others_html(others), lines, key="results_paper_others")
    for line in problems:
        st.caption(f"Not read: {plain(line)}")


def others_html(others: Others) -> str:
    """A row for each set, a column for each S and w; ± is over runs."""
    recipes = sorted({recipe for by_recipe in others.values() for recipe in by_recipe})
    rows = []
    for name, by in others.items():
        cells = [TableCell(*ours_text(by[one])) if one in by else "" for one in recipes]
        rows.append(Row([name.replace(SD_TEST, set_name(SD_TEST)), *cells]))
    return table_html(["set", *(f"S = {s}, w = {w:g}" for s, w in recipes)], rows)


def others_table(others: Others) -> Table:
    """The figures of `others_html` for a file."""
    rows: list[list[object]] = [
        [name, s, w, ours.mean, "" if ours.sd is None else ours.sd, ours.n_bundles, ours.n_images]
        for name, by_recipe in others.items()
        for (s, w), ours in by_recipe.items()
    ]
    return ["set", "S", "w", "ours", "ours_sd", "ours_runs", "ours_images"], rows
