"""What every method refuses, and takes, alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sdviz.baselines import BASELINES, Baseline, BaselineError, Images, Reference
from sdviz.baselines.trained.fake_it import FakeIt
from sdviz.baselines.trained.mscl import MSCL
from sdviz.nn.encoder import Encoder
from tests.baselines import KNOWN, LOGITS, QUERIES, fit, shapes_reference

pytestmark = pytest.mark.usefixtures("one_thread")

N = 12
OF_IMAGES = [key for key, one in BASELINES.items() if one.needs[0] == "images"]
TRAINED = [key for key, one in BASELINES.items() if one.training_passes]
WITH_K = [key for key, one in BASELINES.items() if "k" in one.Settings.model_fields]
WITH_LENGTH = [key for key, one in BASELINES.items() if "normalize" in one.Settings.model_fields]
WITHOUT_NEIGHBOURS = {"ssd", "msp", "energy", "entropy", "rot", "png_size", "input_complexity"}
every = pytest.mark.parametrize("key", BASELINES)


def some(n: int, seed: int = 0, size_px: int = 8, width: int = 6) -> Images:
    rng = np.random.default_rng(seed)
    return Images(
        features=rng.normal(size=(n, width)).astype(np.float32),
        images=rng.integers(0, 256, (n, size_px, size_px, 3), np.uint8),
        logits=rng.normal(size=(n, width)).astype(np.float32),
        ids=np.array([f"a/{seed}/{row}" for row in range(n)]),
    )


def reference() -> Reference:
    torch.manual_seed(0)
    fakes = some(N, 2).images
    return Reference(some(N), np.arange(N) % 3, Encoder("small", 4), fakes, seed=0, device="cpu")


def method(key: str, **settings: object) -> Baseline:
    return BASELINES[key](**({"epochs": 1} if key in TRAINED else {}) | settings)


@pytest.fixture(scope="module")
def fitted(one_thread: None) -> dict[str, Baseline]:
    return {key: method(key).fit(reference()) for key in BASELINES}


def column(key: str) -> str:
    return BASELINES[key].needs[0]


def refused(of: Baseline, images: object, match: str | None = None) -> None:
    with pytest.raises(BaselineError, match=match) as caught:
        of.score(images)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(of.key)


def not_fitted(of: Baseline, on: object, match: str | None = None) -> None:
    with pytest.raises(BaselineError, match=match) as caught:
        of.fit(on)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(of.key)
    refused(of, some(2), "before it is fitted")


@every
def test_nothing_is_scored_before_fit_or_after_one_that_failed(key: str) -> None:
    one = method(key)
    refused(one, some(3), "scores nothing before it is fitted")
    not_fitted(one.fit(reference()), Reference(Images()), f"needs {column(key)}")


@every
def test_other_shapes_than_fitted_are_refused(fitted: dict[str, Baseline], key: str) -> None:
    odd = some(3, size_px=16, width=7)
    shapes = r"images \(N,8,8,3\), not \(N,16,16,3\)" if key in OF_IMAGES else r"\(N,6\), not \(N,7\)"
    refused(fitted[key], odd, shapes)


@every
@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x[0],
        lambda x: x[..., None],
        lambda x: x.astype(str),
        lambda x: x.astype(complex),
        lambda x: [x[0].tolist(), x[0, :1].tolist()],
        lambda x: x[:, :0],
        lambda x: "images",
        lambda x: 3,
        lambda x: None,
        lambda x: x[..., :1] if x.ndim == 4 else x * np.nan,
        lambda x: x / 255 if x.ndim == 4 else x * np.inf,
        lambda x: x.transpose(0, 3, 1, 2) if x.ndim == 4 else x > 0,
    ],
)
def test_what_is_no_column_of_its_kind_is_refused(
    fitted: dict[str, Baseline], key: str, spoil: Callable[[np.ndarray], object]
) -> None:
    bad = replace(some(3), **{column(key): spoil(getattr(some(3), column(key)))})
    refused(fitted[key], bad)
    not_fitted(method(key), replace(reference(), known=replace(bad, ids=None)))


@every
def test_arrays_alone_are_not_images(fitted: dict[str, Baseline], key: str) -> None:
    refused(fitted[key], getattr(some(3), column(key)), "score takes Images, not ndarray")
    not_fitted(method(key), some(3), "fit takes a Reference, not Images")


@every
def test_lists_are_taken_as_arrays(fitted: dict[str, Baseline], key: str) -> None:
    images = some(4, 1)
    assert images.ids is not None
    # of arrays, because the numbers of a picture in lists are no longer uint8
    as_lists = replace(images, **{column(key): list(getattr(images, column(key)))}, ids=images.ids.tolist())
    want = fitted[key].score(images)
    assert want.shape == (4,) and want.dtype == np.float64
    assert np.array_equal(fitted[key].score(as_lists), want)
    known = reference()
    column_ = list(getattr(known.known, column(key)))
    assert known.labels is not None and known.outliers is not None and known.known.ids is not None
    from_lists = replace(
        known,
        known=replace(known.known, **{column(key): column_}, ids=known.known.ids.tolist()),
        labels=known.labels.tolist(),
        outliers=list(known.outliers),
    )
    assert np.array_equal(method(key).fit(from_lists).score(images), want)


@every
def test_whole_numbers_are_features_and_logits_too(key: str) -> None:
    if key in OF_IMAGES:
        return
    known, queries = (np.random.default_rng(i).integers(-9, 9, (n, 6)) for i, n in ((0, N), (1, 3)))
    got, want = (
        method(key)
        .fit(Reference(Images(**{column(key): known.astype(dtype)})))
        .score(Images(**{column(key): queries.astype(dtype)}))
        for dtype in (np.int64, np.float32)
    )
    assert np.array_equal(got, want)


@every
def test_ids_fit_the_images(fitted: dict[str, Baseline], key: str) -> None:
    images = some(3)
    refused(fitted[key], replace(images, ids=np.array(["a", "b"])), r"ids must be text \(3,\), .* \(2,\)")
    refused(fitted[key], replace(images, ids=np.arange(3)), "ids must be text")
    refused(fitted[key], replace(images, ids="a"), "ids must be text")
    short = replace(reference().known, ids=np.array(["a"]))
    not_fitted(method(key), replace(reference(), known=short), r"ids must be text \(12,\)")


@every
def test_an_image_of_the_reference_is_not_its_own_neighbour(fitted: dict[str, Baseline], key: str) -> None:
    known = reference().known
    with_ids, without = fitted[key].score(known), fitted[key].score(replace(known, ids=None))
    if key in WITHOUT_NEIGHBOURS:
        assert np.array_equal(with_ids, without)
    else:
        assert (with_ids > without).all()


@every
def test_no_images_have_no_scores(fitted: dict[str, Baseline], key: str) -> None:
    for nothing in (some(0), Images(features=[], images=[], logits=[], ids=[])):  # type: ignore[arg-type]
        got = fitted[key].score(nothing)
        assert got.shape == (0,) and got.dtype == np.float64
        not_fitted(method(key), replace(reference(), known=nothing), "no ID images to fit on")


@pytest.mark.parametrize("key", WITH_K)
@pytest.mark.parametrize("k", [0, -1, 2.5, True, None, "2", float("nan")])
def test_k_is_a_whole_number_from_1(key: str, k: object) -> None:
    with pytest.raises(BaselineError, match="k must be a whole number, 1 or more, not ") as caught:
        method(key, k=k)
    assert str(caught.value).startswith(key) and str(caught.value).endswith(f"not {k!r}")


@pytest.mark.parametrize("key", WITH_K)
def test_k_may_be_numpys(fitted: dict[str, Baseline], key: str) -> None:
    want = method(key, k=3).fit(reference()).score(some(2, 1))
    assert np.array_equal(method(key, k=np.int64(3)).fit(reference()).score(some(2, 1)), want)


@pytest.mark.parametrize("key", [key for key in WITH_K if key != "knn"])
def test_more_neighbours_than_images_are_refused_before_any_training(key: str) -> None:
    not_fitted(method(key, k=N + 1), reference(), "13 neighbours of 12 ID images: there are too few")
    with pytest.raises(
        BaselineError, match="12 neighbours of 12 ID images, one of them perhaps the image itself"
    ):
        method(key, k=N).fit(reference()).score(some(2))


@pytest.mark.parametrize("key", TRAINED)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epochs", value) for value in (0, -1, float("nan"), float("inf"), True, "5", None)),
        *(("learning_rate", value) for value in (0, -1e-3, float("nan"), "fast")),
        *(("batch_size", value) for value in (0, -1, 1, 2.5, 64.0, True, None)),
        *(("frozen_blocks", value) for value in (-1, 1.0, True, None)),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(key: str, name: str, value: object) -> None:
    with pytest.raises(BaselineError, match=f"{key}: {name} must be a") as caught:
        BASELINES[key](**{name: value})
    assert "\n" not in str(caught.value) and str(caught.value).endswith(f"not {value!r}")


@every
def test_a_setting_that_a_method_has_not_is_refused(key: str) -> None:
    with pytest.raises(BaselineError, match=f"^{key} has no colour$"):
        method(key, colour="red")


@pytest.mark.parametrize("value", ["yes", 1, None])
@pytest.mark.parametrize("key", WITH_LENGTH)
def test_every_method_with_distances_has_one_switch_for_their_length(key: str, value: object) -> None:
    with pytest.raises(BaselineError, match=f"^{key}: normalize must be a valid boolean, not {value!r}$"):
        method(key, normalize=value)


def test_the_switch_stands_where_distances_are_measured() -> None:
    assert set(WITH_LENGTH) == {"dn2", "knn", "ssd", "multiclass_ad", "mscl", "fake_it"}


@pytest.mark.parametrize("key", TRAINED)
def test_more_frozen_blocks_than_there_are_is_one_line(key: str) -> None:
    not_fitted(method(key, frozen_blocks=5), reference(), f"^{key}: frozen_blocks 5: the encoder has 4 blocks$")


def test_a_temperature_is_above_0() -> None:
    with pytest.raises(BaselineError, match="mscl: temperature must be a number above 0, not 0"):
        method("mscl", temperature=0)


@pytest.mark.parametrize(
    ("key", "change", "match"),
    [
        ("multiclass_ad", {"labels": np.arange(5)}, r"whole numbers \(12,\) from 0, not int64 \(5,\)"),
        ("multiclass_ad", {"labels": np.full(N, 0.5)}, "not float64"),
        ("multiclass_ad", {"labels": np.arange(N) - 1}, "the least -1"),
        ("multiclass_ad", {"encoder": "resnet18"}, "must be a sdviz.nn.encoder.Encoder, not str"),
        ("fake_it", {"outliers": np.zeros((0, 8, 8, 3), np.uint8)}, "needs outliers, and there are none"),
        ("fake_it", {"outliers": []}, "needs outliers, and there are none"),
        ("fake_it", {"outliers": np.zeros((3, 16, 16, 3), np.uint8)}, "outliers of the shape of the ID images"),
        ("fake_it", {"outliers": np.zeros((3, 8, 8, 3))}, r"outliers must be uint8 \(N,H,W,3\), not float64"),
        ("rot", {"known": Images(images=np.zeros((N, 8, 6, 3), np.uint8))}, r"must be square, not \(8, 6\)"),
    ],
)  # fmt: skip
def test_a_reference_that_does_not_fit_is_refused(key: str, change: dict[str, Any], match: str) -> None:
    not_fitted(method(key), replace(reference(), **change), match)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(BaselineError, match="^dn2 needs features, and there are none$"):
        BASELINES["dn2"]().fit(Reference(Images(images=np.zeros((2, 8, 8, 3), np.uint8))))
    with pytest.raises(BaselineError, match="fake_it needs outliers"):
        FakeIt().fit(Reference(Images(images=np.zeros((4, 8, 8, 3), np.uint8)), encoder=Encoder("small", 4)))
    with pytest.raises(BaselineError, match="2 neighbours of 1 ID images"):
        fit("dn2", KNOWN[:1]).score(Images(features=QUERIES))
    with pytest.raises(BaselineError, match="NaN"):
        fit("dn2", np.full((3, 2), np.nan, np.float32))
    with pytest.raises(BaselineError, match="logits"):
        fit("msp", logits=LOGITS).score(Images(features=QUERIES))
    with pytest.raises(BaselineError, match="frozen_blocks 4 leaves nothing"):
        MSCL(frozen_blocks=4).fit(shapes_reference())
