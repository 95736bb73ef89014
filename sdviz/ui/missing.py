"""Messages for missing pictures, missing parts of a bundle, and a missing set of its own."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import streamlit as st

from sdviz import data
from sdviz.analysis import MissingPart, Pictures
from sdviz.analysis.pictures import Way, way_to_get
from sdviz.analysis.tables import HOW_TO_MAKE
from sdviz.bundle import Bundle
from sdviz.bundle.generated import has_generated
from sdviz.ui.cache.downloads import POLL_SEC, Download, can_download, download_of, start_download
from sdviz.ui.guests import GuestError
from sdviz.ui.text import code_span, plain

# in the session: the set that a download on a page brings
AWAITED = "awaited_set"


class _Missing(Protocol):
    """Says why pictures are missing and how to get their sets, as `Pictures` does."""

    @property
    def missing(self) -> Sequence[str]: ...

    @property
    def ways(self) -> Sequence[Way]: ...


def say_missing(pictures: _Missing) -> None:
    """Says in one line why pictures are missing. How to get their sets is in its tooltip."""
    if not pictures.missing:
        return
    absent = [
        f"{name}{splits} is not on this machine" for name, splits, _ in _absent(pictures.missing, pictures.ways)
    ]
    said = {way.reason for way in pictures.ways if way.is_absent}
    reasons = [*absent, *(plain(line) for line in pictures.missing if line not in said)]
    st.caption(
        f":material/hide_image: Named without a picture: {'; '.join(reasons)}.",
        help="  \n".join(missing_lines(pictures.missing, pictures.ways)),
    )


def missing_lines(missing: Sequence[str], ways: Sequence[Way]) -> list[str]:
    """Returns as Markdown a line for each missing set and the way to get it, then other reasons and ways."""
    lines = [f"{name}{splits} is not on this machine: {text}." for name, splits, text in _absent(missing, ways)]
    said = {way.reason for way in ways if way.is_absent}
    lines += [f"{plain(line)}." for line in missing if line not in said]
    return lines + [f"{_sentence(way.text)}." for way in ways if not way.is_absent]


def _absent(missing: Sequence[str], ways: Sequence[Way]) -> list[tuple[str, str, str]]:
    """The name of each missing set, its splits as in " (train, test)" or "", and the way to get it."""
    absent: dict[tuple[str, str], list[str]] = {}
    for way in ways:
        if way.is_absent and way.reason in missing:
            absent.setdefault((way.name, way.text), []).append(way.split)
    return [
        (plain(name), "" if splits == ["all"] else f" ({', '.join(splits)})", text)
        for (name, text), splits in absent.items()
    ]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def why_not_found(pictures: Pictures) -> str:
    """Tells why no image has an id that was typed or linked, and how to get its set."""
    line = pictures.missing[0] if pictures.missing else ""
    # this line is for ids of the bundle; of a typed id it would be misleading
    if not line or line.endswith("no longer what their id says"):
        return " ".join(["no image has this id.", *(f"{_sentence(way.text)}." for way in pictures.ways)])
    return " ".join(missing_lines(pictures.missing, pictures.ways))


def say_where_own_set_is(bundle: Bundle) -> None:
    """If the bundle's own set is missing, says so and what stands in, with a button if it can be downloaded."""
    name = bundle.manifest.dataset
    if data.splits_here(name):
        return
    line, way = f":material/hide_image: {code_span(name)} is not on this machine", way_to_get(name)
    if has_generated(bundle):
        line += ": images shown are **generated** by the bundle's U-Net."
    else:
        line += f": {way}."
    help_text = f"{_sentence(way)}." if has_generated(bundle) else None
    if not can_download(name):
        st.caption(line, help=help_text)
        return
    running = download_of(name)
    columns = st.columns([3.4, 1.1], vertical_alignment="center")
    columns[0].caption(line, help=help_text)
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
        st.error(plain(running.problem), icon=":material/cloud_off:")
    elif running is not None and not running.is_done:
        st.fragment(_await, run_every=POLL_SEC)(running)


def _begin(name: str) -> None:
    with suppress(GuestError):  # of a page from before
        start_download(name)
        st.session_state[AWAITED] = name


def _await(work: Download) -> None:
    if work.is_done:
        st.rerun()
    st.progress(*work.progress)


def show_missing_part(error: MissingPart | str, what: str) -> None:
    """Shows the empty state for a missing part of the bundle; `what` ends "Here you would see ..."."""
    with st.container(border=True):
        st.markdown(f"**{plain(_sentence(str(error)))}.**")
        st.markdown(
            f"Here you would see {what}. A run that goes through to its end leaves a bundle with everything. "
            "The small one takes minutes on two CPU cores; the page **Training** starts it as well:"
        )
        st.code(HOW_TO_MAKE, language="bash")
