"""Shared by the parts of Training: the view and run on show, and what went wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from sdviz.config.nodes import ConfigError
from sdviz.runs import Run, RunError, Status
from sdviz.ui.text import plain

WATCH, NEW, COMPARE = VIEWS = ("Watch", "New run", "Compare")
VIEW_KEY, RUN_KEY = "training", "run"
_PROBLEM_KEY = "training_problem"


def take_problem() -> str:
    """The error of the last click, once; "" for none."""
    return st.session_state.pop(_PROBLEM_KEY, "")


@contextmanager
def _reporting() -> Iterator[None]:
    try:
        yield
    except (RunError, ConfigError) as error:
        st.session_state[_PROBLEM_KEY] = plain(str(error))
    except OSError as error:
        st.session_state[_PROBLEM_KEY] = plain(f"{error.filename or 'the disk'}: {error.strerror or error}")


def attempt(action: Callable[..., object], *args: object) -> None:
    """For `on_click`: calls the action; an error becomes one line at the top of the page."""
    with _reporting():
        action(*args)


def start_and_watch(action: Callable[..., Run], *args: object) -> None:
    """For `on_click`: starts a run and shows it."""
    with _reporting():
        run = action(*args)
        st.session_state[RUN_KEY] = run.name
        st.session_state[VIEW_KEY] = WATCH


def status_of(run: Run) -> Status | str:
    """The run's status, or one line on why it has none."""
    try:
        return run.status()
    except RunError as error:
        return str(error)


def state_of(run: Run) -> str:
    """The run's state in one word; "damaged" where its status cannot be read."""
    status = status_of(run)
    return "damaged" if isinstance(status, str) else status.state


def is_starting(status: Status) -> bool:
    """Whether its process has started but not yet reached the queue."""
    return status.state == "queued" and status.queue_place is None
