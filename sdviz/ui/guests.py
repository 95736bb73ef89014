"""Who may change something: the one guard that every write asks, and who signed in."""

import ipaddress
import os
from urllib.parse import urlsplit

import streamlit as st
from streamlit import runtime

from sdviz.text import LineError, short_line

READ_ONLY = "SDVIZ_READ_ONLY"
ALLOW_REMOTE = "SDVIZ_ALLOW_REMOTE_RUNS"
# headers of proxies, which connect from this machine for visitors from elsewhere
_FORWARDED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip")


class GuestError(LineError):
    """Somebody who may only watch tried to change something."""


def refusal() -> str:
    """Returns one line on why this visit can change nothing, "" if it may."""
    if _is_on(READ_ONLY):
        return f"Read-only: nothing can be started, changed or deleted here ({READ_ONLY} is set)."
    if not is_local() and not _is_on(ALLOW_REMOTE):
        return (
            "Visitors from other machines can only watch: nothing can be started, changed or deleted. "
            f"{ALLOW_REMOTE}=1, set where the server starts, allows it."
        )
    if _is_signing_on() and not st.user.is_logged_in:
        return "Sign in, at the left, to start, change or delete something."
    return ""


def check_may_write() -> None:
    """For every write, before it: raises GuestError if this visit can change nothing."""
    if line := refusal():
        raise GuestError(line)


def may_name_paths() -> bool:
    """Tells whether this visit may name files and folders: at this machine. Others choose from lists."""
    return is_local() and not refusal()


def is_local() -> bool:
    """Tells whether this visit comes from this machine, without a proxy and by one of the machine's own names.

    The name matters: a page of the web may have its own name point at this machine, and then use the browser of
    the person in front of it.
    """
    headers = st.context.headers
    bound = str(st.get_option("server.address") or "")  # "" is every address
    host = headers.get("Host")
    if host is None:  # a test without a server, or a visitor who has just hung up
        return not _is_served() and _is_loopback(bound)
    if bound.startswith("unix:") or any(name in headers for name in _FORWARDED):
        return False
    peer = st.context.ip_address  # None for this machine
    return (peer is None or _is_loopback(peer)) and _is_loopback(_without_port(host))


def author() -> str:
    """Returns who signed in, "" for nobody."""
    if not _is_signing_on() or not st.user.is_logged_in:
        return ""
    return short_line(next((str(st.user[key]) for key in ("email", "name", "sub") if st.user.get(key)), ""))


def show_sign_in() -> None:
    """Draws the button to sign in or out, where OpenID Connect is configured."""
    if not _is_signing_on():
        return
    if st.user.is_logged_in:
        st.button(f"Sign out {author()}", on_click=st.logout, icon=":material/logout:", key="sign_out")
    else:
        st.button("Sign in", on_click=st.login, icon=":material/login:", key="sign_in")


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def _is_served() -> bool:
    """Whether a server runs in this process, and not the stand-in of `AppTest`."""
    return runtime.exists() and type(runtime.get_instance()) is runtime.Runtime


def _is_signing_on() -> bool:
    """Whether the secrets have a section `auth`."""
    return "is_logged_in" in st.user


def _without_port(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
