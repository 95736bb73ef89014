from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdviz.analysis import Evidence
from sdviz.bundle import Bundle
from sdviz.ui.pictures import NEAR_OOD_COLOUR, TRAIN_COLOUR
from sdviz.ui.theme import (
    DARK_BACKGROUND,
    LIGHT_BACKGROUND,
    cluster_colour,
    role_colours,
    set_colours,
    set_titles,
)
from tests.cut_bundle import SHIPPED, save_cut_bundle


@pytest.fixture(scope="module")
def colours_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """The colours of a small bundle with these sets scored."""

    def read(sets: tuple[str, ...]) -> dict[str, str]:
        folder: Path = tmp_path_factory.mktemp("cut") / "b"
        return set_colours(Evidence(Bundle.load(save_cut_bundle(folder, 40, 10, sets, n_snapshots=20), "cpu")))

    return read


@pytest.mark.parametrize("sets", [("digits",), ("shapes-novel-val", "digits"), ()])
def test_a_set_keeps_its_colour_whichever_others_were_scored(
    sets: tuple[str, ...], colours_of: Callable[..., dict[str, str]]
) -> None:
    assert colours_of(sets) == set_colours(Evidence(Bundle.load(SHIPPED, "cpu")))


def test_the_shipped_bundles_colours() -> None:
    evidence = Evidence(Bundle.load(SHIPPED, "cpu"))
    assert set_colours(evidence)["shapes-novel"] == "#D55E00"
    assert set_colours(evidence)["shapes-empty"] == "#E69F00"
    assert set_titles(evidence)["digits"] == "digits (far-OOD)"


def test_built_in_sets_have_one_colour_in_every_company() -> None:
    alone = role_colours({"digits": "far"})["digits"]
    among = role_colours({"own": "far", "other": "far", "shapes-empty": "far", "digits": "far"})
    assert among["digits"] == alone and len({among[name] for name in ("own", "other", "digits")}) == 3
    assert role_colours({"svhn:test": "far"})["svhn:test"] == role_colours({"svhn": "far"})["svhn"]


def test_sets_of_ones_own_take_shades_in_their_order_and_more_than_there_are_do_no_harm() -> None:
    many = role_colours({f"parquet:{i}.parquet": "far" for i in range(9)})
    assert len(set(list(many.values())[:5])) == 5
    fewer = role_colours({f"parquet:{i}.parquet": "far" for i in range(3)})
    assert all(many[name] == colour for name, colour in fewer.items())


# what people with full, no green and no red cones see, of linear RGB (Machado et al. 2009, severity 1)
EYES = {
    "full": np.eye(3),
    "deutan": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    low, high = sorted(float(XYZ[1] @ linear(one)) for one in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(colour: str, eye: str) -> np.ndarray:
    x = XYZ @ np.clip(np.asarray(EYES[eye]) @ linear(colour), 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eye", list(EYES))
def test_clusters_are_told_apart_from_each_other_from_training_images_and_from_near_ood(eye: str) -> None:
    colours = [*map(cluster_colour, range(10)), TRAIN_COLOUR, NEAR_OOD_COLOUR]
    for i, one in enumerate(colours):
        for other in colours[i + 1 :]:
            assert np.linalg.norm(lab(one, eye) - lab(other, eye)) > 14, (one, other)
    for one in colours:
        assert contrast(one, LIGHT_BACKGROUND) > 1.9 and contrast(one, DARK_BACKGROUND) > 2.5, one


@pytest.mark.parametrize("eye", list(EYES))
def test_the_sets_of_a_large_bundle_are_told_apart(eye: str) -> None:
    roles = {"test": "id", "a": "near", "v": "validation", "made": "sd"} | dict.fromkeys("bcde", "far")
    colours = list(role_colours(roles).values())
    assert len(set(colours)) == 10
    for i, one in enumerate(colours):
        for other in colours[i + 1 :]:
            assert np.linalg.norm(lab(one, eye) - lab(other, eye)) > 14, (one, other)
