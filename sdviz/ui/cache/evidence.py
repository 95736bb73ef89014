"""A bundle's tables and pictures, scores under other settings, and what to say where a part is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from sdviz.analysis import Evidence, MissingPart, PictureLibrary, Pictures
from sdviz.analysis.pictures import Way
from sdviz.analysis.rescoring import Rescorer, SetScores, rescorer, stored_scores
from sdviz.analysis.tables import HOW_TO_MAKE
from sdviz.bundle import Bundle
from sdviz.evaluation import OODReference, ood_reference
from sdviz.ui.cache.background import DEVICE_LOCK, Task, let_others_compute, start
from sdviz.ui.cache.kept import kept
from sdviz.ui.session import ScoreSettings
from sdviz.ui.text import plain

# Until somebody asks for its result a search leaves the processor to the page that is just being opened
_BEGINS_AFTER_SEC = 3.0
SEARCHING = "Searching the neighbours of every scored image, once for these settings"


@kept("evidence")
def open_evidence(bundle: Bundle) -> tuple[Evidence, PictureLibrary]:
    """The tables and the pictures of a bundle."""
    evidence = Evidence(bundle)
    return evidence, PictureLibrary(evidence)


@kept("search")
def start_search(evidence: Evidence, normalize: bool) -> Task[Rescorer]:
    """Starts the search that `find_rescorer` waits for.

    Returns:
        The task. It raises MissingPart for a bundle without what the search needs.
    """

    def search(task: Task[Rescorer]) -> Rescorer:
        def on_progress(share: float) -> None:
            let_others_compute()
            task.report(share)

        task.pause(_BEGINS_AFTER_SEC)
        task.report(0.0)
        with DEVICE_LOCK:
            return rescorer(evidence, normalize, on_progress)

    return start("search", search, evidence.bundle.hash)


def needs_search(evidence: Evidence, settings: ScoreSettings) -> bool:
    """Whether `set_scores` has to wait for a search the first time: for another k or normalisation only."""
    own = evidence.bundle.manifest.score
    return own is None or (settings.k, settings.normalize) != (own.k, own.normalize)


def set_scores(evidence: Evidence, settings: ScoreSettings) -> dict[str, SetScores]:
    """Eq. 6 of every scored set under these settings; the bundle's own k and normalisation need no search.

    Raises:
        MissingPart: A bundle without scores, or without what other settings need.
    """
    if settings.is_own:
        return stored_scores(evidence)
    if not needs_search(evidence, settings):
        # distance and votes are those that were measured
        return {
            name: SetScores(one.distance, one.votes, one.distance + settings.alpha * one.votes)
            for name, one in evidence.sets.items()
        }
    return find_rescorer(evidence, settings.normalize).scores(settings.k, settings.alpha)


def find_rescorer(evidence: Evidence, normalize: bool) -> Rescorer:
    """The neighbours of every scored image, searched once for each normalisation, seconds the first time.

    Raises:
        MissingPart: A bundle without what that needs.
    """
    search = start_search(evidence, normalize)
    if not search.wait(0.1):
        place = st.empty()
        while not search.wait(0.2):
            place.progress(search.share, SEARCHING)
        place.empty()
    return search.result()


def id_reference(evidence: Evidence, scores: Mapping[str, SetScores]) -> OODReference:
    """The held-out ID scores in order and the threshold at 95 % ID recall, under the settings of `scores`."""
    return ood_reference(scores[evidence.id_set.name].total)


def say_missing(missing: Sequence[str], ways: Sequence[Way]) -> None:
    """Why pictures are missing: a line for each set and how to get it, not for each picture."""
    lines = missing_lines(missing, ways) if missing else []
    begins = ":material/hide_image: Grey stands in for pictures:"
    if len(lines) > 1:
        st.caption("\n".join([begins, *(f"- {one}" for one in lines)]))
    elif lines:
        st.caption(f"{begins} {lines[0]}")


def missing_lines(missing: Sequence[str], ways: Sequence[Way]) -> list[str]:
    """A sentence for each set that is not here, with its own way, then those for other reasons; Markdown."""
    absent: dict[tuple[str, str], list[str]] = {}
    for way in ways:
        if way.is_absent and way.reason in missing:
            absent.setdefault((way.name, way.text), []).append(way.split)
    lines = []
    for (name, text), splits in absent.items():
        part = "" if splits == ["all"] else f" ({', '.join(splits)})"
        lines.append(f"{plain(name)}{part} is not on this machine: {text}.")
    said = {way.reason for way in ways if way.is_absent}
    lines += [f"{plain(line)}." for line in missing if line not in said]
    return lines + [f"{_sentence(way.text)}." for way in ways if not way.is_absent]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def why_not_found(pictures: Pictures) -> str:
    """Why there is no image of an id that somebody typed or linked to, and how to get its set."""
    line = pictures.missing[0] if pictures.missing else ""
    # of ids that a bundle knows it is true: of one that somebody typed it would mislead
    if not line or line.endswith("no longer what their id says"):
        return " ".join(["no image has this id.", *(f"{_sentence(way.text)}." for way in pictures.ways)])
    return " ".join(missing_lines(pictures.missing, pictures.ways))


def show_missing_part(error: MissingPart | str, what: str) -> None:
    """The empty state of a part that this bundle lacks: what would be here, and the command that makes it.

    Args:
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
