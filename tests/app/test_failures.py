from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file
from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.testing.v1 import AppTest

from sdviz import data

FAILURES = "pages/5_Failures.py"
AT_ONCE = 40
Open = Callable[..., AppTest]
Full = Callable[..., Path]
Read = Callable[[AppTest], list[dict[str, Any]]]


def scored(folder: Path) -> pd.DataFrame:
    """scores.parquet, with each image's own class and the cluster that g_in names, both in words."""
    table = pd.read_parquet(folder / "scores.parquet")
    names = np.array(json.loads((folder / "bundle.json").read_text())["class_names"])
    outputs = load_file(folder / "ood_features.safetensors")
    table["class"], table["cluster"] = "", ""
    for one, rows in table.groupby("set", sort=False).groups.items():
        source, split, _ = table["id"][rows[0]].split("/")
        labels, own = (
            table["label"][rows].to_numpy(),
            np.array([*data.load(source, split, limit=1).class_names, ""]),
        )
        table.loc[rows, "class"] = own[labels]  # -1, unknown, takes the last
        table.loc[rows, "cluster"] = names[outputs[f"{one}.g_in"].argmax(1)]
    return table


def threshold(table: pd.DataFrame, recall: float = 0.95) -> float:
    """The smallest ID score at which that share of ID images lies at or below it."""
    ordered = np.sort(table["total"][table["role"] == "id"])
    return float(ordered[math.ceil(round(recall * len(ordered), 6)) - 1])


def wrong(table: pd.DataFrame, t: float, false_alarms: bool) -> pd.DataFrame:
    """What is called wrongly, worst first, as the file and numpy have it."""
    if false_alarms:
        found = table[(table["role"] == "id") & (table["total"] > t)]
    else:
        found = table[(table["role"] != "id") & (table["total"] <= t)]
    margin = np.abs(found["total"].to_numpy() - t)
    order = np.argsort(-margin, kind="stable")
    return found.assign(margin=margin).iloc[order]


def list_on_show(grids: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells that can be clicked."""
    found = [g for g in grids if g["cells"] and g["cells"][0]["id"]]
    return found[0]["cells"] if found else []


def words(at: AppTest) -> str:
    return " | ".join(
        one.value for kind in ("markdown", "caption", "info", "success") for one in getattr(at, kind)
    )


def link(at: AppTest, key: str) -> str:
    return str(at.query_params.get(key, [""])[0])


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], str]]:
    """What the download buttons of the last run would give, by file name."""
    found: dict[str, Callable[[], str]] = {}
    real = MediaFileManager.add_deferred

    def note(self: MediaFileManager, make: Callable[[], str], *rest: Any, **more: Any) -> str:  # noqa: ANN401
        name = more.get("file_name") or rest[2]
        found[name] = make
        return real(self, make, *rest, **more)

    monkeypatch.setattr(MediaFileManager, "add_deferred", note)
    return found


def test_missed_and_alarms_are_numpys_worst_first(
    full_bundle: Full, open_app: Open, component_data: Read
) -> None:
    table = scored(full_bundle())
    ood = table["total"][table["role"] != "id"].to_numpy()

    # 1. the bundle's own threshold: the one at 95 % ID recall
    at = open_app(FAILURES, {"f_show": "alarms"})
    t = threshold(table)
    alarms = wrong(table, t, True)
    assert 0 < len(alarms) < 40
    assert [c["id"] for c in list_on_show(component_data(at))] == alarms["id"].tolist()
    assert f"Threshold **{t:.4g}**" in words(at)
    assert f"95.0 % of 40 held-out ID images pass, **{len(alarms)} false alarms**" in words(at)
    assert f"Of 160 OOD images **{(ood <= t).sum()} are missed**" in words(at)
    assert at.slider(key="failures_recall").value == 95.0

    # 2. one that lets 45 % of the OOD images through, from the link
    t = float(np.quantile(ood, 0.45))
    missed = wrong(table, t, False)
    at = open_app(FAILURES, {"t": repr(t)})
    assert len(missed) > AT_ONCE
    assert at.segmented_control(key="failures_show").value == "missed"
    assert at.segmented_control(key="failures_show").options[:2] == [
        f"Missed OOD: {len(missed)}",
        f"False alarms: {len(wrong(table, t, True))}",
    ]
    cells = list_on_show(component_data(at))
    at.button(key="failures_turn_1").click().run()
    assert f"{AT_ONCE + 1} to {len(missed)} of {len(missed)}" in words(at)
    cells += list_on_show(component_data(at))
    assert [c["id"] for c in cells] == missed["id"].tolist()
    assert [c["small"] for c in cells] == [f"margin {m:#.3g}" for m in missed["margin"]]
    assert [c["text"] for c in cells] == [
        own or name for own, name in zip(missed["class"], missed["set"], strict=True)
    ]
    assert [c["alt"] for c in cells] == [
        f"{one}, {own or 'class unknown'}, score {s:.4g}"
        for one, own, s in zip(missed["id"], missed["class"], missed["total"], strict=True)
    ]
    # the picture of the first is that image's own
    first = missed.iloc[0]
    source, split, _ = first["id"].split("/")
    images = data.load(source, split)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(cells[0]["src"].split(",", 1)[1]))))
    assert np.array_equal(shown, images.images[np.flatnonzero(images.ids == first["id"])[0]])
