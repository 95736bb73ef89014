from __future__ import annotations

from pathlib import Path

from sdviz.analysis.records import read_record
from sdviz.bundle import Bundle
from sdviz.ui.results.maps import profile_of
from sdviz.ui.results.paper import about_family, family_names

CHECKPOINTS = Path(__file__).resolve().parents[4] / "checkpoints"


def test_a_family_says_what_its_detector_started_from() -> None:
    shown = about_family([read_record(CHECKPOINTS / "cifar10", "cifar10")])
    assert shown.startswith("detector from small (labels of tinyimagenet), SCAN labels, S, w = 100, 2, k = 10")
    assert "SimCLR on shapes" in about_family([read_record(CHECKPOINTS / "shapes", "shapes")])


def test_no_two_families_have_one_name() -> None:
    one, two = (read_record(CHECKPOINTS / "shapes", name) for name in ("one", "two"))
    assert family_names([[one]]) == [about_family([one])]
    assert family_names([[one], [two]]) == [f"{about_family([one])}: {name}" for name in ("one", "two")]


def test_the_command_for_more_runs_is_of_the_bundles_own_set_and_profile() -> None:
    assert profile_of(Bundle.load(CHECKPOINTS / "cifar10", "cpu")) == "configs/cifar10-cpu.yaml"
    assert profile_of(Bundle.load(CHECKPOINTS / "shapes", "cpu")) == "configs/shapes.yaml"
