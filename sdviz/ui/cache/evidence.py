"""What the pages keep of a bundle's evidence: tables, pictures, scores under other settings."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import streamlit as st

from sdviz.analysis import Evidence, MissingPart, PictureLibrary, Pictures
from sdviz.analysis.pictures import Way
from sdviz.analysis.rescoring import Rescorer, SetScores, rescorer, stored_scores
from sdviz.analysis.tables import HOW_TO_MAKE
from sdviz.bundle import Bundle
from sdviz.evaluation import OODReference, ood_reference
from sdviz.ui.cache import DEVICE_LOCK
from sdviz.ui.cache.memory import forgets, is_in_use
from sdviz.ui.cache.worker import ENDING, Worker
from sdviz.ui.session import ScoreSettings
from sdviz.ui.text import plain

# Until somebody asks for its result a search leaves the processor to the page that is just being opened
_BEGINS_AFTER_SEC = 3.0
SEARCHING = "Searching the neighbours of every scored image, once for these settings"


@st.cache_resource(max_entries=2, show_spinner=False)
def _open(bundle_hash: str, path: str, _bundle: Bundle) -> tuple[Evidence, PictureLibrary]:
    evidence = Evidence(_bundle)
    return evidence, PictureLibrary(evidence)


def open_evidence(bundle: Bundle) -> tuple[Evidence, PictureLibrary]:
    """The tables and the pictures of a bundle, kept for everybody; two bundles at a time."""
    return _open(bundle.hash, str(bundle.path), bundle)


class Search:
    """A search for the neighbours of every scored image, that goes on behind the page.

    Attributes:
        share: Done, 0..1.
    """

    def __init__(self, evidence: Evidence, normalize: bool, behind: Worker) -> None:
        """Begins, or waits for its turn.

        Args:
            evidence: A bundle's.
            normalize: Whether features are brought to unit length.
            behind: Runs it.
        """
        self.share = 0.0
        self._wanted = threading.Event()
        self._future = behind.submit(self._find, evidence, normalize)

    @property
    def is_done(self) -> bool:
        """Whether `result` answers at once."""
        return self._future.done()

    def result(self, timeout_sec: float | None = None) -> Rescorer | None:
        """What was found; None where the time was not enough.

        Raises:
            MissingPart: A bundle without what that needs.
        """
        self._wanted.set()
        try:
            return self._future.result(timeout_sec)
        except TimeoutError:
            return None

    def _find(self, evidence: Evidence, normalize: bool) -> Rescorer:
        def on_progress(share: float) -> None:
            self.share = share
            if ENDING.is_set():
                raise MissingPart("the search was given up: the program ends")
            # between two parts others may have the device
            DEVICE_LOCK.release()
            time.sleep(0.002)
            DEVICE_LOCK.acquire()

        begins = time.monotonic() + _BEGINS_AFTER_SEC
        while not self._wanted.wait(0.05) and not ENDING.is_set() and time.monotonic() < begins:
            pass
        if not is_in_use(evidence.bundle.hash):
            raise MissingPart("the search was given up: two other bundles have been opened since")
        with DEVICE_LOCK:
            return rescorer(evidence, normalize, on_progress)


@st.cache_resource(show_spinner=False)
def _behind() -> Worker:
    """One search at a time."""
    return Worker("search")


@st.cache_resource(max_entries=4, show_spinner=False)
def _search(bundle_hash: str, normalize: bool, _evidence: Evidence) -> Search:
    return Search(_evidence, normalize, _behind())


@forgets
def _forget(bundle_hash: str) -> None:
    for normalize in (True, False):
        _search.clear(bundle_hash, normalize, None)


def start_search(evidence: Evidence, normalize: bool) -> Search:
    """The search that `find_rescorer` waits for, begun where it was not yet; does not wait."""
    return _search(evidence.bundle.hash, normalize, evidence)


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
    found = search.result(0.1)
    if found is None:
        place = st.empty()
        while found is None:
            place.progress(
                search.share, "Searching the neighbours of every scored image, once for these settings"
            )
            found = search.result(0.2)
        place.empty()
    return found


def id_reference(evidence: Evidence, scores: Mapping[str, SetScores]) -> OODReference:
    """The held-out ID scores in order and the threshold at 95 % ID recall, under the settings of `scores`."""
    return ood_reference(scores[evidence.id_set.name].total)


def say_missing(missing: Sequence[str], ways: Sequence[Way]) -> None:
    """Why pictures are missing: a line for each set and how to get it, not for each picture.

    Args:
        missing: As `Pictures.missing`; nothing is drawn where it is empty.
        ways: As `Pictures.ways`.
    """
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
