from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from sdviz.bundle import Bundle, make_manifest
from sdviz.cli import app
from sdviz.config.nodes import UNetConfig
from sdviz.config.reading import load_config
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.nn.classifier import SmallClassifier
from sdviz.nn.unet import NoisePredictor, build_noise_predictor
from sdviz.pipeline import Workspace, run_stages
from tests.tiny_runs import write_tiny_detector_config

TINY = UNetConfig(channels=(8, 8), layers_per_block=1, pixel_unshuffle=1)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A module's tiny networks on one thread: faster on a busy machine, and the same bits every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_network(one_thread: None) -> Callable[..., NoisePredictor]:
    """Makes a U-Net with random weights of its own seed: 8 channels, 8x8 pixels, 3 classes."""

    def make(config: UNetConfig = TINY, n_classes: int = 3, size: int = 8, seed: int = 0) -> NoisePredictor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build_noise_predictor(config, n_classes, size).eval()

    return make


@pytest.fixture
def tiny_images() -> Callable[..., np.ndarray]:
    """Makes n images, uint8 (n,size,size,3), each of one colour with a little noise."""

    def make(n: int, size: int = 8, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        colours = rng.integers(30, 226, (n, 1, 1, 3))
        return (colours + rng.integers(-30, 30, (n, size, size, 3))).astype(np.uint8)

    return make


@pytest.fixture
def tiny_bundle(tiny_network: Callable[..., NoisePredictor]) -> Callable[..., Bundle]:
    """Makes a bundle in memory: 3 clusters, 8x8 pixels, random weights, S up to 400.

    Arguments: `clusterer`, whether it has one; `pixel_unshuffle`; `seed` of its weights; any other
    replaces a field of its manifest.
    """

    def make(clusterer: bool = True, pixel_unshuffle: int = 1, seed: int = 0, **fields: object) -> Bundle:
        config = TINY.model_copy(update={"pixel_unshuffle": pixel_unshuffle})
        network = tiny_network(config, seed=seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            classifier = SmallClassifier(3, width=4).eval() if clusterer else None
        settings: dict[str, object] = {
            "dataset": "shapes",
            "n_clusters": 3,
            "class_names": ("disk", "ring", "square"),
            "labels_from": "ground truth",
            "image_size": 8,
            "pixel_unshuffle": pixel_unshuffle,
            "max_train_timestep": 400,
            "defaults": {
                "start_timestep": 200,
                "guidance_scale": 2.0,
                "num_inference_steps": 4,
                "solver": "ddim",
            },
        }
        manifest = make_manifest(**(settings | fields))
        return Bundle(manifest, network, NoiseSchedule.linear(), classifier)

    return make


@pytest.fixture(scope="session")
def scored_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run through every stage, from unlabelled pictures to a bundle that scores.

    Beside it lie the pictures that it is of: `pictures`, and the OOD ones in `near` and `validation`.
    """
    folder = tmp_path_factory.mktemp("scored")
    config = load_config(write_tiny_detector_config(folder))
    run = folder / "run"
    run.mkdir()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run_stages(Workspace(run, config, lambda progress: None, lambda: False))
    finally:
        torch.set_num_threads(before)
    return run


COLOURS = np.array([(210, 50, 60), (50, 180, 70), (40, 60, 200), (220, 210, 60)])


@pytest.fixture
def coloured() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Makes pictures of a few colours, uint8 (n,8,8,3) with noise on them, and which colour each has."""

    def make(n: int = 48, n_colours: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % n_colours
        pixels = COLOURS[labels][:, None, None] + rng.integers(-30, 31, (n, 8, 8, 3))
        return np.clip(pixels, 0, 255).astype(np.uint8), labels.astype(np.int64)

    return make


@pytest.fixture
def cli(one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in this process, with its runs in `tmp_path`."""
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    return lambda *args: CliRunner().invoke(app, [str(arg) for arg in args])
