"""Scores and threshold of a bundle's sets under the settings in use."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sdviz.analysis import Evidence, MissingPart, PictureLibrary
from sdviz.analysis.provenance import provenance
from sdviz.analysis.rescoring import SetScores, stored_scores
from sdviz.evaluation import OODReference
from sdviz.ui.cache.evidence import id_reference, needs_search, set_scores, start_search
from sdviz.ui.library import BundleView
from sdviz.ui.session import ScoreSettings, score_settings, threshold

# as long as a person does not notice the wait
AT_ONCE_SEC = 0.1


@dataclass(frozen=True, eq=False)
class ScoredSets(BundleView):
    """A bundle with every scored set under the settings in use."""

    settings: ScoreSettings  # k, alpha and normalisation
    scores: dict[str, SetScores]  # Eq. 6 of each set
    reference: OODReference  # the held-out ID scores in order, and the threshold at 95 % ID recall
    threshold: float  # in use; a score above it is called OOD

    @property
    def id_name(self) -> str:
        """The set of held-out ID images."""
        return self.evidence.id_set.name

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Where the numbers come from, line by line."""
        s = self.settings
        return provenance(self.bundle, k=s.k, alpha=f"{s.alpha:g}", features=s.features)

    def column(self, name: str, mode: str) -> np.ndarray:
        """One set's scores by "both", "distance" or "votes", float64 (N,)."""
        return np.asarray(getattr(self.scores[name], "total" if mode == "both" else mode), np.float64)


def scored_sets(evidence: Evidence, library: PictureLibrary, why_not: str) -> ScoredSets:
    """Scores every set, after a search if need be. Raises MissingPart, with `why_not` without a detector."""
    settings = score_settings(evidence)
    if settings is None:
        raise MissingPart(why_not)
    scores = set_scores(evidence, settings)
    reference = id_reference(evidence, scores)
    return ScoredSets(evidence, library, settings, scores, reference, threshold(reference.threshold))


@dataclass(frozen=True, eq=False)
class SetsNow:
    """What is known of the scored sets at this moment."""

    scores: dict[str, SetScores] | None  # Eq. 6 of each; None while searched for, or where unknown
    problem: str  # why they cannot be known, "" else
    to_order_by: dict[str, SetScores]  # the same, else the bundle's own scores, else nothing
    # the person's, else the one at 95 % ID recall under these settings; None without scores
    threshold: float | None


def sets_now(evidence: Evidence, settings: ScoreSettings) -> SetsNow:
    """Eq. 6 of every scored set, as far as it is known without a wait."""
    try:
        own = stored_scores(evidence)
    except MissingPart as error:
        return SetsNow(None, str(error), {}, None)
    try:
        if needs_search(evidence, settings):
            if not start_search(evidence, settings.normalize).wait(AT_ONCE_SEC):
                return SetsNow(None, "", own, None)
        scores = set_scores(evidence, settings)
        return SetsNow(scores, "", scores, threshold(id_reference(evidence, scores).threshold))
    except (MissingPart, ValueError) as error:
        return SetsNow(None, str(error), own, None)
