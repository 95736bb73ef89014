from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdviz.config.reading import load_config
from sdviz.nn.encoder import Encoder
from sdviz.nn.unet import build_noise_predictor, n_parameters
from sdviz.pipeline import estimate, stage_names
from sdviz.pipeline.planning.estimate import PROBE_IMAGES, StageEstimate
from tests.tiny_runs import write_tiny_config, write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")

# of each of the 36 pictures
PIXELS = 8 * 8 * 3


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, StageEstimate]]:
    """Estimates a tiny run by a clock on which every step of a network takes 0.1 s an image."""
    now = [0.0]

    def clock() -> float:
        now[0] += 0.1 * PROBE_IMAGES
        return now[0]

    path = write_tiny_detector_config(tmp_path)

    def plan(*overrides: str) -> dict[str, StageEstimate]:
        config = load_config(path, overrides)
        with monkeypatch.context() as patch:
            patch.setattr("time.perf_counter", clock)
            found = estimate(config)
        assert [one.stage for one in found] == list(stage_names(config))
        return {one.stage: one for one in found}

    return plan


def test_seconds_are_images_by_steps(planned: Callable[..., dict[str, StageEstimate]]) -> None:
    found = planned("data.holdout=0.5", "evaluation.controls=[no_training, noise]")
    seconds = {name: one.seconds for name, one in found.items()}
    # 40 steps of 4 images
    assert seconds["diffusion"] == 16.0
    # 40 steps of 16 images, two views each
    assert seconds["encoder"] == 128.0
    # SCAN sees two views; self-labelling trains and looks; and all images are encoded twice
    assert seconds["pseudo_labels"] == pytest.approx(0.1 * (2 * 40 * 24 + 2 * 36 + 2 * 40 * 24))
    # 36 images, under wrong and right labels, in 2 steps of 2 passes
    assert seconds["outliers"] == pytest.approx(0.1 * 36 * 2 * 2 * 2)
    # 3 epochs of images and outliers, and a look at the images after each; one control is trained, too
    assert seconds["detector"] == seconds["controls"] == pytest.approx(0.1 * 3 * (2 + 1) * 36)
    # images, outliers, 18 test images and two OOD sets of 8, by backbone, detector, the control and three
    # networks between backbone and detector; and 24 images before training and after each epoch
    scored = 2 * 36 + 18 + 8 + 8
    assert seconds["features"] == pytest.approx(0.1 * (6 * scored + 4 * 24))


def test_what_keeps_a_detector_near_its_start_has_its_time(
    planned: Callable[..., dict[str, StageEstimate]],
) -> None:
    near = planned("detector.distillation=1", "detector.head_epochs=9", "data.holdout=0.5")
    # the starting network looks at each batch, and once at all images for the heads
    assert near["detector"].seconds == pytest.approx(0.1 * (3 * (2 + 1 + 2) + 2) * 36)
    only = "evaluation.controls=[no_training]"
    seconds = {
        share: planned(only, f"detector.interpolation={share}", "evaluation.interpolation=[0, 0.5]")["features"]
        for share in (0.5, 1.0)
    }
    assert seconds[0.5].seconds < seconds[1.0].seconds


def test_what_frozen_blocks_make_is_computed_once(
    planned: Callable[..., dict[str, StageEstimate]], monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = "detector.frozen_blocks=2", "data.holdout=0.5"
    whole, plain = planned(*frozen), planned(*frozen, "detector.views=null")
    # a step costs the same by this clock; and once, all images and outliers go through the frozen blocks
    assert plain["detector"].seconds - whole["detector"].seconds == pytest.approx(0.1 * 2 * 36)
    # by the backbone, and for the blocks that are trained
    more = whole["features"].seconds - planned("data.holdout=0.5")["features"].seconds
    assert more == pytest.approx(0.1 * (2 * 36 + 18 + 8 + 8))


def test_bytes_are_weights_pictures_and_features(
    planned: Callable[..., dict[str, StageEstimate]], tmp_path: Path
) -> None:
    found = planned("data.holdout=0.5", "outliers={per_image: 3, limit: 10}", "detector.reconstructed_id=0")
    config = load_config(tmp_path / "tiny.yaml").diffusion.unet
    unet, encoder = (
        4 * n_parameters(one) for one in (build_noise_predictor(config, 3, 8), Encoder("small", 4))
    )
    assert found["diffusion"].bytes == unet and found["encoder"].bytes == encoder
    # the control `right_label` of the default wants both kinds
    assert found["outliers"].bytes == 10 * 3 * 2 * PIXELS
    # by detector, backbone and the trained controls of the default, in float16; and the snapshots
    scored, n_controls = 2 * 10 + 18 + 8 + 8, 2
    assert found["features"].bytes == 2 * 16 * ((2 + n_controls + 3) * scored + 4 * 24)


def test_a_limit_of_time_caps_the_diffusion(planned: Callable[..., dict[str, StageEstimate]]) -> None:
    assert planned("diffusion.time_limit_sec=5")["diffusion"].seconds == 5.0


def test_other_methods_cost_their_passes(planned: Callable[..., dict[str, StageEstimate]]) -> None:
    # without a method that trains there is no such stage
    found = planned("evaluation.baselines=[dn2, msp]")
    assert "baselines" not in found
    one, three = (planned(f"evaluation.baselines=[{{method: rot, epochs: {n}}}]")["baselines"] for n in (1, 3))
    # four turns of 36 images an epoch
    assert (one.seconds, three.seconds) == pytest.approx((0.1 * 4 * 36, 0.1 * 3 * 4 * 36))
    asked = 4 + 8 + 8  # a tenth of 36 is held out
    assert found["baseline_scores"].bytes == 8 * asked * 2
    assert found["baseline_scores"].seconds == pytest.approx(0.1 * 2 * (36 + asked), abs=0.1)


def test_trials_cost_a_training_each(planned: Callable[..., dict[str, StageEstimate]]) -> None:
    found = planned(
        "evaluation.tuning={trials: 3}", "evaluation.baselines=[dn2, {method: rot, epochs: 2}, msp]"
    )
    # three epochs of the detector over images and outliers, each watched on the images; and rot
    detector = 3 * (2 * 36 + 36)
    trained = detector + 4 * 2 * 36
    assert found["tuning"].seconds == pytest.approx(0.1 * (3 + 1) * trained)
    # three methods, and ours, dn2 and rot as tuned
    assert found["baseline_scores"].bytes == 8 * 20 * 6
    twice = "evaluation.tuning={trials: 3, criterion: left_out, left_out_pairs: 2}"
    found = planned(twice, "labels.n_clusters=4")
    assert found["tuning"].seconds == pytest.approx(0.1 * (3 * 2 + 1) * detector)


def test_a_run_without_a_detector_makes_no_outliers(tmp_path: Path) -> None:
    found = {one.stage: one for one in estimate(load_config(write_tiny_config(tmp_path)))}
    assert list(found) == ["pseudo_labels", "clusterer", "diffusion", "bundle"]
    assert all(one.seconds >= 0 for one in found.values())
    assert found["bundle"].bytes == found["diffusion"].bytes // 2


def test_generated_images_take_their_steps_and_those_of_their_outliers(
    planned: Callable[..., dict[str, StageEstimate]],
) -> None:
    generated = "bundle.generated={n_images: 10, num_inference_steps: 7}"
    found = planned("diffusion.max_train_timestep=null", generated)["generated"]
    assert found.seconds == pytest.approx(0.1 * 10 * 2 * (7 + 2)) and found.bytes == 2 * 10 * PIXELS
