from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import patience


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test's time limit follows the speed of the machine."""
    slowness = patience(1.0)
    for item in items:
        given = item.get_closest_marker("timeout")
        limit = float(given.args[0] if given else config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(limit * slowness))


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is measured about this machine is measured anew, and shared with the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDVIZ_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def sdviz_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real image sets, as the data root: SDVIZ_DATA, else ../shared/data."""
    given = os.environ.get("SDVIZ_DATA")
    root = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real image sets: {root} is not a folder (SDVIZ_DATA names another)")
    monkeypatch.setenv("SDVIZ_DATA", str(root.resolve()))
    return root.resolve()


@pytest.fixture
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root of the test's own."""
    root = tmp_path / "data-root"
    root.mkdir()
    monkeypatch.setenv("SDVIZ_DATA", str(root))
    return root
