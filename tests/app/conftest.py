from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.testing.v1 import AppTest

from sdviz.ui.cache import background
from sdviz.ui.cache.background import Task
from sdviz.ui.cache.kept import clear
from tests.cut_bundle import save_cut_bundle
from tests.patience import patience
from tests.tiny_bundle import save_tiny_bundle

ROOT = Path(__file__).resolve().parents[2]
LAB = "pages/1_Outlier_lab.py"


@pytest.fixture(autouse=True)
def _fresh_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Empties the caches; bundles, runs and data are this test's own; torch runs on one thread.

    What is left to do in the background ends with the test: the next one would wait for it in its lane.
    """
    for name in ("SDVIZ_CHECKPOINTS", "SDVIZ_RUNS", "SDVIZ_DATA"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    started: list[Task[Any]] = []
    add = background._Thread.add

    def note(thread: background._Thread, task: Task[Any]) -> None:
        started.append(task)
        add(thread, task)

    monkeypatch.setattr(background._Thread, "add", note)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    clear()
    yield
    for task in started:
        task.cancel()
        task.wait(0)  # which ends its pause
    torch.set_num_threads(before)


@pytest.fixture
def shipped(tmp_path: Path) -> Callable[..., Path]:
    """Puts a small bundle with random weights where the app looks for bundles, and returns its folder."""

    def make(name: str = "tiny", clusterer: bool = True, max_s: int = 200, dataset: str = "shapes") -> Path:
        return save_tiny_bundle(tmp_path / "sdviz_checkpoints" / name, clusterer, max_s, dataset)

    return make


@pytest.fixture(scope="session")
def cut_bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A small full bundle with the shipped networks, made once for each set of arguments."""
    made: dict[str, Path] = {}

    def find(**how: Any) -> Path:  # noqa: ANN401
        key = repr(sorted(how.items()))
        if key not in made:
            made[key] = save_cut_bundle(tmp_path_factory.mktemp("cut") / "bundle", **how)
        return made[key]

    return find


@pytest.fixture
def full_bundle(tmp_path: Path, cut_bundles: Callable[..., Path]) -> Callable[..., Path]:
    """Puts a small full bundle where the app looks for bundles, and returns its folder."""

    def put(name: str = "full", **how: Any) -> Path:  # noqa: ANN401
        return Path(shutil.copytree(cut_bundles(**how), tmp_path / "sdviz_checkpoints" / name))

    return put


@pytest.fixture
def open_app() -> Callable[..., AppTest]:
    """Opens app.py, then the page, as a person would; fails on any exception."""

    def start(page: str | None = None, query: dict[str, str] | None = None) -> AppTest:
        at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=patience(120))
        for key, value in (query or {}).items():
            at.query_params[key] = value
        at.run()
        assert not at.exception, at.exception
        if page is not None:
            at.switch_page(page)
            for key, value in (query or {}).items():
                at.query_params[key] = value
            at.run()
            assert not at.exception, at.exception
        return at

    return start


@pytest.fixture
def open_page() -> Callable[..., AppTest]:
    """Opens a page by its link, without Home, which takes seconds to draw; fails on any exception."""

    def start(page: str, query: dict[str, str | list[str]] | None = None) -> AppTest:
        at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=patience(120))
        for key, value in (query or {}).items():
            at.query_params[key] = value
        at.switch_page(page)
        at.run()
        assert not at.exception, at.exception
        return at

    return start


@pytest.fixture
def component_data() -> Callable[[AppTest], list[dict[str, Any]]]:
    """What each component on the page was given, in order."""

    def read(at: AppTest) -> list[dict[str, Any]]:
        found = []
        for element in at.get("bidi_component"):
            found.append(json.loads(element.proto.json))
        return found

    return read


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], str]]:
    """What the download buttons of the last run would give, by file name."""
    found: dict[str, Callable[[], str]] = {}
    real = MediaFileManager.add_deferred

    def note(self: MediaFileManager, make: Callable[[], str], *rest: Any, **more: Any) -> str:  # noqa: ANN401
        name = more.get("file_name") or rest[2]
        found[name] = make
        return real(self, make, *rest, **more)

    monkeypatch.setattr(MediaFileManager, "add_deferred", note)
    return found
