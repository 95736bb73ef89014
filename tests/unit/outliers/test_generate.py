from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from sdviz.diffusion.guidance import GuidedNoise
from sdviz.diffusion.samplers import SAMPLERS
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.nn.pixels import to_images, to_tensor
from sdviz.nn.randomness import image_noise
from sdviz.nn.unet import NoisePredictor
from sdviz.outliers import (
    DiffusionModel,
    OutlierBatch,
    Recipe,
    SamplingDiverged,
    check_images,
    generate_outliers,
)
from tests.grey_levels import grey_levels

SCHEDULE = NoiseSchedule.linear(1000)
RECIPE = Recipe(200, 2.0, 5, "ddim")
CPU = torch.device("cpu")
RECIPES = {
    "ddim": RECIPE,
    "ddim, eta .5": dataclasses.replace(RECIPE, eta=0.5),
    "ddpm": dataclasses.replace(RECIPE, solver="ddpm"),
    "dpmpp_2m": dataclasses.replace(RECIPE, solver="dpmpp_2m"),
}


@pytest.fixture
def generate(
    tiny_network: Callable[..., NoisePredictor], tiny_images: Callable[..., np.ndarray]
) -> Callable[..., OutlierBatch]:
    network = tiny_network()

    def run(
        rows: list[int] | None = None,
        recipe: Recipe = RECIPE,
        device: torch.device = CPU,
        **options: Any,  # noqa: ANN401
    ) -> OutlierBatch:
        rows = list(range(7)) if rows is None else rows
        images, ids = tiny_images(7)[rows], np.array([f"id {i}" for i in range(7)])[rows]
        labels = np.arange(7)[rows] % 3
        targets = options.pop("targets", (labels + 1) % 3)
        model = DiffusionModel(network.to(device), SCHEDULE, 3, device)
        return generate_outliers(model, images, labels, targets, ids, recipe, **options)

    return run


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"must be uint8 \(N,8,8,3\), not float32 \(2, 8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), r"not uint8 \(8, 8, 3\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"not uint8 \(2, 3, 8, 8\)"),
        (np.zeros((2, 16, 16, 3), np.uint8), r"not uint8 \(2, 16, 16, 3\)"),
        (np.zeros((2, 8, 8, 1), np.uint8), r"not uint8 \(2, 8, 8, 1\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no images"),
    ],
)
def test_refuses_images_of_another_kind(images: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_images(images, 8)


def test_takes_a_list_of_images() -> None:
    assert check_images([np.zeros((8, 8, 3), np.uint8)] * 2, 8).shape == (2, 8, 8, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_an_image_gets_the_same_outlier_alone_and_in_any_batch(
    generate: Callable[..., OutlierBatch], recipe: Recipe
) -> None:
    whole = generate(recipe=recipe)
    # the network edits, and each image otherwise: else the same would be no merit
    assert grey_levels(whole.outliers, whole.noised) > 3
    for batch_size in (1, 2, 3, 100):
        again = generate(recipe=recipe, batch_size=batch_size)
        assert grey_levels(again.outliers, whole.outliers) < 0.05
        assert (again.noised == whole.noised).all()
    for rows in ([4], [6, 4, 0], [4, 4]):
        part = generate(rows, recipe)
        assert grey_levels(part.outliers, whole.outliers[rows]) < 0.05
        assert (part.ids == whole.ids[rows]).all()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_another_seed_gives_another_outlier(generate: Callable[..., OutlierBatch], recipe: Recipe) -> None:
    a, b = (generate(recipe=dataclasses.replace(recipe, seed=seed)) for seed in (0, 1))
    assert grey_levels(a.noised, b.noised) > 20
    assert grey_levels(a.outliers, b.outliers) > 3


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_start_and_step_noise_are_those_of_seed_id_and_timestep(
    generate: Callable[..., OutlierBatch],
    tiny_network: Callable[..., NoisePredictor],
    tiny_images: Callable[..., np.ndarray],
    recipe: Recipe,
) -> None:
    recipe = dataclasses.replace(recipe, seed=5)
    ids, shape = ["id 6", "id 2"], (3, 8, 8)
    eps_fn = GuidedNoise(tiny_network(), torch.tensor([1, 0]), 3, recipe.guidance_scale, SCHEDULE)
    x_s = SCHEDULE.add_noise(to_tensor(tiny_images(7)[[6, 2]]), image_noise(ids, shape, 5, "start"), 200)
    x_0 = SAMPLERS[recipe.solver](
        eps_fn,
        x_s,
        SCHEDULE.timesteps(200, 5),
        SCHEDULE,
        eta=recipe.eta,
        step_noise=lambda t: image_noise(ids, shape, 5, f"step {t}"),
    )
    batch = generate([6, 2], recipe)
    assert batch.target_labels.tolist() == [1, 0]
    assert (batch.noised == to_images(x_s)).all()
    assert grey_levels(batch.outliers, to_images(x_0)) < 0.01


def test_the_target_moves_the_outlier_and_w_exaggerates_it(generate: Callable[..., OutlierBatch]) -> None:
    right = generate(targets=np.arange(7) % 3)
    wrong = generate()
    assert (right.labels == wrong.labels).all()
    assert (right.target_labels == right.labels).all()
    assert (right.noised == wrong.noised).all()
    shift = grey_levels(right.outliers, wrong.outliers)
    assert shift > 1
    plain = dataclasses.replace(RECIPE, guidance_scale=0.0)
    unguided = grey_levels(
        generate(targets=np.arange(7) % 3, recipe=plain).outliers, generate(recipe=plain).outliers
    )
    assert shift > 1.5 * unguided
    # without any condition the target cannot matter
    blind = dataclasses.replace(RECIPE, guidance_scale=-1.0)
    assert (generate(targets=np.arange(7) % 3, recipe=blind).outliers == generate(recipe=blind).outliers).all()


@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_no_noise_returns_the_image_whatever_k(generate: Callable[..., OutlierBatch], steps: int) -> None:
    recipe = dataclasses.replace(RECIPE, start_timestep=0, num_inference_steps=steps)
    batch = generate(recipe=recipe, callback=lambda *step: pytest.fail("no step was expected"))
    assert (batch.outliers == batch.noised).all()
    assert (batch.outliers == generate().outliers).mean() < 0.5
    assert (batch.network_calls, batch.evaluations) == (0, 0)


def test_no_noise_returns_the_image(
    generate: Callable[..., OutlierBatch], tiny_images: Callable[..., np.ndarray]
) -> None:
    batch = generate(recipe=dataclasses.replace(RECIPE, start_timestep=0))
    assert (batch.outliers == tiny_images(7)).all()


def test_noised_is_x_s(generate: Callable[..., OutlierBatch], tiny_images: Callable[..., np.ndarray]) -> None:
    def spread(s: int) -> float:
        noised = to_tensor(generate(recipe=dataclasses.replace(RECIPE, start_timestep=s)).noised)
        return (noised - SCHEDULE.alpha_bar(s) ** 0.5 * to_tensor(tiny_images(7))).std().item()

    for s in (20, 50):
        # little enough noise that clipping to the grey levels takes almost none of it away
        assert spread(s) == pytest.approx((1 - SCHEDULE.alpha_bar(s)) ** 0.5, rel=0.1)


def test_the_callback_sees_every_step_of_every_batch_in_turn(generate: Callable[..., OutlierBatch]) -> None:
    seen: list[tuple[int, int]] = []

    def callback(step: int, x: torch.Tensor, x_0: torch.Tensor) -> None:
        assert x.shape == x_0.shape == (len(x), 3, 8, 8)
        assert x_0.abs().max() <= 1
        seen.append((step, len(x)))

    batch = generate(batch_size=4, callback=callback)
    assert seen == [(i, 4) for i in range(5)] + [(i, 3) for i in range(5)]
    assert batch.network_calls == 10


def test_the_last_prediction_is_the_outlier(generate: Callable[..., OutlierBatch]) -> None:
    predictions: list[torch.Tensor] = []
    batch = generate(callback=lambda step, x, x_0: predictions.append(x_0.clone()))
    assert grey_levels(to_images(predictions[-1]), batch.outliers) < 0.01


@pytest.mark.parametrize(
    ("change", "calls", "evaluations"),
    [
        ({}, 5, 10),
        ({"guidance_scale": 0.0}, 5, 5),
        ({"guidance_scale": -1.0}, 5, 5),
        # sigma at the timesteps 199, 149, 100, 50, 0: .72 .52 .34 .18 .01
        ({"guidance_interval": (0.3, 0.6)}, 5, 7),
        ({"guidance_interval": (5.0, 9.0)}, 5, 5),
        ({"num_inference_steps": 1000, "start_timestep": 6}, 6, 12),
        ({"num_inference_steps": 1}, 1, 2),
    ],
)
def test_counts_what_the_network_was_asked(
    generate: Callable[..., OutlierBatch], change: dict[str, Any], calls: int, evaluations: int
) -> None:
    batch = generate(recipe=dataclasses.replace(RECIPE, **change))
    assert (batch.network_calls, batch.evaluations) == (calls, evaluations)
    assert batch.elapsed_sec > 0


def test_an_interval_changes_the_picture_only_where_it_leaves_steps_out(
    generate: Callable[..., OutlierBatch],
) -> None:
    everywhere = generate().outliers
    wide = generate(recipe=dataclasses.replace(RECIPE, guidance_interval=(0.0, 10.0))).outliers
    nowhere = generate(recipe=dataclasses.replace(RECIPE, guidance_interval=(5.0, 9.0))).outliers
    assert (wide == everywhere).all()
    assert (nowhere == generate(recipe=dataclasses.replace(RECIPE, guidance_scale=0.0)).outliers).all()
    assert grey_levels(nowhere, everywhere) > 1


def test_the_batch_tells_where_each_outlier_came_from(generate: Callable[..., OutlierBatch]) -> None:
    batch = generate([2, 0])
    assert len(batch) == 2
    assert batch.outliers.shape == batch.noised.shape == (2, 8, 8, 3)
    assert batch.outliers.dtype == batch.noised.dtype == np.uint8
    assert batch.labels.tolist() == [2, 0]
    assert batch.target_labels.tolist() == [0, 1]
    assert batch.labels.dtype == batch.target_labels.dtype == np.int64
    assert batch.ids.tolist() == ["id 2", "id 0"]
    assert batch.recipe == RECIPE


def test_refuses_a_batch_size_that_would_leave_rows_unmade(generate: Callable[..., OutlierBatch]) -> None:
    for bad in (0, -4):
        with pytest.raises(ValueError, match=f"batch_size {bad} is not at least 1"):
            generate(batch_size=bad)


@pytest.mark.parametrize("solver", list(SAMPLERS))
def test_a_network_that_answers_nan_makes_no_picture(
    tiny_network: Callable[..., NoisePredictor], tiny_images: Callable[..., np.ndarray], solver: str
) -> None:
    network = tiny_network()
    with torch.no_grad():
        network.unet.conv_out.bias[0] = torch.nan
    y = np.array([0, 1])
    recipe = dataclasses.replace(RECIPE, solver=solver)
    with pytest.raises(SamplingDiverged, match="NaN or infinite"):
        model = DiffusionModel(network, SCHEDULE, 3, CPU)
        generate_outliers(model, tiny_images(2), y, (y + 1) % 3, np.array(["a", "b"]), recipe)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_cpu_and_gpu_agree_within_a_grey_level(generate: Callable[..., OutlierBatch], recipe: Recipe) -> None:
    cpu, gpu = generate(recipe=recipe), generate(recipe=recipe, device=torch.device("cuda"))
    assert grey_levels(cpu.outliers, gpu.outliers) < 1
    assert grey_levels(cpu.noised, gpu.noised) < 0.01
