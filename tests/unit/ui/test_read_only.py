from __future__ import annotations

import pytest

from sdviz.ui.read_only import READ_ONLY, is_read_only


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_guard_follows_its_variable(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv(READ_ONLY, value)
    assert is_read_only() is expected


def test_without_the_variable_everything_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(READ_ONLY, raising=False)
    assert not is_read_only()
