from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import mahalanobis
from scipy.stats import entropy as scipy_entropy
from scipy.stats import multivariate_normal
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from sdviz import data
from sdviz.baselines import BASELINES, Baseline, BaselineError, Images, Reference
from sdviz.baselines.complexity.input_complexity import InputComplexity, complexity_bits
from sdviz.baselines.complexity.png_size import png_bits
from sdviz.baselines.trained.fake_it import FakeIt
from sdviz.baselines.trained.mscl import MSCL, mean_shifted_loss
from sdviz.baselines.trained.multiclass_ad import MulticlassAD
from sdviz.baselines.trained.rot import Rot, quarter_turns
from sdviz.config.nodes import ViewsConfig
from sdviz.nn.batches import encode
from sdviz.nn.encoder import Encoder

RNG = np.random.default_rng(0)
KNOWN = RNG.normal(size=(120, 6)).astype(np.float32)
QUERIES = RNG.normal(0.5, 1.2, size=(15, 6)).astype(np.float32)
LOGITS = RNG.normal(0, 5, size=(15, 4)).astype(np.float32)


def fitted(key: str, known: np.ndarray = KNOWN, **images: np.ndarray) -> Baseline:
    return BASELINES[key]().fit(Reference(Images(features=known, **images)))


def unit(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)


def test_dn2_is_scikit_learns_two_neighbours() -> None:
    distances, _ = NearestNeighbors(n_neighbors=2).fit(KNOWN.astype(np.float64)).kneighbors(QUERIES)
    assert np.allclose(fitted("dn2").score(Images(features=QUERIES)), (distances**2).sum(1), rtol=1e-5)


def test_knn_is_scikit_learns_fiftieth_neighbour_at_unit_length() -> None:
    distances, _ = NearestNeighbors(n_neighbors=50).fit(unit(KNOWN)).kneighbors(unit(QUERIES))
    assert np.allclose(fitted("knn").score(Images(features=QUERIES)), distances[:, -1], rtol=1e-5)


def test_an_image_is_not_its_own_neighbour() -> None:
    ids = np.array([f"a/b/{i}" for i in range(len(KNOWN))])
    method = fitted("dn2", ids=ids)
    distances, _ = NearestNeighbors(n_neighbors=3).fit(KNOWN.astype(np.float64)).kneighbors(KNOWN[:5])
    got = method.score(Images(features=KNOWN[:5], ids=ids[:5]))
    assert np.allclose(got, (distances[:, 1:] ** 2).sum(1), rtol=1e-5)
    assert (method.score(Images(features=KNOWN[:5])) < got).all()


def test_ssd_is_scipys_mahalanobis_distance() -> None:
    known = unit(KNOWN)
    precision = np.linalg.inv(np.cov(known, rowvar=False, bias=True))
    expected = [mahalanobis(q, known.mean(0), precision) ** 2 for q in unit(QUERIES)]
    assert np.allclose(fitted("ssd").score(Images(features=QUERIES)), expected, rtol=1e-4)


def test_scores_of_the_cluster_head() -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    p = logits.softmax(1).numpy()
    images = Images(logits=LOGITS)
    assert np.allclose(fitted("msp", logits=LOGITS).score(images), -p.max(1))
    assert np.allclose(fitted("energy", logits=LOGITS).score(images), -torch.logsumexp(logits, 1).numpy())
    assert np.allclose(fitted("entropy", logits=LOGITS).score(images), scipy_entropy(p, axis=1), atol=1e-12)


def test_scores_of_the_cluster_head_survive_huge_logits() -> None:
    huge = Images(logits=np.array([[1e4, -1e4, 0, 0]], np.float32))
    scores = {key: fitted(key, logits=LOGITS).score(huge)[0] for key in ("msp", "energy", "entropy")}
    assert scores["msp"] == -1 and scores["energy"] == -1e4 and scores["entropy"] == pytest.approx(0)


def test_png_size_measures_files() -> None:
    images = data.load("shapes", "test", limit=4).images
    stream = io.BytesIO()
    Image.fromarray(images[0]).save(stream, "PNG", optimize=True)
    assert png_bits(images)[0] == 8 * len(stream.getvalue()) / (32 * 32 * 3)
    method = BASELINES["png_size"]().fit(Reference(Images(images=images)))
    flat = np.full((1, 32, 32, 3), 90, np.uint8)
    assert method.score(Images(images=flat))[0] > method.score(Images(images=images)).max()


def test_input_complexity_is_a_gaussian_less_the_best_compressor() -> None:
    images = data.load("shapes", "test", limit=900).images[:, :8, :8]
    method = InputComplexity().fit(Reference(Images(images=images)))
    x = images.reshape(len(images), -1).astype(np.float64)
    covariance = np.cov(x, rowvar=False, bias=True) + np.eye(192) * (1 / 12 + 1e-3)
    log_p = multivariate_normal(x.mean(0), covariance).logpdf(x[:5]) / np.log(2) / 192
    assert np.allclose(method.log2_likelihood(images[:5]), log_p)
    assert np.allclose(method.score(Images(images=images[:5])), -log_p - complexity_bits(images[:5]))
    assert (complexity_bits(images[:5]) <= png_bits(images[:5])).all()


