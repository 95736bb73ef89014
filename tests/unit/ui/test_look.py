from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdviz.bundle import Bundle
from sdviz.evidence import Evidence
from sdviz.ui.look import role_colours, set_colours, set_titles
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
