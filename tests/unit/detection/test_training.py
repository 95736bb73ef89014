from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from sdviz.config.nodes import DetectorConfig, OptimizerConfig, ViewsConfig
from sdviz.detection import training
from sdviz.detection.metrics import auroc
from sdviz.detection.training import epoch_steps, load_epoch, train_detector
from sdviz.nn.detector import Detector, detector_outputs
from sdviz.nn.encoder import Encoder
from sdviz.nn.loop import Execution, LoopReport, TrainingDiverged, TrainingStateError
from sdviz.nn.weights import EncoderError

ROOT = Path(__file__).resolve().parents[3]
STILL = ViewsConfig(
    area=(1.0, 1.0),
    max_shift=0.0,
    random_flip=False,
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
    grey_share=0,
)
TINY = DetectorConfig(epochs=3, batch_size=12, optimizer=OptimizerConfig(learning_rate=1e-3), views=STILL)


def make_detector(seed: int = 0, zero_heads: bool = True) -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Detector(Encoder("small", 4), 2, zero_heads)


@dataclass
class Images:
    """ID images: bright above (0) or below (1); outliers: bright left (0) or right (1)."""

    id_images: np.ndarray
    id_labels: np.ndarray
    outlier_images: np.ndarray
    outlier_labels: np.ndarray

    @property
    def all(self) -> tuple[np.ndarray, ...]:
        return self.id_images, self.id_labels, self.outlier_images, self.outlier_labels


def draw(n: int = 20, m: int = 14, seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)

    def side(count: int, transpose: bool) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 2
        images = rng.integers(0, 100, (count, 8, 8, 3))
        images[labels == 0, :4] += 130
        images[labels == 1, 4:] += 130
        return (images.swapaxes(1, 2) if transpose else images).astype(np.uint8), labels.astype(np.int64)

    return Images(*side(n, False), *side(m, True))


@pytest.fixture
def images(one_thread: None) -> Images:
    return draw()


def weights(detector: Detector) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in detector.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def stop_after(n_steps: int):  # noqa: ANN201
    asked = iter(range(10**6))
    return lambda: next(asked) >= n_steps


# --------------------------------------------------------------------------------------------------
# What it learns
# --------------------------------------------------------------------------------------------------


def test_without_outliers_it_trains_on_the_same_id_images(images: Images) -> None:
    nothing = images.outlier_images[:0], images.outlier_labels[:0]
    reports: list[LoopReport] = []
    detector, start = make_detector(), make_detector()
    execution = Execution("cpu", on_report=reports.append)
    assert train_detector(detector, images.id_images, images.id_labels, *nothing, TINY, execution)
    assert reports[-1].total_steps == 3 * epoch_steps(len(images.id_images), TINY)
    # g_out has nothing to learn from
    assert torch.equal(detector.g_out.weight, start.g_out.weight)
    assert not torch.equal(detector.g_in.weight, start.g_in.weight)


