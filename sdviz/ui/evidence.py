"""What the pages keep of a bundle's evidence: tables, pictures, scores under other settings."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from sdviz.bundle import Bundle
from sdviz.evaluation import OODReference, ood_reference
from sdviz.evidence import Evidence, MissingPart, PictureLibrary
from sdviz.evidence.rescoring import Rescorer, SetScores, rescorer, stored_scores
from sdviz.evidence.tables import HOW_TO_MAKE
from sdviz.ui.cache import DEVICE_LOCK
from sdviz.ui.shared import ScoreSettings


@st.cache_resource(max_entries=2, show_spinner=False)
def _open(bundle_hash: str, path: str, _bundle: Bundle) -> tuple[Evidence, PictureLibrary]:
    evidence = Evidence(_bundle)
    return evidence, PictureLibrary(evidence)


def open_evidence(bundle: Bundle) -> tuple[Evidence, PictureLibrary]:
    """The tables and the pictures of a bundle, kept for everybody; two bundles at a time."""
    return _open(bundle.hash, str(bundle.path), bundle)


@st.cache_resource(max_entries=4, show_spinner=False)
def _rescorer(bundle_hash: str, normalize: bool, _evidence: Evidence) -> Rescorer:
    place = st.empty()
    what = "Searching the neighbours of every scored image, once for these settings"

    def on_progress(done: float) -> None:
        place.progress(done, what)

    with DEVICE_LOCK:
        found = rescorer(_evidence, normalize, on_progress)
    place.empty()
    return found


def set_scores(evidence: Evidence, settings: ScoreSettings) -> dict[str, SetScores]:
    """Eq. 6 of every scored set under these settings; the bundle's own need no search.

    Raises:
        MissingPart: A bundle without scores, or without what other settings need.
    """
    if settings.is_own:
        return stored_scores(evidence)
    return find_rescorer(evidence, settings.normalize).scores(settings.k, settings.alpha)


def find_rescorer(evidence: Evidence, normalize: bool) -> Rescorer:
    """The neighbours of every scored image, searched once for each normalisation, seconds the first time.

    Raises:
        MissingPart: A bundle without what that needs.
    """
    return _rescorer(evidence.bundle.hash, normalize, evidence)


def id_reference(evidence: Evidence, scores: Mapping[str, SetScores]) -> OODReference:
    """The held-out ID scores in order and the threshold at 95 % ID recall, under the settings of `scores`."""
    return ood_reference(scores[evidence.id_set.name].total)


def show_missing_part(error: MissingPart | str, what: str) -> None:
    """The empty state of a part that this bundle lacks: what would be here, and the command that makes it.

    Args:
        error: What is missing.
        what: What would be here, as the end of "Here you would see ...".
    """
    with st.container(border=True):
        text = str(error)
        st.markdown(f"**{text[:1].upper()}{text[1:]}.**")
        st.markdown(
            f"Here you would see {what}. A run that goes through to its end leaves a bundle with everything. "
            "The small one takes minutes on two CPU cores; the page **Training** starts it as well:"
        )
        st.code(HOW_TO_MAKE, language="bash")
