from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest

from sdviz.ui.cache import memory as forget


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    gone: list[str] = []
    monkeypatch.setattr(forget, "_forgetters", [])
    before = list(forget._recent)
    forget._recent.clear()
    forget.forgets(gone.append)
    yield gone
    forget._recent.clear()
    forget._recent.update(dict.fromkeys(before))


def test_the_last_two_bundles_are_kept(fresh: list[str]) -> None:
    for one in ("a", "b", "a", "b"):
        forget.in_use(one)
    assert fresh == [] and forget.is_in_use("a") and forget.is_in_use("b")
    forget.in_use("a")
    forget.in_use("c")
    assert fresh == ["b"] and not forget.is_in_use("b") and forget.is_in_use("a")
    forget.in_use("b")
    assert fresh == ["b", "a"]


def test_tidying_goes_on_where_the_c_library_can_and_ends_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert forget.tidy() is (platform.libc_ver()[0] == "glibc")
    left = [True, True, False]
    pauses: list[float] = []
    monkeypatch.setattr(forget, "tidy", lambda: left.pop(0))
    monkeypatch.setattr(forget.time, "sleep", pauses.append)
    forget._tidy_for_ever(7.0)
    assert pauses == [7.0, 7.0]
