"""Scores and threshold of a bundle's sets under the settings of this moment."""

from __future__ import annotations

from dataclasses import dataclass

from sdviz.analysis import Evidence, MissingPart
from sdviz.analysis.rescoring import SetScores, stored_scores
from sdviz.ui.cache.evidence import id_reference, needs_search, set_scores, start_search
from sdviz.ui.session import ScoreSettings, threshold

# as long as a person does not notice the wait
AT_ONCE_SEC = 0.1


@dataclass(frozen=True, eq=False)
class SetsNow:
    """What is known of the scored sets under the settings of this moment.

    Attributes:
        scores: Eq. 6 of each; None while they are searched for, or where they cannot be known.
        problem: Why they cannot be known, "" else.
        to_order_by: The same, else the bundle's own scores, else nothing.
        threshold: The person's, else the one at 95 % ID recall under these settings; None without scores.
    """

    scores: dict[str, SetScores] | None
    problem: str
    to_order_by: dict[str, SetScores]
    threshold: float | None


def sets_now(evidence: Evidence, settings: ScoreSettings) -> SetsNow:
    """Eq. 6 of every scored set, without a wait that a person would notice."""
    try:
        own = stored_scores(evidence)
    except MissingPart as error:
        return SetsNow(None, str(error), {}, None)
    try:
        if needs_search(evidence, settings):
            if start_search(evidence, settings.normalize).result(AT_ONCE_SEC) is None:
                return SetsNow(None, "", own, None)
        scores = set_scores(evidence, settings)
        return SetsNow(scores, "", scores, threshold(id_reference(evidence, scores).threshold))
    except (MissingPart, ValueError) as error:
        return SetsNow(None, str(error), own, None)