@pytest.mark.parametrize("frozen", [0, 2, 4])
def test_plain_images_start_from_what_the_frozen_blocks_make_of_them(
    images: Images, frozen: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SDVIZ_CACHE", str(tmp_path))
    # in bfloat16 the frozen blocks would round otherwise than where they are computed once
    monkeypatch.setattr(training, "fast_autocast", lambda where: nullcontext())
    more = {"frozen_blocks": frozen, "distillation": 0.1, "epochs": 2}
    looked = 0

    def count(module: torch.nn.Module, given: object) -> None:
        nonlocal looked
        looked += 1

    found = []
    # views that change nothing are computed anew in each step
    for views in (STILL, None):
        detector, looked = make_detector(), 0
        hook = detector.encoder.register_forward_pre_hook(count)
        config = TINY.model_copy(update=more | {"views": views})
        assert train_detector(detector, *images.all, config, Execution("cpu"))
        hook.remove()
        found.append((weights(detector), looked))
    (expected, of_views), (plain, of_plain) = found
    for name, value in expected.items():
        torch.testing.assert_close(plain[name], value, rtol=1e-3, atol=1e-4)
    # the network sees each image once, and one to measure; or in each step, where nothing is frozen
    assert of_plain == (of_views if frozen == 0 else 3)


def test_all_three_heads_learn(one_thread: None) -> None:
    images = draw(96, 96)
    better = OptimizerConfig(learning_rate=5e-3)
    config = TINY.model_copy(update={"epochs": 12, "batch_size": 32, "optimizer": better})
    detector = make_detector()
    reports: list[LoopReport] = []
    assert train_detector(detector, *images.all, config, Execution("cpu", on_report=reports.append))
    assert reports[-1].step == reports[-1].total_steps == 72
    assert reports[-1].loss < 0.5 * reports[0].loss
    assert not detector.training
    test = draw(40, 40, seed=1)
    inside, outside = (detector_outputs(detector, x, "cpu") for x in (test.id_images, test.outlier_images))
    assert auroc(*(x.g_bin[:, 1] - x.g_bin[:, 0] for x in (inside, outside))) > 0.95
    assert (inside.g_in.argmax(1) == test.id_labels).mean() > 0.95
    assert (outside.g_out.argmax(1) == test.outlier_labels).mean() > 0.95


def test_the_same_seed_gives_the_same_weights(images: Images) -> None:
    results = []
    for seed in (0, 0, 1):
        detector = make_detector()
        config = TINY.model_copy(update={"seed": seed, "views": ViewsConfig()})
        train_detector(detector, *images.all, config, Execution("cpu"))
        results.append(weights(detector))
    assert_same(results[0], results[1])
    assert any(not torch.equal(results[0][name], results[2][name]) for name in results[0])


def test_frozen_blocks_stay_as_they_are(images: Images) -> None:
    detector = make_detector()
    before = weights(detector)
    train_detector(detector, *images.all, TINY.model_copy(update={"frozen_blocks": 2}), Execution("cpu"))
    after = weights(detector)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    frozen = {f"encoder.body.{i}." for i in (0, 1)}
    assert changed == {name for name in after if not name.startswith(tuple(frozen))}
    with pytest.raises(EncoderError, match="frozen_blocks 99: small has"):
        train_detector(
            make_detector(), *images.all, TINY.model_copy(update={"frozen_blocks": 99}), Execution("cpu")
        )


# --------------------------------------------------------------------------------------------------
# What it is shown
# --------------------------------------------------------------------------------------------------


class Witness(Detector):
    """Remembers the grey level of every image that it was shown in training, outliers apart."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(Encoder("small", 4), 2)
        self.seen: list[tuple[list[int], list[int]]] = []

    def forward(self, x: torch.Tensor):  # noqa: ANN201
        if self.training:
            levels = ((x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
            self.seen.append((levels[: len(levels) // 2], levels[len(levels) // 2 :]))
        return super().forward(x)


def numbered(first: int, count: int) -> np.ndarray:
    """uint8 (count,8,8,3), image i of grey level first + i."""
    levels = np.arange(first, first + count, dtype=np.uint8)
    return np.repeat(levels, 8 * 8 * 3).reshape(count, 8, 8, 3)


@pytest.mark.parametrize(("n", "m"), [(20, 14), (20, 20), (20, 3), (20, 70), (18, 18), (5, 9), (1, 1)])
def test_an_epoch_shows_every_id_image_once_and_as_many_outliers(one_thread: None, n: int, m: int) -> None:
    witness = Witness()
    labels = np.zeros(n, np.int64), np.zeros(m, np.int64)
    train_detector(witness, numbered(0, n), labels[0], numbered(100, m), labels[1], TINY, Execution("cpu"))
    steps = epoch_steps(n, TINY)
    assert len(witness.seen) == 3 * steps
    orders = []
    for epoch in range(3):
        batches = witness.seen[epoch * steps : (epoch + 1) * steps]
        assert all(len(a) == len(b) <= 6 for a, b in batches)
        assert max(len(a) for a, _ in batches) - min(len(a) for a, _ in batches) <= 1
        orders.append([level for a, _ in batches for level in a])
        assert sorted(orders[-1]) == list(range(n))
    assert n < 5 or orders[0] != orders[1] != orders[2]
    # no outlier comes again before all have come
    shown = [level for _, b in witness.seen for level in b]
    assert len(shown) == 3 * n
    for first in range(0, len(shown), m):
        turn = shown[first : first + m]
        assert len(set(turn)) == len(turn) and set(turn) <= set(range(100, 100 + m))


def test_reconstructions_stand_in_for_their_own_images(one_thread: None) -> None:
    labels = np.zeros(40, np.int64)
    id_images, outliers = numbered(0, 40), numbered(200, 40)
    for share in (0.0, 0.3, 1.0):
        witness = Witness()
        config = TINY.model_copy(update={"reconstructed_id": share, "epochs": 10})
        train_detector(
            witness, id_images, labels, outliers, labels, config, Execution("cpu"), numbered(100, 40)
        )
        shown = np.array([level for a, _ in witness.seen for level in a]).reshape(10, 40)
        assert (np.sort(shown % 100, axis=1) == np.arange(40)).all()
        assert (shown >= 100).mean() == pytest.approx(share, abs=0.08)
        # not always the same ones
        assert share != 0.3 or len({tuple(sorted(row[row >= 100])) for row in shown}) == 10
        assert all(level >= 200 for _, b in witness.seen for level in b)


def test_both_sides_are_augmented(one_thread: None) -> None:
    witness = Witness()
    labels = np.zeros(12, np.int64)
    config = TINY.model_copy(update={"views": STILL.model_copy(update={"noise": 0.1})})
    train_detector(witness, numbered(50, 12), labels, numbered(150, 12), labels, config, Execution("cpu"))
    for side, first in ((0, 50), (1, 150)):
        levels = np.array([level for batch in witness.seen for level in batch[side]])
        assert ((levels < first) | (levels >= first + 12)).any()


# --------------------------------------------------------------------------------------------------
# What keeps it near its start
# --------------------------------------------------------------------------------------------------


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in after if not torch.equal(before[name], after[name])}


def test_frozen_batch_norms_keep_their_statistics_and_the_rest_learns(images: Images) -> None:
    for frozen in (False, True):
        detector = make_detector()
        before = weights(detector)
        config = TINY.model_copy(update={"frozen_batch_norm": frozen})
        train_detector(detector, *images.all, config, Execution("cpu"))
        changed = moved(before, weights(detector))
        statistics = {name for name in before if "running" in name}
        assert statistics and changed & statistics == (set() if frozen else statistics)
        assert {"encoder.body.0.0.weight", "encoder.body.0.1.weight", "g_bin.weight"} <= changed


def test_heads_are_trained_alone_first_on_features_of_plain_images(one_thread: None) -> None:
    images = draw(96, 96)
    start = make_detector()
    # the rate of what follows is so low that it changes nothing to speak of
    update = {
        "batch_size": 32,
        "head_epochs": 60,
        "head_learning_rate": 0.1,
        "epochs": 1,
        "frozen_blocks": len(start.encoder.blocks),
        "optimizer": OptimizerConfig(learning_rate=1e-12),
    }
    detector = make_detector()
    reports: list[LoopReport] = []
    config = TINY.model_copy(update=update)
    assert train_detector(detector, *images.all, config, Execution("cpu", on_report=reports.append))
    assert reports[-1].total_steps == 6  # the epochs of the heads are not among the steps
    assert_same(weights(start.encoder), weights(detector.encoder))
    inside, outside = (detector_outputs(detector, x, "cpu") for x in (images.id_images, images.outlier_images))
    # scikit-learn's linear classifiers of the fixed features say what can be reached
    both = np.concatenate([inside.features, outside.features])
    is_outlier = np.arange(len(both)) >= len(inside.features)
    sides = np.concatenate([inside.g_bin, outside.g_bin]).argmax(1)
    for features, truth, ours in (
        (inside.features, images.id_labels, inside.g_in.argmax(1)),
        (outside.features, images.outlier_labels, outside.g_out.argmax(1)),
        (both, is_outlier, sides),
    ):
        judge = LogisticRegression(C=1e3, max_iter=5000).fit(features, truth)
        assert (ours == truth).mean() > judge.score(features, truth) - 0.1 > 0.6


def test_distillation_holds_the_features_of_both_sides(images: Images) -> None:
    start = make_detector(zero_heads=False)
    gone: dict[float, list[float]] = {}
    for weight in (0.0, 10.0):
        detector = make_detector(zero_heads=False)
        sgd = OptimizerConfig(name="sgd", learning_rate=1e-2)
        update = {"distillation": weight, "optimizer": sgd, "frozen_batch_norm": True, "epochs": 10}
        train_detector(detector, *images.all, TINY.model_copy(update=update), Execution("cpu"))
        gone[weight] = [
            float(((detector_outputs(detector, x, "cpu")[0] - detector_outputs(start, x, "cpu")[0]) ** 2).sum())
            for x in (images.id_images, images.outlier_images)
        ]
    assert all(held < 0.3 * free for held, free in zip(gone[10.0], gone[0.0], strict=True)), gone


def test_with_neighbours_g_bin_learns_and_leaves_the_features_alone(one_thread: None) -> None:
    images = draw(96, 96)
    update = {"bin_loss": "neighbours", "epochs": 12, "batch_size": 32, "outlier_weight": 0.0}
    config = TINY.model_copy(update=update | {"optimizer": OptimizerConfig(learning_rate=5e-3)})
    detector = make_detector()
    train_detector(detector, *images.all, config, Execution("cpu"))
    test = draw(40, 40, seed=1)
    inside, outside = (detector_outputs(detector, x, "cpu") for x in (test.id_images, test.outlier_images))
    assert auroc(*(x.g_bin[:, 1] - x.g_bin[:, 0] for x in (inside, outside))) > 0.95
    # the weights of f do not depend on what g_bin starts from
    other = make_detector()
    with torch.no_grad():
        other.g_bin.weight.fill_(3.0)
    train_detector(other, *images.all, config, Execution("cpu"))
    assert_same(weights(detector.encoder), weights(other.encoder))
    assert not torch.equal(detector.g_bin.weight, other.g_bin.weight)


def test_after_each_epoch_it_is_asked_and_goes_on_as_if_it_were_not(images: Images) -> None:
    plain, watched = make_detector(), make_detector()
    asked: list[int] = []

    def after_epoch(epoch: int) -> None:
        asked.append(epoch)
        detector_outputs(watched, images.id_images, "cpu")

    train_detector(plain, *images.all, TINY, Execution("cpu"))
    train_detector(watched, *images.all, TINY, Execution("cpu"), after_epoch=after_epoch)
    assert asked == [1, 2, 3]
    assert_same(weights(plain), weights(watched))


# --------------------------------------------------------------------------------------------------
# Snapshots, stopping, resuming
# --------------------------------------------------------------------------------------------------


def epochs_of(folder: Path) -> list[dict[str, torch.Tensor]]:
    """The encoder's weights before training and after each epoch, from the start that `make_detector` gives."""
    found = []
    for epoch in range(TINY.epochs + 1):
        encoder = make_detector().encoder
        if epoch:
            load_epoch(encoder, folder, epoch)
        found.append(weights(encoder))
    return found


def test_the_weights_after_every_epoch_are_kept(images: Images, tmp_path: Path) -> None:
    detector = make_detector()
    assert train_detector(detector, *images.all, TINY, Execution("cpu"), epochs_folder=tmp_path)
    kept = epochs_of(tmp_path)
    assert len(list(tmp_path.iterdir())) == TINY.epochs == 3
    assert_same(kept[3], weights(detector.encoder))
    assert not all(torch.equal(kept[1][key], kept[2][key]) for key in kept[1])
    # keeping them changes nothing
    plain = make_detector()
    train_detector(plain, *images.all, TINY, Execution("cpu"))
    assert_same(weights(detector), weights(plain))


def test_of_frozen_blocks_nothing_is_kept(images: Images, tmp_path: Path) -> None:
    detector = make_detector()
    config = TINY.model_copy(update={"frozen_blocks": len(detector.encoder.blocks)})
    train_detector(detector, *images.all, config, Execution("cpu"), epochs_folder=tmp_path)
    assert all(load_file(path) == {} for path in tmp_path.iterdir())
    assert_same(epochs_of(tmp_path)[3], weights(make_detector().encoder))


KEPT_NEAR = {
    "head_epochs": 2,
    "frozen_batch_norm": True,
    "distillation": 0.1,
    "bin_loss": "neighbours",
    "optimizer": OptimizerConfig(name="sgd", learning_rate=1e-2, max_grad_norm=0.1),
}


@pytest.mark.parametrize(
    ("n_steps", "more_settings"),
    [*((n, {}) for n in (0, 1, 3, 4, 5, 8, 11)), *((n, KEPT_NEAR) for n in (3, 8, 9, 13))],
)
def test_stopped_and_resumed_is_undisturbed(
    images: Images, tmp_path: Path, n_steps: int, more_settings: dict[str, object]
) -> None:
    config = TINY.model_copy(update={"reconstructed_id": 0.5, "views": ViewsConfig()} | more_settings)
    rebuilt = images.id_images[::-1].copy()

    def train(detector: Detector, folder: Path, state: Path | None, **more: object) -> bool:
        folder.mkdir(exist_ok=True)
        return train_detector(detector, *images.all, config, Execution("cpu", state, **more), rebuilt, folder)

    undisturbed = make_detector()
    assert train(undisturbed, tmp_path / "whole", None)
    state = tmp_path / "state.pt"
    assert not train(make_detector(), tmp_path / "parts", state, should_stop=stop_after(n_steps))
    # of the heads alone, 8 steps, nothing is kept
    assert state.is_file() == (not more_settings or n_steps >= 8)
    resumed = make_detector()
    assert train(resumed, tmp_path / "parts", state)
    assert_same(weights(undisturbed), weights(resumed))
    for a, b in zip(epochs_of(tmp_path / "whole"), epochs_of(tmp_path / "parts"), strict=True):
        assert_same(a, b)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[3])