def test_mean_shifted_loss_is_the_formula() -> None:
    features, centre, tau = RNG.normal(size=(6, 5)), RNG.normal(size=5) * 0.1, 0.25
    z = unit(unit(features) - centre)
    similarity = z @ z.T / tau
    losses = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        losses.append(-similarity[i, (i + 3) % 6] + np.log(np.exp(similarity[i, others]).sum()))
    got = mean_shifted_loss(torch.tensor(features), torch.tensor(centre), tau)
    assert float(got) == pytest.approx(np.mean(losses))


def test_quarter_turns_are_numpys() -> None:
    x = RNG.normal(size=(3, 3, 8, 8))
    turned, turns = quarter_turns(torch.tensor(x))
    for row, turn in enumerate(turns.tolist()):
        assert np.array_equal(turned[row].numpy(), np.rot90(x[row % 3], turn, (1, 2)))


def tiny_reference(n: int = 96, seed: int = 0) -> Reference:
    some = data.load("shapes", "train", limit=n)
    torch.manual_seed(0)
    encoder = Encoder("small", 4)
    noise = np.random.default_rng(1).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    views = ViewsConfig(area=(0.8, 1.0))
    return Reference(Images(images=some.images, ids=some.ids), some.labels, encoder, noise, views, seed, "cpu")


TRAINED = [MulticlassAD(epochs=2), MSCL(epochs=2), FakeIt(epochs=8), Rot(epochs=2)]


@pytest.mark.parametrize("method", TRAINED, ids=lambda one: one.key)
def test_trained_methods_leave_the_encoder_alone_and_repeat(method: Baseline) -> None:
    reference = tiny_reference()
    before = {k: v.clone() for k, v in reference.encoder.state_dict().items()}  # type: ignore[union-attr]
    shown: list[float] = []
    test = data.load("shapes", "test", limit=6)
    images = Images(images=test.images, ids=test.ids)
    first = method.fit(reference, shown.append).score(images)
    assert first.shape == (6,) and first.dtype == np.float64 and np.isfinite(first).all()
    assert shown[-1] == 1.0
    assert all(torch.equal(v, before[k]) for k, v in reference.encoder.state_dict().items())  # type: ignore[union-attr]
    assert np.array_equal(method.fit(reference).score(images), first)
    assert not np.array_equal(method.fit(tiny_reference(seed=1)).score(images), first)


def test_fake_it_learns_what_its_outliers_are_like() -> None:
    reference = tiny_reference(192)
    method = FakeIt(epochs=12).fit(reference)
    test = data.load("shapes", "test", limit=60).images
    noise = np.random.default_rng(2).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    scores = [method.score(Images(images=one)) for one in (test, noise)]
    assert roc_auc_score([0] * 60 + [1] * 60, np.concatenate(scores)) > 0.9


def test_what_is_missing_is_named() -> None:
    with pytest.raises(BaselineError, match="^dn2 needs features, and there are none$"):
        BASELINES["dn2"]().fit(Reference(Images(images=np.zeros((2, 8, 8, 3), np.uint8))))
    with pytest.raises(BaselineError, match="fake_it needs outliers"):
        FakeIt().fit(Reference(Images(images=np.zeros((4, 8, 8, 3), np.uint8)), encoder=Encoder("small", 4)))
    with pytest.raises(BaselineError, match="2 neighbours of 1 ID images"):
        fitted("dn2", KNOWN[:1]).score(Images(features=QUERIES))
    with pytest.raises(BaselineError, match="NaN"):
        fitted("dn2", np.full((3, 2), np.nan, np.float32))
    with pytest.raises(BaselineError, match="logits"):
        fitted("msp", logits=LOGITS).score(Images(features=QUERIES))
    with pytest.raises(BaselineError, match="frozen_blocks 9 leaves nothing"):
        MSCL(frozen_blocks=9).fit(tiny_reference())


@pytest.mark.parametrize("key", BASELINES)
def test_docstrings_name_the_source(key: str) -> None:
    method = BASELINES[key]
    assert method.key == key and method.title and method.needs
    text = method.__doc__ or ""
    assert key == "png_size" or any(str(year) in text for year in [*range(2015, 2026), 1948])


@pytest.mark.parametrize("method", [MulticlassAD(k=3, epochs=1), MSCL(k=3, epochs=1), FakeIt(k=3, epochs=1)])
def test_a_trained_methods_score_is_scikit_learns_on_its_own_features(
    method: MulticlassAD | MSCL | FakeIt,
) -> None:
    reference = tiny_reference()
    test = data.load("shapes", "test", limit=6).images
    got = method.fit(reference).score(Images(images=test))
    assert reference.known.images is not None
    known, queries = (
        encode(method._encoder, one, "cpu").astype(float) for one in (reference.known.images, test)
    )
    if isinstance(method, MSCL):
        known, queries = unit(known), unit(queries)
    distances, _ = NearestNeighbors(n_neighbors=3).fit(known).kneighbors(queries)
    assert np.allclose(got, (distances**2).sum(1), rtol=1e-4)


def test_rots_score_is_the_mean_cross_entropy_over_turns() -> None:
    method = Rot(epochs=1).fit(tiny_reference())
    test = data.load("shapes", "test", limit=5).images
    losses = []
    for turn in range(4):
        turned = np.ascontiguousarray(np.rot90(test, turn, (1, 2)))
        logits = encode(torch.nn.Sequential(method._encoder, method._head), turned, "cpu").astype(float)
        p = np.exp(logits - logits.max(1, keepdims=True))
        losses.append(-np.log(p[:, turn] / p.sum(1)))
    assert np.allclose(method.score(Images(images=test)), np.mean(losses, axis=0), rtol=1e-4, atol=1e-5)
