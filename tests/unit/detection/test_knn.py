from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from sdviz.detection import knn
from sdviz.detection.knn import NeighbourSearch, check_features, nearest_others, unit_length

ROOT = Path(__file__).resolve().parents[3]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


def brute_force(queries: np.ndarray, references: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    q, r = queries.astype(np.float32).astype(np.float64), references.astype(np.float32).astype(np.float64)
    distances = np.stack([np.sqrt(((one - r) ** 2).sum(1)) for one in q])
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


def check(queries: np.ndarray, references: np.ndarray, k: int, device: str) -> None:
    distances, indices = NeighbourSearch(references, device=device).search(queries, k)
    expected, rows = brute_force(queries, references, k)
    np.testing.assert_allclose(distances, expected, rtol=1e-12, atol=0)
    np.testing.assert_array_equal(indices, rows)
    assert distances.dtype == np.float64 and indices.dtype == np.int64


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dim", [1, 3, 64, 200])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 7), (50, 10), (1500, 1), (1500, 10), (1500, 50)])
def test_it_is_brute_force(n: int, k: int, dim: int, device: str) -> None:
    rng = np.random.default_rng(n + k + dim)
    check(rng.normal(size=(60, dim)), rng.normal(size=(n, dim)), k, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_queries", [1, 5, 19, 20, 21, 300])
def test_the_number_of_queries_does_not_matter(n_queries: int, device: str) -> None:
    # faiss goes from differences to matrix products at 20
    rng = np.random.default_rng(0)
    check(rng.normal(size=(n_queries, 32)), rng.normal(size=(400, 32)), 5, device)


def test_it_is_what_scikit_learn_says() -> None:
    rng = np.random.default_rng(1)
    queries, references = rng.normal(size=(100, 16)), rng.normal(size=(800, 16))
    peer = NearestNeighbors(n_neighbors=10, algorithm="kd_tree").fit(references)
    distances, indices = peer.kneighbors(queries)
    mine, rows = NeighbourSearch(references, device="cpu").search(queries, 10)
    np.testing.assert_allclose(mine, distances, rtol=1e-5)
    np.testing.assert_array_equal(rows, indices)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("spread", "offset", "scale"),
    [
        (1e-2, 0.0, 1.0),
        (1e-4, 0.0, 1.0),
        (4e-5, 0.0, 1.0),
        (1e-6, 0.0, 1.0),  # far below what |q|^2 + |r|^2 - 2 <q, r> can tell
        (1e-3, 1e3, 1.0),  # as features of a network that share a large mean
        (1e-3, 0.0, 1e15),
        (1e-3, 0.0, 1e-15),
        (1e-3, 0.0, 1e-30),
    ],
)
def test_near_duplicates_have_their_true_distances(
    spread: float, offset: float, scale: float, device: str
) -> None:
    rng = np.random.default_rng(2)
    centres = unit(rng.normal(size=(20, 96)))[rng.integers(0, 20, 2500)]
    features = ((centres + spread * rng.normal(size=centres.shape) + offset) * scale).astype(np.float32)
    check(features[:500], features[500:], 10, device)


@pytest.mark.parametrize("device", DEVICES)
def test_one_reference_far_away_does_not_blur_the_others(device: str) -> None:
    rng = np.random.default_rng(3)
    references = rng.normal(size=(600, 24))
    references[17] *= 1e7
    check(rng.normal(size=(50, 24)), references, 10, device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_query_far_away_has_its_neighbours_too(device: str) -> None:
    rng = np.random.default_rng(4)
    queries = rng.normal(size=(6, 24)) * np.array([1, 1e4, 1e8, 1e15, 1e30, 1])[:, None]
    distances, _ = NeighbourSearch(references := rng.normal(size=(600, 24)), device=device).search(queries, 10)
    np.testing.assert_allclose(distances, brute_force(queries, references, 10)[0], rtol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_copies_are_at_distance_0_and_the_earlier_row_comes_first(device: str) -> None:
    rng = np.random.default_rng(5)
    references = rng.normal(size=(300, 8)).astype(np.float32)
    references[[40, 50, 250]] = references[10]
    distances, indices = NeighbourSearch(references, device=device).search(references[[10] * 30], 6)
    np.testing.assert_array_equal(indices[:, :4], [[10, 40, 50, 250]] * 30)
    np.testing.assert_array_equal(distances[:, :4], 0)
    assert (distances[:, 4:] > 0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_all_features_alike(device: str) -> None:
    features = np.full((200, 5), 0.3)
    distances, _ = NeighbourSearch(features, device=device).search(features[:30], 10)
    np.testing.assert_array_equal(distances, 0)
    distances, indices = NeighbourSearch(features, device=device).search(features[:30] + 1, 3)
    np.testing.assert_allclose(distances, np.sqrt(5), rtol=1e-6)
    np.testing.assert_array_equal(indices, [[0, 1, 2]] * 30)


@pytest.mark.parametrize("device", DEVICES)
def test_chunks_and_wider_searches_change_nothing(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    # a shell around every query: all distances nearly equal, so that few candidates are never enough
    queries = 1e-4 * rng.normal(size=(40, 12))
    references = unit(rng.normal(size=(900, 12)))
    whole = NeighbourSearch(references, device=device).search(queries, 10)
    monkeypatch.setattr(knn, "QUERIES_AT_ONCE", 7)
    monkeypatch.setattr(knn, "DIFFERENCES_BYTES", {"cpu": 8 * 12 * 31, "cuda": 8 * 12 * 31})
    monkeypatch.setattr(knn, "ALL_PAIRS", 900 * 3)
    monkeypatch.setattr(knn, "CUDA_MATRIX_BYTES", 4 * 900 * 3)
    monkeypatch.setattr(knn, "WIDER", 2)
    monkeypatch.setattr(knn, "MAX_ROUNDINGS", 2e4)
    small = NeighbourSearch(references, device=device).search(queries, 10)
    for a, b in zip(whole, small, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(small[1], brute_force(queries, references, 10)[1])


class RoughSearch(NeighbourSearch):
    """A search whose fast distances have the largest rounding error that it allows for."""

    def _candidates(self, moved: torch.Tensor, m: int) -> tuple[torch.Tensor, torch.Tensor]:
        size = moved.norm(dim=1)[:, None] + self._moved.norm(dim=1)
        off = (torch.rand(size.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1).sign()
        squares = torch.cdist(moved.double(), self._moved.double()) ** 2
        squares += off * knn.MAX_ROUNDINGS * 2.0**-24 * size**2
        nearest = squares.topk(m, dim=1, largest=False)
        return nearest.values[:, -1], nearest.indices


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 5e-4, 2e-4, 1e-4])
def test_the_rounding_that_is_allowed_for_keeps_no_neighbour_out(spread: float) -> None:
    rng = np.random.default_rng(9)
    centres = unit(rng.normal(size=(10, 64)))[rng.integers(0, 10, 1200)]
    features = (centres + spread * rng.normal(size=centres.shape)).astype(np.float32)
    _, indices = RoughSearch(features[200:], device="cpu").search(features[:200], 10)
    np.testing.assert_array_equal(indices, brute_force(features[:200], features[200:], 10)[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_exact_with_tf32_switched_on() -> None:
    rng = np.random.default_rng(7)
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        check(unit(rng.normal(size=(200, 128))), unit(rng.normal(size=(5000, 128))), 10, "cuda")
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


# --------------------------------------------------------------------------------------------------
# Ids
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_a_query_passes_over_its_own_row(device: str) -> None:
    rng = np.random.default_rng(8)
    references = rng.normal(size=(200, 6))
    ids = [f"set/{i}" for i in range(200)]
    search = NeighbourSearch(references, ids, device)
    _, with_itself = search.search(references, 4)
    np.testing.assert_array_equal(with_itself[:, 0], np.arange(200))
    distances, without = search.search(references, 3, ids)
    np.testing.assert_array_equal(without, with_itself[:, 1:])
    assert (distances > 0).all()
    # the id decides, not the feature
    other_ids = ["other/0", *ids[1:]]
    assert search.search(references, 3, other_ids)[1][0].tolist() == with_itself[0, :3].tolist()
    moved = search.search(references[:2], 3, [ids[5], ids[1]])[1]
    assert 5 not in moved[0] and 0 in moved[0]


def test_an_id_may_have_several_rows() -> None:
    references = np.arange(12.0)[:, None]
    search = NeighbourSearch(references, ["a", "b", "c"] * 4, "cpu")
    distances, indices = search.search(np.array([[4.0]]), 3, ["b"])  # b: 1, 4, 7, 10
    assert indices.tolist() == [[3, 5, 2]]
    assert distances.tolist() == [[1, 1, 2]]
    with pytest.raises(
        ValueError, match=r"k = 9 is outside 1..8, the number of references besides a query's own"
    ):
        search.search(np.array([[4.0]]), 9, ["b"])


def test_all_references_but_one_s_own_will_do() -> None:
    references = np.arange(5.0)[:, None]
    search = NeighbourSearch(references, list("abcde"), "cpu")
    assert search.search(references, 4, list("abcde"))[1][2].tolist() == [1, 3, 0, 4]
    assert search.search(references, 5)[1].shape == (5, 5)
    with pytest.raises(ValueError, match=r"k = 5 is outside 1\.\.4"):
        search.search(references, 5, list("abcde"))


def test_no_queries_are_no_error() -> None:
    distances, indices = NeighbourSearch(np.ones((3, 2)), device="cpu").search(np.ones((0, 2)), 2)
    assert distances.shape == indices.shape == (0, 2)


# --------------------------------------------------------------------------------------------------
# Of a set to itself, and by angle
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 39])
def test_the_nearest_of_unit_length_are_the_most_alike_by_angle(k: int) -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(40, 6)) * rng.uniform(0.1, 10, (40, 1))).astype(np.float32)
    found = nearest_others(unit_length(features), k, device="cpu")
    assert (found.shape, found.dtype) == ((40, k), np.int64)
    # 1. by hand
    similarity = unit(features) @ unit(features).T
    np.fill_diagonal(similarity, -2)
    assert (found == np.argsort(-similarity, axis=1)[:, :k]).all()
    # 2. by scikit-learn
    theirs = NearestNeighbors(n_neighbors=k, metric="cosine").fit(features).kneighbors(return_distance=False)
    assert (found == theirs).all()
    assert not (found == np.arange(40)[:, None]).any()
    # 3. some rows alone
    assert (nearest_others(unit_length(features), k, np.array([7, 3])) == found[[7, 3]]).all()


def test_a_row_s_double_is_its_neighbour_and_itself_is_not() -> None:
    features = np.eye(4, dtype=np.float32)[[0, 1, 0, 1]]
    assert nearest_others(features, 1).ravel().tolist() == [2, 3, 0, 1]
    # a feature of length 0 has neighbours too, and is not its own
    features[0] = 0
    assert 0 not in nearest_others(unit_length(features), 3)[0]


@pytest.mark.parametrize("k", [0, 4, -1])
def test_more_neighbours_than_other_rows_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k = {k} is outside 1\.\.3"):
        nearest_others(np.eye(4, dtype=np.float32), k)


def test_unit_length_of_any_size() -> None:
    features = np.random.default_rng(1).normal(size=(3, 5, 4)) * np.array([1e-30, 1, 1e30]).reshape(3, 1, 1)
    features[1, 2] = 0
    made = unit_length(features)
    assert made.dtype == np.float32
    lengths = np.linalg.norm(made, axis=-1)
    np.testing.assert_allclose(np.delete(lengths.ravel(), 7), 1, rtol=1e-6)
    assert lengths[1, 2] == 0


# --------------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------------


def test_bad_features_are_refused_in_one_line() -> None:
    good = np.ones((4, 3))
    for bad, message in (
        (np.ones(3), r"references must have shape \(N,D\), got \(3,\)"),
        (np.ones((2, 2, 2)), r"references must have shape"),
        (np.ones((3, 0)), r"references must have shape"),
        (np.array([[1.0, np.nan], [1.0, 2.0]]), "references: 1 of 2 rows hold a NaN or infinity"),
        (np.array([[1.0, -np.inf]]), "references: 1 of 1 rows"),
        (np.array([[1e300, 0.0]]), "references: 1 of 1 rows"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            NeighbourSearch(bad, device="cpu")
        assert "\n" not in str(caught.value)
    search = NeighbourSearch(good, device="cpu")
    with pytest.raises(ValueError, match="features have 2 columns and the references 3"):
        search.search(np.ones((1, 2)), 1)
    with pytest.raises(ValueError, match="features: 1 of 1 rows hold a NaN"):
        search.search(np.full((1, 3), np.nan), 1)
    for k in (0, -1, 5):
        with pytest.raises(ValueError, match=rf"k = {k} is outside 1\.\.4, the number of references$"):
            search.search(good, k)
    with pytest.raises(ValueError, match=r"k = 1 is outside 1\.\.0"):
        NeighbourSearch(np.ones((0, 3)), device="cpu").search(good, 1)
    with pytest.raises(ValueError, match="references: 4 rows and 3 ids"):
        NeighbourSearch(good, ["a", "b", "c"], "cpu")
    with pytest.raises(ValueError, match="features: 4 rows and 1 ids"):
        search.search(good, 1, ["a"])


def test_features_of_any_kind_and_layout() -> None:
    columns = np.asfortranarray(np.arange(12).reshape(4, 3))
    rows = check_features("x", columns)
    assert rows.dtype == np.float32 and rows.flags.c_contiguous
    np.testing.assert_array_equal(rows, columns)
    locked = np.ones((2, 2), np.float32)
    locked.flags.writeable = False
    assert NeighbourSearch(locked, device="cpu").search(locked, 1)[0].tolist() == [[0], [0]]
    own = np.ones((2, 2), np.float32)
    assert check_features("x", own) is own


def test_torch_and_faiss_share_a_process() -> None:
    """Both load an OpenMP runtime; with two threads each, they must work in one process."""
    code = """import faiss, numpy as np, torch
torch.set_num_threads(2); faiss.omp_set_num_threads(2)
x = torch.randn(500, 64)
for _ in range(3):
    torch.nn.functional.conv2d(torch.randn(4, 8, 16, 16), torch.randn(8, 8, 3, 3)); x @ x.T
    found = faiss.knn(x.numpy(), x.numpy(), 1)[1][:, 0]
assert (found == np.arange(500)).all()
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
