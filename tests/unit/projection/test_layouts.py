from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from sdviz.projection import LayoutSettings, align, compute_layouts, trustworthiness


def blobs(n: int = 90, d: int = 12, seed: int = 0) -> np.ndarray:
    return make_blobs(n, d, centers=4, random_state=seed)[0].astype(np.float32)


@pytest.mark.parametrize("dims", [2, 3])
def test_one_epoch_of_pca_is_that_of_scikit_learn(dims: int) -> None:
    x = blobs()
    found = compute_layouts(x[None], LayoutSettings("pca", dims))
    model = PCA(dims, svd_solver="full").fit(x)
    assert found.points.shape == (1, 90, dims)
    assert np.allclose(found.points[0], model.transform(x), atol=1e-4)
    assert np.allclose(found.explained[0], model.explained_variance_ratio_)
    assert found.trust[0] == pytest.approx(sklearn_trustworthiness(x, found.points[0], n_neighbors=10))


def test_one_epoch_of_tsne_is_that_of_scikit_learn() -> None:
    x = blobs()
    found = compute_layouts(x[None], LayoutSettings("tsne", 2, perplexity=11, seed=3))
    want = TSNE(2, perplexity=11, init="pca", random_state=3, n_jobs=1).fit_transform(x)
    assert np.allclose(found.points[0], want - want.mean(0), atol=1e-3)


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_the_same_seed_gives_the_same_layout(method: str) -> None:
    x = blobs(60)[None]
    a, b = (compute_layouts(x, LayoutSettings(method, seed=1)).points for _ in range(2))
    assert np.array_equal(a, b)


def test_epochs_are_turned_over_each_other_and_not_stretched() -> None:
    x = blobs(40, 2)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]], np.float32)
    # PCA of points that were turned, flipped and doubled in size
    found = compute_layouts(np.stack([x, 2 * x @ turn, x * [-1, 1]]), LayoutSettings("pca")).points
    assert np.allclose(found[1], 2 * found[0], atol=1e-3)
    assert np.allclose(found[2], found[0], atol=1e-3)


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_an_epoch_that_changes_nothing_moves_little(method: str) -> None:
    x, blob = make_blobs(80, 12, centers=4, random_state=0)
    found = compute_layouts(np.stack([x, x]), LayoutSettings(method, perplexity=10)).points
    # every point lies nearest to where the middle of its blob was; inside a blob UMAP stirs them
    middles = np.stack([found[0][blob == one].mean(0) for one in range(4)])
    assert (np.linalg.norm(found[1][:, None] - middles, axis=2).argmin(1) == blob).all()
    if method == "tsne":
        moved = np.linalg.norm(found[1] - found[0], axis=1)
        assert np.median(moved) < 0.35 * np.linalg.norm(found[0], axis=1).mean()
    assert trustworthiness(x, found[1]) > 0.9


def test_alignment_undoes_turn_flip_and_shift_and_keeps_distances() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, 3))
    moved = (a @ Rotation.from_euler("xyz", [0.4, 1.0, -2.0]).as_matrix()) * [1, 1, -1] + [3, -1, 7]
    assert np.allclose(align(moved, a), a)
    other = rng.normal(size=(30, 3))
    assert np.allclose(pdist(align(other, a)), pdist(other))
    # no turn of many lies closer
    best = ((align(other, a) - a) ** 2).sum()
    centred = other - other.mean(0)
    for turn in Rotation.random(200, rng=np.random.default_rng(1)).as_matrix():
        assert ((centred @ turn + a.mean(0) - a) ** 2).sum() >= best - 1e-9


def test_progress_rises_to_one() -> None:
    for method in ("pca", "umap"):
        seen: list[float] = []
        compute_layouts(np.stack([blobs(40)] * 2), LayoutSettings(method), seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == 1.0
    assert len(seen) > 4, "UMAP tells how far it is inside one epoch"


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_points_have_a_pca(n: int) -> None:
    found = compute_layouts(blobs(n + 4)[None, :n], LayoutSettings("pca", 3))
    assert found.points.shape == (1, n, 3)
    assert np.isfinite(found.points).all()


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_the_fewest_points_work_and_fewer_are_refused(method: str) -> None:
    assert np.isfinite(compute_layouts(blobs(6)[None], LayoutSettings(method)).points).all()
    with pytest.raises(ValueError, match="at least 6 points, not 5"):
        compute_layouts(blobs(5)[None], LayoutSettings(method))


def test_bad_input_is_named() -> None:
    x = blobs()[None]
    x[0, 3, 4] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        compute_layouts(x, LayoutSettings("pca"))
    with pytest.raises(ValueError, match="shape"):
        compute_layouts(x[0], LayoutSettings("pca"))
    for wrong in ({"method": "lda"}, {"dims": 4}, {"perplexity": 0.5}, {"n_neighbors": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LayoutSettings(**wrong)  # type: ignore[arg-type]


def test_the_key_changes_with_what_counts_only() -> None:
    x = blobs()[None]
    base = LayoutSettings("tsne", perplexity=20)
    assert base.key(x) == LayoutSettings("tsne", perplexity=20, n_neighbors=40).key(x.copy())
    others = [
        LayoutSettings("tsne", perplexity=21).key(x),
        LayoutSettings("tsne", perplexity=20, seed=1).key(x),
        LayoutSettings("tsne", 3, perplexity=20).key(x),
        LayoutSettings("pca").key(x),
        base.key(x + np.float32(1e-3)),
        base.key(x.reshape(2, 45, 12)),
    ]
    assert len({base.key(x), *others}) == 7
