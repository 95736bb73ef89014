"""What pages say where a picture or a part of the bundle is missing."""

from collections.abc import Sequence
from typing import Protocol

import streamlit as st

from sdviz.analysis import MissingPart, Pictures
from sdviz.analysis.pictures import Way
from sdviz.analysis.tables import HOW_TO_MAKE
from sdviz.ui.text import plain


class _Lacking(Protocol):
    """Why pictures are missing, and how to get their sets, as in `Pictures`."""

    @property
    def missing(self) -> Sequence[str]: ...

    @property
    def ways(self) -> Sequence[Way]: ...


def say_missing(pictures: _Lacking) -> None:
    """Says why pictures are missing: a line for each set and how to get it, not for each picture."""
    lines = missing_lines(pictures.missing, pictures.ways) if pictures.missing else []
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
    # true of ids that a bundle knows, but misleading for one that somebody typed
    if not line or line.endswith("no longer what their id says"):
        return " ".join(["no image has this id.", *(f"{_sentence(way.text)}." for way in pictures.ways)])
    return " ".join(missing_lines(pictures.missing, pictures.ways))


def show_missing_part(error: MissingPart | str, what: str) -> None:
    """The empty state of a part that this bundle lacks; `what` is the end of "Here you would see ..."."""
    with st.container(border=True):
        text = str(error)
        st.markdown(f"**{text[:1].upper()}{text[1:]}.**")
        st.markdown(
            f"Here you would see {what}. A run that goes through to its end leaves a bundle with everything. "
            "The small one takes minutes on two CPU cores; the page **Training** starts it as well:"
        )
        st.code(HOW_TO_MAKE, language="bash")
