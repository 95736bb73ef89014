"""What is in the images of a new run: how many, what was passed over, and which repeat others."""

import json
from pathlib import Path
from typing import TypeAlias

import streamlit as st

from sdviz.config.tree import RunConfig
from sdviz.data.check import Check, Repeats
from sdviz.ui.cache.background import Task
from sdviz.ui.cache.checks import forget_check
from sdviz.ui.components.picture_grid import Cell, Label, picture_grid
from sdviz.ui.pictures import TRAIN_COLOUR, data_uri
from sdviz.ui.text import code_span, counted, plain
from sdviz.ui.theme import OOD_ROLES, role_colours
from sdviz.ui.widgets import choose_key

# how long the page waits for a check, and how often it looks later
AT_ONCE_SEC = 0.3
POLL_SEC = 0.5
A_ROW = 12
PICTURE_PX = 64
LINES = 4
ON_OVERLAP = {
    "drop": "The run leaves them out of this set",
    "refuse": "The run refuses to start with them",
    "keep": "The run keeps them in this set",
}

# set ("" for the training images) and whether the pictures are near copies
_Kind: TypeAlias = tuple[str, bool]


def show_summary(check: Task[Check]) -> None:
    """Shows in one line what is in the images; nothing if there are none."""
    is_done = check.wait(AT_ONCE_SEC)
    st.fragment(_summary, run_every=None if is_done else POLL_SEC)(check, is_done)


def _summary(check: Task[Check], was_done: bool) -> None:
    if not check.wait(0):
        st.caption("Reading the images to find copies …")
        return
    if not was_done:
        st.rerun()  # ends the polling
    found = check.result()
    if not found.pictures:
        return
    n = sum(count > 0 for count in found.classes.values())
    parts = [f"{n or 'no'} class{'es' * (n != 1)}"]
    for title, some in _kinds(found).values():
        parts.append(f"{len(some):,} {title.replace('copies', 'copy') if len(some) == 1 else title}")
    parts += [f"{count:,} {name} passed over" for name, count in found.found.passed_over.items()]
    st.markdown(f"**{counted(found.pictures, 'picture')}**: {plain(', '.join(parts))}.")


def show_copies(config: RunConfig, check: Task[Check], said: str) -> None:
    """Shows why the run would not start, what may be wrong with the images, and those that repeat others.

    Args:
        said: An error that the page shows already.
    """
    if not check.is_done:
        return
    found = check.result()
    for line in found.refusals:
        if line != said:
            st.error(plain(line), icon=":material/error:")
    for line in found.warnings[:LINES]:
        st.caption(f":material/warning: {plain(line)}")
    if (more := len(found.warnings) - LINES) > 0:
        st.caption(f"and {more} more: `python -m sdviz check` shows all")
    if offered := [one for one in found.found.offered if one not in config.evaluation.ood_sets]:
        st.caption(
            f":material/lightbulb: OOD sets in the same place: {', '.join(map(plain, offered[:LINES]))}."
            f" Advanced takes one, as {code_span(f'evaluation.near={json.dumps(offered[:1])}')}"
        )
    if kinds := _kinds(found):
        with st.expander("Copies", icon=":material/content_copy:"):
            st.fragment(_copies)(config, kinds)
    if found.refusals or found.warnings or kinds:
        st.button(
            "Check again",
            icon=":material/refresh:",
            key="check_again",
            type="tertiary",
            help="After a change of the files.",
            on_click=forget_check,
            args=(config,),
        )


def _copies(config: RunConfig, kinds: dict[_Kind, tuple[str, Repeats]]) -> None:
    titles = {kind: f"{title}: {len(some):,}" for kind, (title, some) in kinds.items()}
    kind = choose_key("Kind", titles, "copies", label_visibility="collapsed")
    name, is_near = kind
    roles = {one: role for role in OOD_ROLES for one in getattr(config.evaluation, role)}
    _pairs(kinds[kind][1], f"copies {kind}", role_colours(roles).get(name, TRAIN_COLOUR))
    if is_near:
        st.caption("Nearly equal pictures stay where they are: look whether they matter.")
    elif name:
        st.caption(f"{ON_OVERLAP[config.data.on_overlap]} (`data.on_overlap`).")
    else:
        st.caption("Equal pictures are trained on together, or held out together.")


def _kinds(found: Check) -> dict[_Kind, tuple[str, Repeats]]:
    """Title and pictures of each kind of copies that there is."""
    kinds: dict[_Kind, tuple[str, Repeats]] = {
        ("", False): ("exact copies", found.exact),
        ("", True): ("near copies", found.near),
    }
    for name, one in found.others.items():
        short = Path(name).name if "/" in name else name
        kinds[name, False] = f"also in {short}", one.exact
        kinds[name, True] = f"nearly in {short}", one.near
    return {key: kind for key, kind in kinds.items() if len(kind[1])}


def _pairs(some: Repeats, key: str, colour: str) -> None:
    """Shows the first pictures of a kind, each above the one that it repeats."""
    for first in range(0, len(some.pictures), A_ROW):
        rows = range(first, min(first + A_ROW, len(some.pictures)))
        copies = [Cell(data_uri(some.pictures[row, 0]), str(some.ids[row]), colour) for row in rows]
        others = [Cell(data_uri(some.pictures[row, 1]), str(some.of[row]), TRAIN_COLOUR) for row in rows]
        picture_grid(
            copies + others,
            len(rows),
            key=f"{key} {first}",
            size_px=PICTURE_PX,
            row_names=[Label("copy"), Label("of")],
            head_px=48,
        )
    if len(some) > len(some.pictures):
        st.caption(f"The first {len(some.pictures)} of {len(some):,}; a run lists all in copies.parquet.")
