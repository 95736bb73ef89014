"""For a bundle whose own set is not on this machine: how to get it, and images from noise instead."""

import streamlit as st

from sdviz import data
from sdviz.analysis.pictures import way_to_get
from sdviz.bundle import Bundle
from sdviz.bundle.from_noise import images_from_noise, knows_whole_schedule
from sdviz.data import ImageSet
from sdviz.data.source import exists, path_in
from sdviz.ui.cache.background import DEVICE_LOCK, Task, start
from sdviz.ui.cache.downloads import POLL_SEC, Download, can_download, download_of, start_download
from sdviz.ui.cache.kept import kept
from sdviz.ui.text import code_span

FROM_NOISE = "made from noise by this network"
# how many images for each cluster, and in all: on a CPU a large network takes seconds for one
_PER_CLUSTER, _AT_MOST = 4, 48
# a tiny network needs no progress bar
AT_ONCE_SEC = 0.5
_AWAITED = "lab_awaited_set"


def offers_from_noise(bundle: Bundle) -> bool:
    """Tells whether the lab offers images from noise instead of the bundle's own set."""
    return not data.splits_here(bundle.manifest.dataset) and knows_whole_schedule(bundle)


def own_files(bundle: Bundle) -> list[str]:
    """The bundle's own set if it is a folder or file on this machine; else empty."""
    name = bundle.manifest.dataset
    return [name] if name.startswith(data.OWN_KINDS) and exists(path_in(name)) else []


def say_where_own_set_is(bundle: Bundle) -> None:
    """Says how to get the bundle's own set if it is missing, with a button if it can be downloaded."""
    name = bundle.manifest.dataset
    if data.splits_here(name):
        return
    line = f"{code_span(name)} is not on this machine: {way_to_get(name)}. "
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
    """Selects the set whose download is done; or `own`, if images from noise are no longer offered.

    Call it before the widget "Images from" is drawn.
    """
    if st.session_state.get(_AWAITED) in sets:
        st.session_state["data"] = st.session_state.pop(_AWAITED)
    elif st.session_state.get("data") == FROM_NOISE and FROM_NOISE not in sets:
        st.session_state["data"] = own


def _begin(name: str) -> None:
    st.session_state[_AWAITED] = name
    start_download(name)


def _await(work: Download | Task[ImageSet]) -> None:
    if work.is_done:
        st.rerun()
    if isinstance(work, Download):
        st.progress(*work.progress)
    else:
        st.progress(work.share, f"Making images from noise alone, once for this bundle: {work.share:.0%}")


@kept("images from noise")
def from_noise(bundle: Bundle) -> Task[ImageSet]:
    """Makes images from noise with this bundle's network, in the background."""
    each = max(1, min(_PER_CLUSTER, _AT_MOST // bundle.n_clusters))

    def make(task: Task[ImageSet]) -> ImageSet:
        return images_from_noise(bundle, each, turn=DEVICE_LOCK, on_progress=task.report)

    return start("images from noise", make, bundle.hash)


def show_pool_from_noise(bundle: Bundle) -> ImageSet | None:
    """Returns the images; None with a progress bar while they are made, or with the reason for a failure."""
    making = from_noise(bundle)
    if not making.wait(AT_ONCE_SEC):
        st.fragment(_await, run_every=POLL_SEC)(making)
        return None
    try:
        return making.result()
    except (RuntimeError, ValueError) as error:
        st.error(f"No images from noise: {' '.join(str(error).split())}. Choose another set above.")
        return None
