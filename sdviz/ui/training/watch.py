"""The list of runs, and one run: its state, and buttons to stop, resume, open and delete it."""

import streamlit as st

from sdviz import runs
from sdviz.bundle import MANIFEST
from sdviz.runs import Run, Status
from sdviz.runs.reading import folder_bytes
from sdviz.ui.guests import refusal
from sdviz.ui.page import LAB, choose_bundle, open_page
from sdviz.ui.text import in_bytes, ordinal, plain
from sdviz.ui.training import actions
from sdviz.ui.training.live import show_live
from sdviz.ui.training.state import RUN_KEY, attempt, is_starting, state_of, status_of
from sdviz.ui.widgets import IN_LINK

REFRESH_SEC = 2.0
_GO_KEY = "training_open_lab"
ICONS = {
    "new": ":material/fiber_new:",
    "queued": ":material/hourglass_top:",
    "running": ":material/play_circle:",
    "done": ":material/check_circle:",
    "cancelled": ":material/stop_circle:",
    "failed": ":material/error:",
    "killed": ":material/power_off:",
    "damaged": ":material/broken_image:",
}


def show_watch(found: list[Run]) -> None:
    """Shows all runs at the left, newest first, and the chosen one. `found`: one run at least."""
    if st.session_state.pop(_GO_KEY, False):
        open_page(LAB)
    states = {run.name: state_of(run) for run in found}
    columns = st.columns([1, 3.4], gap="medium")
    with columns[0], st.container(height=640 if len(found) > 9 else "content", border=False):
        names = list(states)
        if st.session_state.get(RUN_KEY) not in names:  # deleted, or of a link
            st.session_state.pop(RUN_KEY, None)
        chosen = st.radio(
            "Runs, the newest first",
            names,
            key=RUN_KEY,
            format_func=plain,  # identifies an option for the browser, so it must not change with the state
            captions=[f"{ICONS[states[run.name]]} {_caption(run)}" for run in found],
            **IN_LINK,
        )
    run = next(one for one in found if one.name == chosen)
    with columns[1]:
        status = status_of(run)
        if isinstance(status, str):
            _damaged(run, status)
        else:
            _head(run, status)
        # files are read again only while they may change
        alive = any(state in ("queued", "running") for state in states.values())
        st.fragment(_live, run_every=REFRESH_SEC if alive else None, key="training_live")(run, states)


def _live(run: Run, drawn: dict[str, str]) -> None:
    """Shows the part that refreshes itself. When the state of a run changes, the whole page is drawn again."""
    if {one.name: state_of(one) for one in runs.list_runs()} != drawn:
        st.rerun()
    if drawn[run.name] != "damaged":
        show_live(run)


def _caption(run: Run) -> str:
    status = status_of(run)
    if isinstance(status, str):
        return "damaged"
    if is_starting(status):
        return "starting"
    if status.state == "queued":
        return f"queued, {ordinal(status.queue_place or 1)} in line"
    if status.state in ("failed", "cancelled", "killed") and status.stage:
        return f"{status.state} in {plain(status.stage)}"
    return status.state


def _head(run: Run, status: Status) -> None:
    refused = refusal()
    st.markdown(f"### {ICONS[status.state]} {plain(run.name)}")
    columns = st.columns([1.25, 1.25, 1.6, 1.25, 1.5], vertical_alignment="center")
    columns[0].button(
        "Stop",
        icon=":material/stop:",
        key="stop",
        disabled=not status.is_active or bool(refused),
        help=refused or "Ends it before its next step, with its state saved.",
        on_click=attempt,
        args=(actions.stop, run.name),
        width="stretch",
    )
    columns[1].button(
        "Start" if status.state == "new" else "Resume",
        icon=":material/play_arrow:",
        key="resume",
        disabled=status.is_active or status.state == "done" or bool(refused),
        help=refused or "Goes on from where it was left; stages that are complete are skipped.",
        on_click=attempt,
        args=(actions.resume, run.name),
        width="stretch",
    )
    columns[2].button(
        "Open in the lab",
        icon=":material/science:",
        key="open_lab",
        type="primary" if status.state == "done" else "secondary",
        disabled=not (run.bundle / MANIFEST).is_file(),
        help="Makes its bundle the one in use, on every page.",
        on_click=_open_in_lab,
        args=(run.name,),
        width="stretch",
    )
    with columns[3]:
        _delete(run, status.is_active)
    _say(status)


def _say(status: Status) -> None:
    if status.state == "failed":
        st.error(
            plain(status.error or "It failed and could not say why: see the log."), icon=":material/error:"
        )
    elif status.state == "killed":
        st.warning(
            f"Not running: {plain(status.error or '')}. What it had finished is kept; Resume goes on.",
            icon=":material/power_off:",
        )
    elif status.state == "cancelled":
        where = f" in {plain(status.stage)}" if status.stage else " before its first stage"
        st.info(f"Stopped on request{where}. Resume goes on from there.", icon=":material/stop_circle:")
    elif is_starting(status):
        st.info("Its process is starting: a few seconds.", icon=":material/hourglass_top:")
    elif status.state == "queued":
        st.info(
            f"Waits for {plain(', '.join(status.devices))}, {ordinal(status.queue_place or 1)} in line, "
            f"behind {plain(', '.join(status.waits_for))}. It starts by itself.",
            icon=":material/hourglass_top:",
        )
    elif status.state == "new":
        st.info("Made, and not started yet.", icon=":material/fiber_new:")


def _delete(run: Run, is_active: bool) -> None:
    refused = refusal()
    with st.popover(
        "Delete",
        icon=":material/delete:",
        disabled=is_active or bool(refused),
        help=refused or ("Stop it first." if is_active else None),
        width="stretch",
    ):
        st.markdown(f"Delete **{plain(run.name)}** with all that it made, its bundle too?")
        st.caption(f"{in_bytes(folder_bytes(run))} are freed. This cannot be undone.")
        st.button(
            "Delete for good",
            icon=":material/delete_forever:",
            key="delete",
            disabled=bool(refused),
            on_click=attempt,
            args=(actions.delete, run.name),
        )


def _damaged(run: Run, problem: str) -> None:
    st.markdown(f"### {ICONS['damaged']} {plain(run.name)}")
    st.error(f"{plain(problem)}. It cannot be watched or resumed; its other files are as they were.")
    with st.columns([1.25, 5])[0]:
        _delete(run, is_active=False)


def _open_in_lab(name: str) -> None:
    choose_bundle(name)
    st.session_state[_GO_KEY] = True
