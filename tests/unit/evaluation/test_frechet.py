from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from sdviz.evaluation import (
    InceptionError,
    distance_name,
    frechet,
    frechet_distance,
    frechet_distances,
    inception_features,
)


def by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    """The formula as it stands, with scipy's matrix root."""
    c_a, c_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(c_a @ c_b)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c_a + c_b - 2 * root.real))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 8), (60, 500, 40), (41, 43, 40)])
def test_against_scipy(seed: int, n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    b = rng.normal(0.5, 2, size=(m, d)) @ rng.normal(size=(d, d))
    assert frechet_distance(a, b) == pytest.approx(by_scipy(a, b), rel=1e-6)


def test_closed_form_of_independent_columns() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(400, 3))
    a = (a - a.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(a, rowvar=False))).T  # covariance exactly I
    b = a * [2, 3, 0.5] + [1, 0, -2]
    assert frechet_distance(a, b) == pytest.approx(5 + (2 - 1) ** 2 + (3 - 1) ** 2 + (0.5 - 1) ** 2)


def test_fewer_rows_than_columns_lose_nothing() -> None:
    """Features of few dimensions, turned into many: the distance is that of the few."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 5)), rng.normal(1, 2, size=(20, 5))
    turn = np.linalg.qr(rng.normal(size=(200, 5)))[0].T
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(by_scipy(a, b), rel=1e-9)
    # full rank in every row, still fewer rows than columns: the eigenvalues of C_a C_b by another route
    a, b = rng.normal(size=(12, 50)), rng.normal(size=(15, 50))
    eigenvalues = scipy.linalg.eigvals(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    root = np.sqrt(np.sort(eigenvalues)[-11:]).sum()  # 12 rows about their mean span 11 dimensions
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum() - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(300, 20), (10, 64)])
def test_nothing_between_equals_and_the_same_both_ways(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(100, 1, size=shape).astype(np.float32)
    b = rng.normal(100, 2, size=shape).astype(np.float32)
    assert 0 <= frechet_distance(a, a[::-1]) < 1e-9
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, a + np.float32(2)) == pytest.approx(4 * shape[1], rel=1e-5)


def test_faults_are_named() -> None:
    good = np.zeros((4, 3))
    for bad in (np.zeros(4), np.zeros((1, 3))):
        with pytest.raises(ValueError, match=r"b: features must be \(N,D\) with N at least 2"):
            frechet_distance(good, bad)
    with pytest.raises(ValueError, match="a: features hold NaN"):
        frechet_distance(np.full((4, 3), np.nan), good)
    with pytest.raises(ValueError, match="length 3 and 2"):
        frechet_distance(good, np.zeros((4, 2)))


def test_all_distances_side_by_side() -> None:
    rng = np.random.default_rng(0)
    train, test, rebuilt = (rng.normal(size=(n, 4)) for n in (50, 30, 50))
    outliers = train[::-1] + [3, 4, 0, 0]
    rows = np.arange(50)[::-1].copy()
    found = frechet_distances(train, outliers, rebuilt, test, rows)
    assert found["n"] == {"train": 50, "outliers": 50, "reconstructions": 50, "test": 30}
    assert found["outliers_to_train"] == pytest.approx(25)
    assert found["outliers_to_source"] == pytest.approx(5)
    assert found["reconstructions_to_train"] == frechet_distance(rebuilt, train)
    assert found["test_to_train"] == frechet_distance(test, train)
    assert found["outliers_to_test"] == frechet_distance(outliers, test)
    alone = frechet_distances(train, outliers)
    assert alone["n"] == {"train": 50, "outliers": 50}
    assert [alone[key] for key in ("test_to_train", "outliers_to_test", "outliers_to_source")] == [None] * 3
    for bad in (rows[:-1], rows + 1):
        with pytest.raises(ValueError, match="source_rows"):
            frechet_distances(train, outliers, source_rows=bad)
    assert distance_name("resnet18") == "FD (resnet18)"


def untrained_inception() -> torch.nn.Module:
    """torch-fidelity's network with random weights; its constructor wants a file, which is not read."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    class Untrained(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict: dict, *args: object, **kwargs: object) -> None:
            assert state_dict == {}

    nothing = BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    torch.manual_seed(0)
    return Untrained("random", ["2048"], feature_extractor_weights_path=nothing)


def test_inception_features_are_those_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = untrained_inception()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    monkeypatch.setattr(frechet, "_BATCH_SIZE", 2)
    found = inception_features(images, tmp_path / "weights.pth", "cpu")
    assert found.shape == (3, 2048) and found.dtype == np.float32
    expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert expected.std() > 0


class Bomb:
    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('code from a weights file was run')",))


def test_inception_weights_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity")
    images = np.zeros((1, 32, 32, 3), np.uint8)
    path = tmp_path / "weights.pth"
    with pytest.raises(InceptionError, match="no Inception weights at .*weights-inception-2015-12-05"):
        inception_features(images, path, "cpu")
    path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(InceptionError, match="weights.pth: damaged, or holds more than weights"):
        inception_features(images, path, "cpu")
    torch.save({"bomb": Bomb()}, path)
    with pytest.raises(InceptionError, match="weights.pth: damaged, or holds more than weights"):
        inception_features(images, path, "cpu")
    for foreign in ({"fc.weight": torch.zeros(2)}, [1, 2]):
        torch.save(foreign, path)
        with pytest.raises(InceptionError, match="weights.pth: not the weights of torch-fidelity's Inception"):
            inception_features(images, path, "cpu")