from test_training import TINY, draw, make_detector
from sdviz.detection.training import load_epoch, train_detector
from sdviz.nn.loop import Execution
torch.set_num_threads(1)
asked = iter(range(1000))
def die():
    if next(asked) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return False
config = TINY.model_copy(update={"save_every_sec": 1e-9})
execution = Execution("cpu", Path(sys.argv[1]), should_stop=die)
train_detector(make_detector(), *draw().all, config, execution, None, Path(sys.argv[1]).parent)
"""


def test_killed_and_resumed_is_undisturbed(images: Images, tmp_path: Path) -> None:
    state = tmp_path / "parts" / "state.pt"
    state.parent.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", KILLED, str(state), "9", str(Path(__file__).parent)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    undisturbed, resumed, whole = make_detector(), make_detector(), tmp_path / "whole"
    whole.mkdir()
    train_detector(undisturbed, *images.all, TINY, Execution("cpu"), epochs_folder=whole)
    steps: list[int] = []

    def count() -> bool:
        steps.append(1)
        return False

    execution = Execution("cpu", state, should_stop=count)
    assert train_detector(resumed, *images.all, TINY, execution, epochs_folder=state.parent)
    assert len(steps) == 3  # 12 in all, and 9 were done
    assert_same(weights(undisturbed), weights(resumed))
    for a, b in zip(epochs_of(whole), epochs_of(state.parent), strict=True):
        assert_same(a, b)


def test_an_epoch_that_is_gone_is_said_to_be(images: Images, tmp_path: Path) -> None:
    train_detector(make_detector(), *images.all, TINY, Execution("cpu"), epochs_folder=tmp_path)
    path = tmp_path / "epoch-001.safetensors"
    kept = path.read_bytes()
    for damage in (None, kept[:20]):
        path.unlink(missing_ok=True)
        if damage is not None:
            path.write_bytes(damage)
        with pytest.raises(TrainingStateError, match=r"epoch-001.safetensors: gone or damaged"):
            load_epoch(make_detector().encoder, tmp_path, 1)


def test_a_loss_that_is_no_number_is_an_error(images: Images) -> None:
    config = TINY.model_copy(update={"optimizer": OptimizerConfig(name="sgd", learning_rate=1e30)})
    with pytest.raises(TrainingDiverged, match="the detector's loss or gradient became"):
        train_detector(make_detector(), *images.all, config, Execution("cpu"))


# --------------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_in_one_line(images: Images) -> None:
    a, y, b, z = images.all
    rebuilding = TINY.model_copy(update={"reconstructed_id": 0.5})
    for given, config, rebuilt, message in (
        ((a[:0], y[:0], b, z), TINY, None, r"ID images must be uint8 \(N,H,W,3\) with N at least 1"),
        ((a / 255, y, b, z), TINY, None, r"ID images must be uint8 .*, not float64"),
        ((a, y[:-1], b, z), TINY, None, r"ID labels have shape \(19,\) for 20 images"),
        ((a, y + 1, b, z), TINY, None, r"ID labels must lie in 0\.\.1"),
        ((a, y, b, z - 1), TINY, None, r"outlier labels must lie in 0\.\.1"),
        ((a, y, b[:, :4], z), TINY, None, "differ in size"),
        ((a, y, b, z), rebuilding, None, "reconstructed_id needs a reconstruction of every ID image"),
        ((a, y, b, z), rebuilding, a[:3], "reconstructed_id needs a reconstruction of every ID image"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            train_detector(make_detector(), *given, config, Execution("cpu"), rebuilt)
        assert "\n" not in str(caught.value)


def test_rows_come_in_whole_permutations() -> None:
    whole = torch.cat([training._shuffled_rows(7, first, 5, 0, "ID") for first in range(0, 35, 5)])
    assert (whole.view(5, 7).sort(1).values == torch.arange(7)).all()
    assert torch.equal(training._shuffled_rows(7, 3, 20, 0, "ID"), whole[3:23])
    assert not torch.equal(
        whole, torch.cat([training._shuffled_rows(7, f, 5, 0, "outliers") for f in range(0, 35, 5)])
    )
