"""What the parts of Training share: keys of the view and the run, the last error, the state of a run."""

from collections.abc import Callable

import streamlit as st

from sdviz.config.nodes import ConfigError
from sdviz.runs import Run, RunError, Status
from sdviz.ui.guests import GuestError
from sdviz.ui.text import plain

WATCH, NEW, COMPARE = VIEWS = ("Watch", "New run", "Compare")
VIEW_KEY, RUN_KEY = "training", "run"
_PROBLEM_KEY = "training_problem"


def take_problem() -> str:
    """Returns and forgets the error of the last click, "" for none."""
    return st.session_state.pop(_PROBLEM_KEY, "")


def attempt(action: Callable[..., object], *args: object) -> None:
    """For `on_click`: calls an action. An error becomes one line at the top of the page."""
    try:
        action(*args)
    except (RunError, ConfigError, GuestError) as error:
        st.session_state[_PROBLEM_KEY] = plain(str(error))
    except OSError as error:
        st.session_state[_PROBLEM_KEY] = plain(f"{error.filename or 'the disk'}: {error.strerror or error}")


def status_of(run: Run) -> Status | str:
    """Returns the run's status, or one line on why it cannot be read."""
    try:
        return run.status()
    except RunError as error:
        return str(error)


def state_of(run: Run) -> str:
    """Returns the run's state in one word, "damaged" if its status cannot be read."""
    status = status_of(run)
    return "damaged" if isinstance(status, str) else status.state


def is_starting(status: Status) -> bool:
    """Tells whether its process has started but not reached the queue."""
    return status.state == "queued" and status.queue_place is None
