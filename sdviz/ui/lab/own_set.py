"""For a bundle whose own data set is not on this machine: how to get it, and images from noise in its place."""

from __future__ import annotations

from concurrent.futures import Future, wait

import streamlit as st

from sdviz import data
from sdviz.analysis.pictures import way_to_get
from sdviz.bundle import Bundle
from sdviz.bundle.from_noise import images_from_noise, knows_whole_schedule
from sdviz.data import ImageSet, MissingDataError
from sdviz.ui.cache import DEVICE_LOCK
from sdviz.ui.cache.downloads import POLL_SEC, Download, can_download, download_of, start_download
from sdviz.ui.cache.memory import forgets, is_in_use
from sdviz.ui.cache.worker import ENDING, Worker

FROM_NOISE = "made from noise by this network"
# images a cluster, and in all: a large network takes seconds for one on a CPU
_PER_CLUSTER, _AT_MOST = 4, 48
# a tiny network is done before a progress bar would show
AT_ONCE_SEC = 0.5
_AWAITED = "lab_awaited_set"


def is_here(name: str) -> bool:
    """Whether a named set is on this machine."""
    try:
        return bool(data.splits(name))
    except MissingDataError:
        return False


def offers_from_noise(bundle: Bundle) -> bool:
    """Whether the lab offers images from noise in place of the bundle's own set."""
    return not is_here(bundle.manifest.dataset) and knows_whole_schedule(bundle)


def say_where_own_set_is(bundle: Bundle) -> None:
    """Says how to get the bundle's own set where it is missing, with a download button where that can be."""
    name = bundle.manifest.dataset
    if is_here(name):
        return
    line = f"`{_plain(name)}` is not on this machine: {way_to_get(name)}. "
    if knows_whole_schedule(bundle):
        line += "Until then its network makes images from noise alone."
    else:
        line += (
            f"Its network knows noise up to S = {bundle.manifest.max_train_timestep} of {len(bundle.schedule)} "
            "only and makes no image from noise alone: take another set, or your own upload."
        )
    if not can_download(name):
        st.caption(f":material/hide_image: {line}")
        return
    columns = st.columns([6, 1.3], vertical_alignment="center")
    columns[0].caption(f":material/hide_image: {line}")
    running = download_of(name)
    with columns[1]:
        st.button(
            f"Download {name}",
            key="download_set",
            icon=":material/download:",
            width="stretch",
            on_click=_begin,
            args=(name,),
            disabled=running is not None and not running.is_done,
        )
    if running is not None and running.problem:
        st.error(running.problem, icon=":material/cloud_off:")
    elif running is not None and not running.is_done:
        st.fragment(_await, run_every=POLL_SEC)(running)


def take_awaited_set(sets: list[str], own: str) -> None:
    """Chooses the downloaded set once it is there. Call it before "Images from" is drawn.

    Args:
        sets: That can be chosen.
        own: What is chosen where images from noise no longer stand in for it.
    """
    if st.session_state.get(_AWAITED) in sets:
        st.session_state["data"] = st.session_state.pop(_AWAITED)
    elif st.session_state.get("data") == FROM_NOISE and FROM_NOISE not in sets:
        st.session_state["data"] = own


def _begin(name: str) -> None:
    st.session_state[_AWAITED] = name
    start_download(name)


def _await(running: Download) -> None:
    if running.is_done:
        st.rerun()
    st.progress(*running.progress)


def _plain(name: str) -> str:
    return name.replace("`", "'")


# --- images from noise ----------------------------------------------------------------------------


class _GivenUp(Exception):
    """Nobody wants the images any more."""


class Making:
    """Images from noise on their way, behind the page.

    Attributes:
        share: Done, 0..1.
    """

    def __init__(self, bundle: Bundle, behind: Worker) -> None:
        """Begins, or waits for its turn.

        Args:
            bundle: Whose network makes them.
            behind: Runs it.
        """
        self.share = 0.0
        self._bundle = bundle
        self._future: Future[ImageSet] = behind.submit(self._make)

    @property
    def is_done(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self._future.done()

    def wait(self, seconds: float) -> bool:
        """Waits at most so long; whether it is done."""
        return bool(wait([self._future], seconds).done)

    def result(self) -> ImageSet:
        """The images; raises what stopped it."""
        return self._future.result()

    @property
    def is_given_up(self) -> bool:
        """Whether it stopped because nobody looked."""
        return self.is_done and isinstance(self._future.exception(), _GivenUp)

    def _make(self) -> ImageSet:
        def go_on(share: float) -> None:
            self.share = share
            if ENDING.is_set() or not is_in_use(self._bundle.hash):
                raise _GivenUp

        each = max(1, min(_PER_CLUSTER, _AT_MOST // self._bundle.n_clusters))
        return images_from_noise(self._bundle, each, turn=DEVICE_LOCK, on_progress=go_on)


@st.cache_resource(show_spinner=False)
def _maker() -> Worker:
    return Worker("from-noise")


@st.cache_resource(max_entries=2, show_spinner=False)
def _makings(bundle_hash: str, _bundle: Bundle) -> Making:
    return Making(_bundle, _maker())


@forgets
def _forget(bundle_hash: str) -> None:
    _makings.clear()


def from_noise(bundle: Bundle) -> Making:
    """The images that this bundle's network makes from noise; made once in a server."""
    found = _makings(bundle.hash, bundle)
    if found.is_given_up:
        _makings.clear(bundle.hash, bundle)
        found = _makings(bundle.hash, bundle)
    return found


def show_pool_from_noise(bundle: Bundle) -> ImageSet | None:
    """The images; None while they are made, with a progress bar, or where that failed, with the reason."""
    making = from_noise(bundle)
    if not making.wait(AT_ONCE_SEC):
        st.fragment(_await_images, run_every=POLL_SEC)(making)
        return None
    try:
        return making.result()
    except (RuntimeError, ValueError) as error:
        st.error(f"No images from noise: {' '.join(str(error).split())}. Choose another set above.")
        return None


def _await_images(making: Making) -> None:
    if making.is_done:
        st.rerun()
    st.progress(making.share, f"Making images from noise alone, once for this bundle: {making.share:.0%}")
