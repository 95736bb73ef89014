"""The page Results; only the chosen view is computed."""

from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from sdviz.analysis import Evidence, MissingPart
from sdviz.bundle import Bundle
from sdviz.ui.cache.evidence import open_evidence
from sdviz.ui.missing import show_missing_part
from sdviz.ui.results.compare import show_compare
from sdviz.ui.results.curves import show_histogram, show_precision_recall, show_roc
from sdviz.ui.results.interpolation import show_interpolation
from sdviz.ui.results.maps import show_k_alpha, show_recipe_map
from sdviz.ui.results.methods import show_methods
from sdviz.ui.results.metric_tables import show_controls, show_metrics
from sdviz.ui.results.paper import show_paper
from sdviz.ui.results.report import show_report
from sdviz.ui.results.state import NO_DETECTOR
from sdviz.ui.scores import ScoredSets, scored_sets
from sdviz.ui.session import score_controls
from sdviz.ui.widgets import choose_one

HISTOGRAM, ROC, PRECISION, METRICS = "Histogram", "ROC", "Precision-recall", "Metrics"
CONTROLS, METHODS = "Controls", "Methods"
K_ALPHA, RECIPES, PAPER, COMPARE, REPORT = "k x α", "S x w", "Paper's tables", "Compare", "Report"
VIEWS = (HISTOGRAM, ROC, PRECISION, METRICS, CONTROLS, METHODS, K_ALPHA, RECIPES, PAPER, COMPARE, REPORT)
VIEW_KEY = "results_view"
SHOWS = "how far the scores of ID and OOD images lie apart, with a threshold to drag, ROC curves and metrics"

_OF_SCORES: dict[str, Callable[[ScoredSets], None]] = {
    HISTOGRAM: show_histogram,
    ROC: show_roc,
    PRECISION: show_precision_recall,
    METRICS: show_metrics,
    REPORT: show_report,
}
_OF_EVIDENCE: dict[str, Callable[[Evidence], None]] = {
    CONTROLS: show_controls,
    METHODS: show_methods,
    K_ALPHA: show_k_alpha,
}
_OF_BUNDLES: dict[str, Callable[[Bundle], None]] = {
    RECIPES: show_recipe_map,
    PAPER: show_paper,
    COMPARE: show_compare,
}


@st.fragment
def show_results(bundle: Bundle) -> None:
    """Draws the page below its title."""
    evidence, library = open_evidence(bundle)
    view = choose_one("View", VIEWS, VIEW_KEY, label_visibility="collapsed")
    try:
        if view in _OF_SCORES:
            if view != REPORT:
                score_controls(evidence, "results")
            shown = scored_sets(evidence, library, NO_DETECTOR)
            # generated images are not among those that the bundle was measured on
            _OF_SCORES[view](replace(shown, scores={name: shown.scores[name] for name in evidence.sets}))
        elif view in _OF_EVIDENCE:
            _OF_EVIDENCE[view](evidence)
            if view == CONTROLS:
                show_interpolation(evidence)
        else:
            _OF_BUNDLES[view](bundle)
    except MissingPart as error:
        show_missing_part(error, SHOWS)
