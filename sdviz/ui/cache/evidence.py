"""A bundle's tables and pictures, and its scores under other settings."""

from collections.abc import Mapping

import streamlit as st

from sdviz.analysis import Evidence, PictureLibrary
from sdviz.analysis.rescoring import Rescorer, SetScores, rescorer, stored_scores
from sdviz.bundle import Bundle
from sdviz.bundle.threshold import reference_of
from sdviz.evaluation import OODReference
from sdviz.ui.cache.background import DEVICE_LOCK, Task, let_others_compute, start
from sdviz.ui.cache.kept import kept
from sdviz.ui.session import ScoreChoice

# A search that nobody waits for begins late: the page that is being opened needs the processor
_BEGINS_AFTER_SEC = 3.0
SEARCHING = "Searching the neighbours of every scored image, once for these settings"


@kept("evidence")
def open_evidence(bundle: Bundle) -> tuple[Evidence, PictureLibrary]:
    """Opens the tables and the pictures of a bundle."""
    evidence = Evidence(bundle)
    return evidence, PictureLibrary(evidence)


@kept("search")
def start_search(evidence: Evidence, normalize: bool) -> Task[Rescorer]:
    """Starts the search of `find_rescorer`. Its task raises MissingPart."""

    def search(task: Task[Rescorer]) -> Rescorer:
        def on_progress(share: float) -> None:
            let_others_compute()
            task.report(share)

        task.pause(_BEGINS_AFTER_SEC)
        task.report(0.0)
        with DEVICE_LOCK:
            return rescorer(evidence, normalize, on_progress)

    return start("search", search, evidence.bundle.hash)


def needs_search(evidence: Evidence, settings: ScoreChoice) -> bool:
    """Tells whether `set_scores` needs a search: only for another k or normalisation."""
    own = evidence.bundle.manifest.score
    return own is None or (settings.k, settings.normalize) != (own.k, own.normalize)


def set_scores(evidence: Evidence, settings: ScoreChoice) -> dict[str, SetScores]:
    """Returns Eq. 6 of every set, after a search for another k or normalisation. Raises MissingPart."""
    if settings.is_own:
        return stored_scores(evidence)
    if not needs_search(evidence, settings):
        # distances and votes do not depend on alpha
        return {
            name: SetScores(one.distance, one.votes, one.distance + settings.alpha * one.votes)
            for name, one in evidence.shown_sets.items()
        }
    return find_rescorer(evidence, settings.normalize).scores(settings.k, settings.alpha)


def find_rescorer(evidence: Evidence, normalize: bool) -> Rescorer:
    """Finds the neighbours of every scored image once, in seconds. Raises MissingPart."""
    search = start_search(evidence, normalize)
    if not search.wait(0.1):
        place = st.empty()
        while not search.wait(0.2):
            place.progress(search.share, SEARCHING)
        place.empty()
    return search.result()


def id_reference(evidence: Evidence, settings: ScoreChoice, scores: Mapping[str, SetScores]) -> OODReference:
    """Returns the held-out ID scores in order and the threshold that pages start with, from `scores`."""
    return reference_of(evidence.bundle, scores[evidence.id_set.name].total, settings.is_own)
