"""Messages for missing pictures and missing parts of a bundle."""

from collections.abc import Sequence
from typing import Protocol

import streamlit as st

from sdviz.analysis import MissingPart, Pictures
from sdviz.analysis.pictures import Way
from sdviz.analysis.tables import HOW_TO_MAKE
from sdviz.ui.text import plain


class _Missing(Protocol):
    """Says why pictures are missing and how to get their sets, as `Pictures` does."""

    @property
    def missing(self) -> Sequence[str]: ...

    @property
    def ways(self) -> Sequence[Way]: ...


def say_missing(pictures: _Missing) -> None:
    """Says why pictures are missing: for each set one line, with the way to get it."""
    lines = missing_lines(pictures.missing, pictures.ways) if pictures.missing else []
    begins = ":material/hide_image: Grey stands in for pictures:"
    if len(lines) > 1:
        st.caption("\n".join([begins, *(f"- {one}" for one in lines)]))
    elif lines:
        st.caption(f"{begins} {lines[0]}")


def missing_lines(missing: Sequence[str], ways: Sequence[Way]) -> list[str]:
    """Returns as Markdown a line for each missing set and the way to get it, then other reasons and ways."""
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
    """Tells why no image has an id that was typed or linked, and how to get its set."""
    line = pictures.missing[0] if pictures.missing else ""
    # this line is for ids of the bundle; of a typed id it would be misleading
    if not line or line.endswith("no longer what their id says"):
        return " ".join(["no image has this id.", *(f"{_sentence(way.text)}." for way in pictures.ways)])
    return " ".join(missing_lines(pictures.missing, pictures.ways))


def show_missing_part(error: MissingPart | str, what: str) -> None:
    """Shows the empty state for a missing part of the bundle; `what` ends "Here you would see ..."."""
    with st.container(border=True):
        st.markdown(f"**{plain(_sentence(str(error)))}.**")
        st.markdown(
            f"Here you would see {what}. A run that goes through to its end leaves a bundle with everything. "
            "The small one takes minutes on two CPU cores; the page **Training** starts it as well:"
        )
        st.code(HOW_TO_MAKE, language="bash")
