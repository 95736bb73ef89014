"""Widgets of several pages."""

import time
from collections.abc import Callable, Mapping, Sequence
from mimetypes import guess_type
from typing import Any, TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from sdviz.ui.text import plain

K = TypeVar("K")

# for a widget whose value is in the address and is kept when the page is left
IN_LINK: dict[str, Any] = {"bind": "query-params", "persist_state": "session"}


def choose_one(label: str, options: Sequence[str], key: str, **more: Any) -> str:  # noqa: ANN401
    """Draws a segmented control with always one option chosen, at first the first.

    `more` are arguments of `st.segmented_control`. A kept value that is no longer an option is dropped.
    """
    if st.session_state.get(key) not in options:
        st.session_state.pop(key, None)
    # without a default, a browser without a value marks no option
    found = st.segmented_control(
        label, options, default=options[0], format_func=_as_text, required=True, key=key, **IN_LINK, **more
    )
    return str(found or options[0])


def _as_text(option: str) -> str:
    # an option is Markdown; links have the usual ones as they are
    return plain(option) if any(mark in option for mark in "[<$`*~\\") else option


def choose_key(label: str, titles: Mapping[K, str], key: str, **more: Any) -> K:  # noqa: ANN401
    """Draws `choose_one` over the titles, which are in the address; returns the key of the chosen one."""
    chosen = choose_one(label, list(titles.values()), key, **more)
    return next(one for one, title in titles.items() if title == chosen)


def select_one(label: str, options: Sequence[str], key: str, **more: Any) -> str:  # noqa: ANN401
    """Draws a select box; `more` are arguments of `st.selectbox`. A kept value that is no option is dropped."""
    if st.session_state.get(key) not in options:
        st.session_state.pop(key, None)
    return str(st.selectbox(label, options, key=key, **more))


def download(label: str, make: Callable[[], str | bytes], file: str, **more: Any) -> None:  # noqa: ANN401
    """Draws a button that makes and downloads a file; `more` are arguments of `st.download_button`."""
    more = {"icon": ":material/download:", "on_click": "ignore"} | more
    st.download_button(label, make, file, guess_type(file)[0], **more)


def empty_state(title: str, text: str, command: str = "") -> DeltaGenerator:
    """Draws a box that says what would be here and how to get it; returns the box, for more lines."""
    box = st.container(border=True)
    box.markdown(f"**{title}**")
    box.markdown(text)
    if command:
        box.code(command, language="bash", wrap_lines=True)
    return box


def time_left(place: DeltaGenerator, what: str) -> Callable[[float], None]:
    """Returns a callback that shows the share done, 0..1, and the time left in `place`."""
    started = time.perf_counter()

    def on_progress(done: float) -> None:
        spent = time.perf_counter() - started
        place.progress(done, f"{what}: {done:.0%}, about {spent / done - spent:.0f} s left")

    return on_progress
