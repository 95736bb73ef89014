from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from sdviz.bundle import Bundle
from sdviz.ui.text import plain

Open = Callable[..., AppTest]
Shipped = Callable[..., Path]
Read = Callable[[AppTest], list[dict[str, Any]]]


def test_home_shows_real_images_and_their_outliers(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    at = open_app()
    (grid,) = component_data(at)
    assert grid["columns"] == 6
    assert [r["text"] for r in grid["row_names"]] == ["original", "noised, S = 100", "outlier"]
    originals, noised, outliers = (grid["cells"][i : i + 6] for i in (0, 6, 12))
    assert [c["text"] for c in originals[:3]] == ["disk", "ring", "square"]
    for original, out, told in zip(originals, noised, outliers, strict=True):
        assert len({original["src"], out["src"], told["src"]}) == 3
        assert told["text"] != f"told {original['text']}"


@pytest.mark.parametrize("is_kept", [True, False])
def test_home_promises_no_more_than_the_clusterer_sees(
    shipped: Shipped, open_app: Open, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    shipped()
    # what a clusterer sees that calls the outliers as their originals, or all of them otherwise
    monkeypatch.setattr(
        Bundle, "pseudo_label", lambda self, images: ((np.arange(len(images)) + (not is_kept)) % 10, None)
    )
    at = open_app()
    info, captions = (" ".join(one.value for one in kind) for kind in (at.info, at.caption))
    says = f"The bundle's own clusterer still calls {6 * is_kept} of these 6 outliers what their originals are"
    assert says in (info if is_kept else captions)
    assert ("hardly change the object" in info) == is_kept
    assert "each of six classes" in captions


def test_home_calls_clusters_clusters(shipped: Shipped, open_app: Open) -> None:
    path = shipped()
    tree = json.loads((path / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps(tree | {"labels_from": "SCAN"}))
    assert "each of six clusters" in " ".join(one.value for one in open_app().caption)


def test_home_names_bundle_data_and_device(shipped: Shipped, open_app: Open) -> None:
    shipped()
    texts = " ".join(c.value for c in open_app().caption)
    for expected in ("`tiny`", "labels from ground truth", "`shapes-novel`", "`digits`", "CPU (1 thread)"):
        assert expected in texts


def test_the_button_leads_into_the_lab(shipped: Shipped, open_app: Open) -> None:
    shipped()
    at = open_app()
    at.button[0].click().run()
    assert not at.exception
    assert at.title[0].value == "Outlier lab"


def test_home_without_a_bundle_teaches_the_command(open_app: Open) -> None:
    at = open_app()
    assert "no trained network" in " ".join(m.value for m in at.markdown)
    assert at.code[0].value == "python -m sdviz run configs/shapes-quick.yaml"


def test_a_damaged_bundle_is_named_and_the_page_lives(shipped: Shipped, open_app: Open) -> None:
    path = shipped()
    weights = path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    at = open_app()
    line = "diffusion_pytorch_model.safetensors was changed or cut"
    assert plain(line) in " ".join(m.value for m in at.markdown)


def test_a_damaged_bundle_leaves_the_other_usable(shipped: Shipped, open_app: Open) -> None:
    (shipped("a-damaged") / "bundle.json").write_text("{")
    shipped("b-good")
    at = open_app()
    assert "not valid JSON" in " ".join(m.value for m in at.markdown)
    at.selectbox(key="bundle").select("b-good").run()
    assert not at.exception
    assert "`b-good`" in " ".join(c.value for c in at.caption)


def test_the_bundle_whose_images_every_machine_draws_is_opened_first(shipped: Shipped, open_app: Open) -> None:
    shipped("cifar10", dataset="cifar10"), shipped("shapes"), shipped("zebras")
    at = open_app()
    assert at.selectbox(key="bundle").value == "shapes"
    assert at.selectbox(key="bundle").options == ["shapes", "cifar10", "zebras"]


def test_a_bundle_of_a_set_that_is_not_here_says_how_to_get_it(shipped: Shipped, open_app: Open) -> None:
    path = shipped()
    tree = json.loads((path / "bundle.json").read_text())
    tree["dataset"] = "cifar10"
    (path / "bundle.json").write_text(json.dumps(tree))
    at = open_app()
    assert "`python -m sdviz download cifar10` fetches it" in " ".join(c.value for c in at.caption)


def test_the_button_into_the_lab_keeps_a_bundle_that_stands_in_the_link(
    open_app: Callable[..., AppTest], shipped: Callable[..., Path]
) -> None:
    shipped("a"), shipped("b")
    at = open_app(None, {"bundle": "b"})
    assert at.selectbox(key="bundle").value == "b"
    next(one for one in at.button if one.label == "Open the outlier lab").click().run()
    assert not at.exception
    assert at.title[0].value == "Outlier lab"
    assert at.selectbox(key="bundle").value == "b"
