from __future__ import annotations

import ast
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sdviz.ui.cache.kept as module
from sdviz.ui.cache.kept import KEPT, Kept, Store, clear, is_in_use, kept, note_use, store

UI = Path(module.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    clear()
    yield
    clear()


@pytest.fixture
def a_kind(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    """Adds a kind of values to the table: (most, key, **rest) -> its name."""

    def add(*how: Any, **rest: Any) -> str:  # noqa: ANN401
        name = f"test {len(KEPT)}"
        monkeypatch.setitem(KEPT, name, Kept(*how, **rest))
        monkeypatch.setitem(module._stores, name, Store(KEPT[name].most))
        return name

    return add


def bundle(name: str) -> SimpleNamespace:
    return SimpleNamespace(hash=name)


def test_a_value_is_computed_once_for_each_key_and_the_least_recently_used_goes_first(a_kind: Any) -> None:  # noqa: ANN401
    calls: list[tuple[int, str]] = []

    @kept(a_kind(2, "n"))
    def f(n: int, note: str = "") -> list[int]:
        calls.append((n, note))
        return [n]

    first = f(1)
    assert f(1, note="is no part of the key") is first and f(n=1) is first
    f(2), f(1), f(3)
    assert f(1) is first
    f(2)
    assert calls == [(1, ""), (2, ""), (3, ""), (2, "")]


def test_arrays_count_by_their_bytes_shape_and_type(a_kind: Any) -> None:  # noqa: ANN401
    calls = []

    @kept(a_kind(9, "x"))
    def f(x: np.ndarray) -> int:
        calls.append(x)
        return len(calls)

    x = np.arange(6)
    assert f(x) == f(x.copy()) == 1
    assert [f(one) for one in (x[::2], x.reshape(2, 3), x.astype(np.int32), x + 1, x[:0], x.astype(str))] == [
        2, 3, 4, 5, 6, 7,
    ]  # fmt: skip
    changed = x.copy()
    assert f(changed) == 1
    changed[0] = 9
    assert f(changed) == 8


def test_who_gets_copies_may_change_them(a_kind: Any) -> None:  # noqa: ANN401
    @kept(a_kind(2, "", copied=True))
    def f() -> list[int]:
        return [1]

    f().append(2)
    f().append(3)
    assert f() == [1]


def test_an_error_is_raised_and_not_kept(a_kind: Any) -> None:  # noqa: ANN401
    answers = iter([ValueError("no"), None])
    name = a_kind(2, "")

    @kept(name)
    def f() -> None:
        if (error := next(answers)) is not None:
            raise error

    with pytest.raises(ValueError, match="no"):
        f()
    assert len(store(name)) == 0
    f()
    f()  # None is a value like any other


def test_sessions_that_ask_at_the_same_time_wait_for_one_computation(a_kind: Any) -> None:  # noqa: ANN401
    calls, found = [], []

    @kept(a_kind(2, "n"))
    def slow(n: int) -> object:
        calls.append(n)
        time.sleep(0.1)
        return object()

    threads = [threading.Thread(target=lambda: found.append(slow(1))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert calls == [1] and len(set(map(id, found))) == 1


def test_values_of_the_last_two_bundles_are_kept_by_whatever_name(a_kind: Any) -> None:  # noqa: ANN401
    calls: list[str] = []

    @kept(a_kind(9, "evidence.bundle.hash"))
    def f(evidence: SimpleNamespace) -> None:
        calls.append(evidence.bundle.hash)

    @kept(a_kind(9, "name"))
    def of_no_bundle(name: str) -> None:
        calls.append(name)

    def ask(name: str) -> None:
        f(SimpleNamespace(bundle=bundle(name)))

    def open_and_ask(name: str) -> None:
        note_use(name)
        ask(name)

    of_no_bundle("x")
    for name in ("a", "b", "a", "b"):
        open_and_ask(name)
    assert calls == ["x", "a", "b"] and is_in_use("a") and is_in_use("b")
    open_and_ask("a")
    open_and_ask("c")
    assert not is_in_use("b") and is_in_use("a")
    ask("a")
    assert calls == ["x", "a", "b", "c"]
    ask("b")  # of a page that was still being drawn
    open_and_ask("b")
    assert calls == ["x", "a", "b", "c", "b", "b"], "what came too late has gone as well"
    ask("a")
    of_no_bundle("x")
    assert calls[6:] == ["a"]


def test_what_was_being_computed_when_its_bundle_went_is_not_kept(a_kind: Any) -> None:  # noqa: ANN401
    calls = []

    @kept(a_kind(9, "bundle.hash"))
    def f(bundle: SimpleNamespace) -> None:
        calls.append(1)
        note_use("b")
        note_use("c")

    note_use("a")
    f(bundle("a"))
    f(bundle("a"))
    assert len(calls) == 2


def decorated() -> Iterator[tuple[str, set[str]]]:
    """(name in the table, parameters of the function) of every `@kept(...)` of ui."""
    for path in sorted(UI.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for one in node.decorator_list:
                    if isinstance(one, ast.Call) and getattr(one.func, "id", "") == "kept":
                        (name,) = one.args
                        assert isinstance(name, ast.Constant)
                        yield str(name.value), {a.arg for a in node.args.args}


def test_the_table_and_the_functions_agree() -> None:
    found = list(decorated())
    by_hand = {
        name
        for path in UI.rglob("*.py")
        for name in re.findall(r'(?:store\(|KEPT\[)"([^"]+)"', path.read_text("utf-8"))
    }
    assert sorted(KEPT) == sorted([name for name, _ in found] + sorted(by_hand))
    for name, parameters in found:
        for part in KEPT[name].key.split():
            assert part in module._AMBIENT or part.split(".")[0] in parameters, (name, part)
        # the hash comes first, or nothing would let go of it
        assert "bundle.hash" not in " ".join(KEPT[name].key.split()[1:]), name
