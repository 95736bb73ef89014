"""Scores and threshold of all scored sets of a bundle under the settings in use."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sdviz.analysis import Evidence, MissingPart, PictureLibrary
from sdviz.analysis.provenance import provenance
from sdviz.analysis.rescoring import SetScores, stored_scores
from sdviz.evaluation import OODReference
from sdviz.evaluation.sets import outlier_log_odds
from sdviz.ui.cache.evidence import id_reference, needs_search, set_scores, start_search
from sdviz.ui.library import BundleView
from sdviz.ui.session import ScoreChoice, has_own_threshold, score_settings, threshold

# a wait too short to notice
AT_ONCE_SEC = 0.1


@dataclass(frozen=True, eq=False)
class ScoredSets(BundleView):
    """A bundle with the scores of all its sets under the settings in use."""

    settings: ScoreChoice
    scores: dict[str, SetScores]  # Eq. 6 of each set
    reference: OODReference  # the held-out ID scores in order, and the threshold that pages start with
    threshold: float  # in use; a higher score is called OOD

    @property
    def id_name(self) -> str:
        """The name of the set of held-out ID images."""
        return self.evidence.id_set.name

    @cached_property
    def provenance(self) -> dict[str, str]:
        """The lines that say where the numbers come from."""
        s = self.settings
        return provenance(self.bundle, k=s.k, alpha=f"{s.alpha:g}", features=s.features)

    def column(self, name: str, mode: str) -> np.ndarray:
        """Returns a set's scores, float64 (N,). `mode`: "both", "distance", "votes" or "g_bin"."""
        if mode == "g_bin":
            return outlier_log_odds(self.evidence.shown_sets[name].heads["g_bin"])
        return np.asarray(getattr(self.scores[name], "total" if mode == "both" else mode), np.float64)


def scored_sets(evidence: Evidence, library: PictureLibrary, why_not: str) -> ScoredSets:
    """Scores all sets, after a search if needed. Raises MissingPart, without a detector with `why_not`."""
    settings = score_settings(evidence)
    if settings is None:
        raise MissingPart(why_not)
    scores = set_scores(evidence, settings)
    reference = id_reference(evidence, settings, scores)
    return ScoredSets(evidence, library, settings, scores, reference, threshold(reference.threshold))


@dataclass(frozen=True, eq=False)
class SetsNow:
    """What is known about the scored sets now."""

    scores: dict[str, SetScores] | None  # Eq. 6 of each set; None during a search or after a problem
    problem: str  # why they cannot be known, else ""
    to_order_by: dict[str, SetScores]  # these scores, else the bundle's own, else none
    threshold: float | None  # the person's, else the one that pages start with; None without scores
    threshold_means: str = ""  # as "that 95 % of held-out ID images pass"


def sets_now(evidence: Evidence, settings: ScoreChoice) -> SetsNow:
    """Returns Eq. 6 of all scored sets, if it is known without a wait."""
    try:
        own = stored_scores(evidence)
    except MissingPart as error:
        return SetsNow(None, str(error), {}, None)
    try:
        needs = needs_search(evidence, settings)
        if needs and not start_search(evidence, settings.normalize).wait(AT_ONCE_SEC):
            return SetsNow(None, "", own, None)
        scores = set_scores(evidence, settings)
        reference = id_reference(evidence, settings, scores)
        means = "that the bundle keeps"
        if not has_own_threshold():
            means = "that was set by hand"
        elif reference.id_recall is not None:
            means = f"that {reference.id_recall:g} % of held-out ID images pass"
        return SetsNow(scores, "", scores, threshold(reference.threshold), means)
    except (MissingPart, ValueError) as error:
        return SetsNow(None, str(error), own, None)
