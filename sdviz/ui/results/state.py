"""What the views of Results share: scores under the settings in force, their threshold, names and colours."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from sdviz.analysis import Evidence
from sdviz.analysis.curves import Results, reported, results_of
from sdviz.analysis.provenance import provenance
from sdviz.analysis.rescoring import SetScores
from sdviz.analysis.tables import MissingPart
from sdviz.evaluation import OODReference
from sdviz.ui.cache.evidence import id_reference, set_scores
from sdviz.ui.charts import file_name
from sdviz.ui.session import ScoreSettings, threshold
from sdviz.ui.theme import set_colours, set_titles

MODE_TITLES = {"both": "distance + α · votes", "distance": "distance only", "votes": "votes only"}
# intervals under settings that no report was made with
BOOTSTRAP = 200


@dataclass(frozen=True, eq=False)
class ResultsState:
    """Scores as the person has set them.

    Attributes:
        evidence: Of the bundle in use.
        settings: k, alpha, normalisation.
        scores: Eq. 6 of every set.
        id_name: The held-out ID images.
        reference: Their scores in order, and the threshold at 95 % ID recall.
        t: The threshold in force; above is called OOD.
        titles: What each set is called.
        colours: Of each set.
        lines: Where the numbers come from.
    """

    evidence: Evidence
    settings: ScoreSettings
    scores: dict[str, SetScores]
    id_name: str
    reference: OODReference
    t: float
    titles: dict[str, str]
    colours: dict[str, str]
    lines: dict[str, str]

    @property
    def ood_names(self) -> list[str]:
        """The OOD sets, in the order of the scores."""
        return list(self.evidence.ood_sets)

    def column(self, name: str, mode: str) -> np.ndarray:
        """One set's scores by "both", "distance" or "votes", float64 (N,)."""
        one = self.scores[name]
        return np.asarray({"both": one.total, "distance": one.distance, "votes": one.votes}[mode], np.float64)


def results_state(evidence: Evidence, settings: ScoreSettings) -> ResultsState:
    """Scores everything, from a search that is done once for each normalisation.

    Raises:
        MissingPart: The bundle lacks what that needs.
    """
    id_name = evidence.id_set.name
    scores = set_scores(evidence, settings)
    reference = id_reference(evidence, scores)
    lines = provenance(evidence.bundle, k=settings.k, alpha=f"{settings.alpha:g}", features=_features(settings))
    return ResultsState(
        evidence,
        settings,
        scores,
        id_name,
        reference,
        threshold(reference.threshold),
        set_titles(evidence),
        set_colours(evidence),
        lines,
    )


def _features(settings: ScoreSettings) -> str:
    return "of unit length" if settings.normalize else "as they are"


@st.cache_data(max_entries=32, show_spinner="Measuring every set, with intervals ...")
def _measured(bundle_hash: str, k: int, alpha: float, normalize: bool, _state: ResultsState) -> Results:
    return results_of(_state.evidence, _state.scores, BOOTSTRAP)


def find_results(state: ResultsState) -> Results:
    """Every metric: report.json's own under the bundle's settings, else computed once and kept."""
    if state.settings.is_own:
        try:
            return reported(state.evidence)
        except MissingPart:
            pass
    s = state.settings
    return _measured(state.evidence.bundle.hash, s.k, s.alpha, s.normalize, state)


def table_csv(
    title: str, header: Sequence[str], rows: Sequence[Sequence[object]], lines: Mapping[str, str]
) -> str:
    """A table as CSV; the lines at the top that begin with # say where it comes from."""
    stream = io.StringIO(newline="")
    stream.write(f"# {title}\n")
    for key, value in lines.items():
        stream.write(f"# {key}: {value}\n")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def offer_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    lines: Mapping[str, str],
    *,
    key: str,
    label: str = "CSV",
) -> None:
    """A button with the table as CSV."""
    st.download_button(
        label,
        lambda: table_csv(title, header, rows, lines),
        f"{file_name(title)}.csv",
        "text/csv",
        key=key,
        on_click="ignore",
        icon=":material/download:",
    )
