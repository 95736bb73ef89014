from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import streamlit as st
from streamlit import config as streamlit_config

from sdviz.ui import guests
from sdviz.ui.cache.downloads import can_download, start_download
from sdviz.ui.guests import (
    ALLOW_REMOTE,
    READ_ONLY,
    GuestError,
    check_may_write,
    is_local,
    may_name_paths,
    refusal,
)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(READ_ONLY, raising=False)
    monkeypatch.delenv(ALLOW_REMOTE, raising=False)
    before = streamlit_config.get_option("server.address")
    streamlit_config.set_option("server.address", "localhost")
    yield
    streamlit_config.set_option("server.address", before)


def visit(monkeypatch: pytest.MonkeyPatch, headers: Mapping[str, str], peer: str | None = None) -> None:
    """Whoever visits has these headers and this address, None for a loopback one."""
    monkeypatch.setattr(type(st.context), "headers", property(lambda self: headers))
    monkeypatch.setattr(type(st.context), "ip_address", property(lambda self: peer))


@pytest.mark.parametrize(("value", "is_on"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_switches_follow_their_variables(monkeypatch: pytest.MonkeyPatch, value: str, is_on: bool) -> None:
    monkeypatch.setenv(READ_ONLY, value)
    assert bool(refusal()) is is_on and may_name_paths() is not is_on
    monkeypatch.delenv(READ_ONLY)
    visit(monkeypatch, {"Host": "192.168.1.5:8501"}, "192.168.1.9")
    assert "other machines" in refusal()
    monkeypatch.setenv(ALLOW_REMOTE, value)
    assert bool(refusal()) is not is_on
    assert not may_name_paths()


LOCAL = [
    ({"Host": "localhost:8501"}, None),
    ({"Host": "127.0.0.1"}, "127.0.0.1"),
    ({"Host": "[::1]:8501"}, "::1"),
    ({"Host": "127.0.0.2:8501"}, "127.0.0.2"),
]
ELSEWHERE = [
    ({"Host": "localhost:8501"}, "192.168.1.9"),
    ({"Host": "localhost:8501"}, "::ffff:10.0.0.1"),
    ({"Host": "localhost:8501", "X-Forwarded-For": "127.0.0.1"}, None),
    ({"Host": "localhost:8501", "Forwarded": "for=127.0.0.1"}, None),
    ({"Host": "localhost:8501", "X-Real-Ip": "127.0.0.1"}, None),
    ({"Host": "evil.example:8501"}, None),
    ({"Host": "localhost.evil.example"}, None),
    ({"Host": "127.0.0.1.evil.example"}, None),
    ({"Host": "[bad"}, None),
    ({"Host": ""}, None),
]


@pytest.mark.parametrize(
    ("visitor", "expected"), [(one, True) for one in LOCAL] + [(one, False) for one in ELSEWHERE]
)
@pytest.mark.parametrize("address", ["localhost", "0.0.0.0", None])
def test_a_visit_is_local_by_its_address_its_name_and_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
    visitor: tuple[dict[str, str], str | None],
    expected: bool,
    address: str | None,
) -> None:
    streamlit_config.set_option("server.address", address)
    visit(monkeypatch, *visitor)
    assert is_local() is expected


def test_who_has_hung_up_is_a_guest_and_a_unix_socket_too(monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, {})
    assert is_local()  # as in a test without a server
    monkeypatch.setattr(guests, "_is_served", lambda: True)
    assert not is_local()
    visit(monkeypatch, {"Host": "localhost"})
    streamlit_config.set_option("server.address", "unix:///run/sdviz.sock")
    assert not is_local()


def test_a_download_asks_the_guard_whatever_its_button_says(
    monkeypatch: pytest.MonkeyPatch, data_root: Path
) -> None:
    assert can_download("cifar10")
    monkeypatch.setenv(READ_ONLY, "1")
    assert not can_download("cifar10")
    for act in (check_may_write, lambda: start_download("cifar10")):
        with pytest.raises(GuestError, match="Read-only"):
            act()
    assert list(data_root.iterdir()) == []
