from __future__ import annotations

from pathlib import Path

from sdviz.evidence.records import read_record
from sdviz.ui.results_paper import about_family

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"


def test_a_family_says_what_its_detector_started_from() -> None:
    shown = about_family([read_record(CHECKPOINTS / "cifar10", "cifar10")])
    assert shown.startswith("detector from small (labels of tinyimagenet), SCAN labels, S, w = 100, 2, k = 10")
    assert "SimCLR on shapes" in about_family([read_record(CHECKPOINTS / "shapes", "shapes")])
