"""The real app as a server of its own, and visits over Streamlit's raw protocol, such as no browser makes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import connect

from tests.patience import patience

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def serve(home: Path, settings: Mapping[str, str] | None = None, *options: str) -> Iterator[str]:
    """The app with its bundles, runs and data in that folder; gives its address once it has loaded.

    Args:
        home: Holds checkpoints, runs and data; the server's output goes to log.txt there.
        settings: Further variables of its environment.
        options: Further options of `streamlit run`.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = os.environ | {
        "SDVIZ_CHECKPOINTS": str(home / "checkpoints"),
        "SDVIZ_RUNS": str(home / "runs"),
        "SDVIZ_DATA": str(home / "data"),
        **(settings or {}),
    }
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
    log = (home / "log.txt").open("w")
    process = subprocess.Popen(
        [*command, "--server.port", str(port), *options], cwd=ROOT, env=environment, stdout=log, stderr=log
    )
    address = f"http://localhost:{port}"
    try:
        for _ in range(int(patience(240))):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=2)
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert process.poll() is None, (home / "log.txt").read_text()
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)
        log.close()


class Visit:
    """One session over the websocket. It may send the value of any widget, shown or not."""

    def __init__(self, address: str, headers: Mapping[str, str] | None = None, name: str = "localhost") -> None:
        """Connects.

        Args:
            address: Of the server.
            headers: Further headers of the handshake.
            name: What the visitor calls a server at localhost.
        """
        url = address.replace("http://", "ws://") + "/_stcore/stream"
        host, _, port = address.removeprefix("http://").rpartition(":")
        self._socket = connect(
            url.replace("localhost", name),
            sock=socket.create_connection((host, int(port))),
            subprotocols=["streamlit"],  # type: ignore[list-item]
            additional_headers=headers or {},
            max_size=None,
            ping_interval=None,
            proxy=None,
            legacy=True,
        )
        self._wait_sec = patience(120)
        self._hash = ""
        self._query = ""
        self.widgets: dict[str, str] = {}  # widget id by its key, of all pages seen
        self.texts: list[str] = []  # of the last run
        self.disabled: set[str] = set()  # keys
        self.errors: list[str] = []  # exceptions of all runs

    def open(self, page: str = "", **query: str) -> None:
        """Runs a page, "" for Home, with an address."""
        self._query = urlencode(query)
        self._send({}, page)

    def act(self, **states: object) -> None:
        """Runs the page again with values by widget key: None presses a button."""
        self._send({self.widgets[key]: value for key, value in states.items()})

    def forge(self, states: Mapping[str, object]) -> None:
        """Runs the page again with values by widget id."""
        self._send(states)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def _send(self, states: Mapping[str, object], page: str | None = None) -> None:
        message = BackMsg()
        state = message.rerun_script
        state.query_string = self._query
        if page is None:
            state.page_script_hash = self._hash
        else:
            state.page_name = page
        for one, value in states.items():
            state.widget_states.widgets.append(_widget_state(one, value))
        self._socket.send(message.SerializeToString())
        self.texts, self.disabled = [], set()
        self._receive()

    def _receive(self) -> None:
        """Takes messages until the script has ended."""
        while True:
            message = ForwardMsg.FromString(self._socket.recv(timeout=self._wait_sec))
            kind = message.WhichOneof("type")
            if kind == "new_session":
                self._hash = message.new_session.page_script_hash
            elif kind == "page_info_changed":
                self._query = message.page_info_changed.query_string
            elif kind == "delta":
                self._take(message.delta)
            elif kind == "script_finished" and message.script_finished in (
                ForwardMsg.FINISHED_SUCCESSFULLY,
                ForwardMsg.FINISHED_WITH_COMPILE_ERROR,
            ):
                return

    def _take(self, delta: Any) -> None:  # noqa: ANN401
        element = delta.new_element if delta.WhichOneof("type") == "new_element" else delta.add_block
        kind = element.WhichOneof("type")
        if kind is None:
            return
        proto = getattr(element, kind)
        self.texts.append(str(proto))
        if kind == "exception":
            self.errors.append(f"{proto.type}: {proto.message}")
        one = getattr(proto, "id", "")
        if isinstance(one, str) and one.startswith("$$ID"):
            key = one.split("-", 2)[2]
            self.widgets[key] = one
            if getattr(proto, "disabled", False):
                self.disabled.add(key)


def _widget_state(one: str, value: object) -> WidgetState:
    state = WidgetState(id=one)
    if value is None:
        state.trigger_value = True
    elif isinstance(value, bool):
        state.bool_value = value
    elif isinstance(value, str):
        state.string_value = value
    elif isinstance(value, int | float):
        state.double_value = value
    elif isinstance(value, list) and all(isinstance(each, str) for each in value):
        state.string_array_value.data.extend(value)
    else:
        state.int_array_value.data.extend(value)  # type: ignore[arg-type]
    return state
