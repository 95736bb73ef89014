"""The page Sample votes: one image, its neighbours, and the score that they make."""

import streamlit as st

from sdviz.bundle import Bundle
from sdviz.ui.cache.evidence import open_evidence, start_search
from sdviz.ui.missing import show_missing_part
from sdviz.ui.sample_votes.choose import choose_sample
from sdviz.ui.sample_votes.outlier import show_outlier
from sdviz.ui.sample_votes.parts import show_heads, show_neighbours, show_place, show_verdict
from sdviz.ui.sample_votes.state import PAGE, sample_view
from sdviz.ui.scores import sets_now
from sdviz.ui.session import score_controls, score_settings

SHOWS = "one image, its neighbours among training images and outliers, and the score that they make"


def show_sample_votes(bundle: Bundle) -> None:
    """Draws the page below its title."""
    if bundle.detector is None or bundle.manifest.score is None:
        show_missing_part("this bundle has no detector, so it scores no image", SHOWS)
        return
    _page(bundle)


@st.fragment
def _page(bundle: Bundle) -> None:
    evidence, library = open_evidence(bundle)
    settings = score_settings(evidence)
    assert settings is not None
    now = sets_now(evidence, settings)
    sample, uploads = choose_sample(evidence, library, now)
    score_controls(evidence, PAGE)
    if sample is None:
        show_missing_part("this bundle has neither scores nor banks of features", SHOWS)
        return
    view = sample_view(evidence, library, settings, sample, uploads)
    show_verdict(view, now)
    show_neighbours(view)
    left, right = st.columns(2, gap="large")
    with left:
        show_heads(view)
    with right:
        show_place(view)
    show_outlier(view, now.threshold)
    if view.banks is not None:
        # so that another k moves the verdict at once
        start_search(evidence, settings.normalize)
        start_search(evidence, not settings.normalize)
