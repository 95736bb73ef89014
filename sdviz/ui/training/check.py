"""What is in the images of a new run: how many, what was passed over, and which repeat others."""

from pathlib import Path

import streamlit as st

from sdviz.config.tree import RunConfig
from sdviz.data.check import Check, Repeats
from sdviz.ui.cache.background import Task
from sdviz.ui.cache.checks import start_check
from sdviz.ui.components.picture_grid import Cell, Label, picture_grid
from sdviz.ui.pictures import TRAIN_COLOUR, data_uri
from sdviz.ui.text import counted, plain
from sdviz.ui.theme import OOD_ROLES, role_colours
from sdviz.ui.widgets import choose_key

# how long the page waits for a check, and how often it looks later
AT_ONCE_SEC = 0.3
POLL_SEC = 0.5
A_ROW = 12
PICTURE_PX = 64
LINES = 4


def show_check(config: RunConfig) -> None:
    """Shows what is in the images, in one line and more to open; nothing if they cannot be read."""
    check = start_check(config)
    is_done = check.wait(AT_ONCE_SEC)
    st.fragment(_show, run_every=None if is_done else POLL_SEC)(config, check, is_done)


def _show(config: RunConfig, check: Task[Check], was_done: bool) -> None:
    if not check.wait(0):
        st.caption("Reading the images to find copies …")
        return
    if not was_done:
        st.rerun()  # ends the polling
    if check.error is not None:  # the estimate ends with it, too, and says it
        return
    found = check.result()
    kinds = _kinds(found)
    st.markdown(_summary(found, kinds))
    lines = [*found.refusals, *found.warnings]
    for line in lines[:LINES]:
        st.caption(f":material/warning: {plain(line)}")
    if len(lines) > LINES:
        st.caption(f"and {len(lines) - LINES} more: `python -m sdviz check` shows all")
    if kinds:
        with st.expander("Show these pictures"):
            titles = {key: f"{title}: {len(some):,}" for key, (title, some) in kinds.items()}
            key = choose_key("Kind", titles, "copies", label_visibility="collapsed")
            roles = {name: role for role in OOD_ROLES for name in getattr(config.evaluation, role)}
            _pairs(kinds[key][1], role_colours(roles).get(key[0], TRAIN_COLOUR))


# set ("" for the training images) and whether the pictures are near copies
_Kind = tuple[str, bool]


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


def _summary(found: Check, kinds: dict[_Kind, tuple[str, Repeats]]) -> str:
    n = sum(count > 0 for count in found.classes.values())
    parts = [f"{'no' if n == 0 else n} class{'es' * (n != 1)}"]
    parts += [f"{len(some):,} {title}" for title, some in kinds.values()]
    parts += [f"{count:,} {name} passed over" for name, count in found.found.passed_over.items()]
    return f"**{counted(found.pictures, 'picture')}**: {plain(', '.join(parts))}."


def _pairs(some: Repeats, colour: str) -> None:
    """Shows the first pictures of a kind, each above the one that it repeats."""
    for first in range(0, len(some.pictures), A_ROW):
        rows = range(first, min(first + A_ROW, len(some.pictures)))
        copies = [Cell(data_uri(some.pictures[row, 0]), str(some.ids[row]), colour) for row in rows]
        others = [Cell(data_uri(some.pictures[row, 1]), str(some.of[row]), TRAIN_COLOUR) for row in rows]
        picture_grid(
            copies + others,
            len(rows),
            key=f"copies {first}",
            size_px=PICTURE_PX,
            row_names=[Label("copy"), Label("of")],
            head_px=48,
        )
    if len(some) > len(some.pictures):
        st.caption(f"The first {len(some.pictures)} of {len(some):,}; a run lists all in copies.parquet.")
