"""What the views of Results share: the metrics of every set, and tables as CSV."""

from collections.abc import Mapping, Sequence

import streamlit as st

from sdviz.analysis import Evidence
from sdviz.analysis.curves import Results, reported, results_of
from sdviz.analysis.provenance import provenance
from sdviz.analysis.tables import or_none
from sdviz.table_files import csv_text
from sdviz.ui.cache.kept import kept
from sdviz.ui.charts import file_name
from sdviz.ui.scores import ScoredSets
from sdviz.ui.widgets import download

# header and rows
Table = tuple[Sequence[str], Sequence[Sequence[object]]]
MODE_TITLES = {
    "both": "distance + α · votes",
    "distance": "distance only",
    "votes": "votes only",
    "g_bin": "g_bin alone",
}
# resamples for intervals where report.json has none
BOOTSTRAP = 200
NO_DETECTOR = "this bundle has no detector: it scores nothing"


@kept("metrics")
def _measured(state: ScoredSets) -> Results:
    return results_of(state.evidence, state.scores, BOOTSTRAP)


def find_results(state: ScoredSets) -> Results:
    """The metrics of every set: from report.json under the bundle's own settings, else computed."""
    if state.settings.is_own:
        if (found := or_none(lambda: reported(state.evidence))) is not None:
            return found
    return _measured(state)


def report_provenance(evidence: Evidence) -> dict[str, str]:
    """Where the numbers of report.json come from, with the bundle's own k and alpha. Raises MissingPart."""
    score = evidence.report.score
    return provenance(evidence.bundle, k=score.k, alpha=f"{score.alpha:g}")


def offer_table(title: str, table: Table, lines: Mapping[str, str], *, key: str, label: str = "CSV") -> None:
    """A button that gives the table as CSV."""
    download(label, lambda: csv_text(*table, lines, title), f"{file_name(title)}.csv", key=key)


def caption_with_table(caption: str, title: str, table: Table, lines: Mapping[str, str], *, key: str) -> None:
    """The caption of a table, beside `offer_table`."""
    columns = st.columns([5, 1.2], vertical_alignment="center")
    columns[0].caption(caption)
    with columns[1]:
        offer_table(title, table, lines, key=key)
