from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from sdviz.projection import LayoutSettings
from sdviz.ui.cache import layouts
from sdviz.ui.cache.layouts import LayoutStore
from tests.patience import patience

PCA = LayoutSettings("pca")


def features(seed: int = 0, n: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, n, 6)).astype(np.float32)


def test_it_is_computed_once_and_found_again_by_another_process(tmp_path: Path) -> None:
    x, store = features(), LayoutStore(tmp_path / "kept")
    assert store.find(x, PCA) is None
    job = store.start(x, PCA)
    assert job.task.wait(patience(60))
    made = job.task.result()
    again = store.find(x, PCA)
    assert again is made
    other = LayoutStore(tmp_path / "kept")
    read = other.find(x, PCA)
    assert read is not None
    for name in ("points", "trust", "explained"):
        assert np.array_equal(getattr(read, name), getattr(made, name))
    assert (store.computed, other.computed) == (1, 0)
    assert other.find(features(1), PCA) is None
    assert other.find(x, LayoutSettings("pca", 3)) is None


def test_who_asks_for_the_same_waits_for_the_same(tmp_path: Path) -> None:
    store, x = LayoutStore(tmp_path), features(n=200)
    how = LayoutSettings("tsne")
    jobs = []
    threads = [threading.Thread(target=lambda: jobs.append(store.start(x, how))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert all(job.task.wait(patience(120)) for job in jobs)
    assert store.computed == 1
    assert jobs[0].share <= 1


def test_a_cut_file_is_computed_again(tmp_path: Path) -> None:
    x, store = features(), LayoutStore(tmp_path)
    assert store.start(x, PCA).task.wait(patience(60))
    (file,) = tmp_path.glob("*.layout.npz")
    for content in (file.read_bytes()[:100], b"", b"no archive"):
        file.write_bytes(content)
        fresh = LayoutStore(tmp_path)
        assert fresh.find(x, PCA) is None
        assert fresh.start(x, PCA).task.wait(patience(60))
        assert fresh.find(x, PCA) is not None


def test_the_folder_stays_within_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "MAX_BYTES", 3_000)
    store = LayoutStore(tmp_path)
    for seed in range(6):
        assert store.start(features(seed), PCA).task.wait(patience(60))
    kept = list(tmp_path.iterdir())
    assert 1 <= len(kept) < 6
    assert sum(p.stat().st_size for p in kept) <= 3_000
    assert LayoutStore(tmp_path).find(features(5), PCA) is not None, "the youngest stays"


def test_a_fault_reaches_who_asked_and_is_not_kept(tmp_path: Path) -> None:
    store, x = LayoutStore(tmp_path), features()
    x[0, 0, 0] = np.inf
    for _ in range(2):
        job = store.start(x, PCA)
        assert job.task.wait(patience(60))
        with pytest.raises(ValueError, match="not finite"):
            job.task.result()
    assert store.computed == 0


def test_a_disk_that_takes_nothing_costs_only_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = LayoutStore(tmp_path / "file" / "folder")
    job = store.start(features(), PCA)
    assert job.task.wait(patience(60))
    assert job.task.result().points.shape == (1, 40, 2)
