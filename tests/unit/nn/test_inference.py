from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from torch import nn
from torch.nn import functional as F

from sdviz.config.nodes import UNetConfig
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.nn import inference
from sdviz.nn.device import has_fast_bf16
from sdviz.nn.inference import Form, InferenceModel, cpu_forms, in_form, prepare_for_inference
from sdviz.nn.randomness import content_ids
from sdviz.nn.unet import NoisePredictor, build_noise_predictor
from sdviz.outliers import DiffusionModel, Recipe, generate_outliers

CPU = torch.device("cpu")
N_CLASSES = 4
SMALL = UNetConfig(arch="small", channels=(16, 32), layers_per_block=1)
DDPM = UNetConfig(arch="ddpm", channels=(16, 32), layers_per_block=1)

exact_forms = pytest.mark.parametrize(
    "form", [form for form in cpu_forms() if form.dtype == torch.float32], ids=lambda form: form.blocks
)


def scatter(model: NoisePredictor) -> NoisePredictor:
    """Draws at random what a new network has at 0 or 1, so that each layer has an effect."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    return model.eval().requires_grad_(False)


def network(config: UNetConfig = SMALL, size: int = 16) -> NoisePredictor:
    torch.manual_seed(0)
    return scatter(build_noise_predictor(config, N_CLASSES, size))


def inputs(n: int, size: int = 16, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, size, size, generator=generator)
    return (
        x,
        torch.randint(1000, (n,), generator=generator),
        torch.randint(N_CLASSES + 1, (n,), generator=generator),
    )


# --- the prepared network on this machine -----------------------------------------------------------


def test_prepared_predicts_what_the_model_predicts() -> None:
    model, given = network(), inputs(6)
    ready = prepare_for_inference(model, CPU)
    expected, eps = model(*given), ready(*given)
    assert eps.dtype == torch.float32
    assert eps.is_contiguous()
    assert ready.description in {form.description for form in cpu_forms()}
    assert ready.description.startswith(str(ready.dtype).removeprefix("torch."))
    error = (eps - expected).abs().mean() / expected.abs().mean()
    assert error < (0.02 if ready.dtype == torch.bfloat16 else 1e-5)


def test_bfloat16_is_tried_only_where_the_cpu_computes_in_it() -> None:
    assert (torch.bfloat16 in {form.dtype for form in cpu_forms()}) == has_fast_bf16(CPU)


def test_the_form_that_was_measured_once_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDVIZ_CACHE", str(tmp_path))
    model = network()
    first = prepare_for_inference(model, CPU)
    (key,) = kept = json.loads((tmp_path / "fastest.json").read_text())
    assert kept[key]["fastest"] == first.description
    assert set(kept[key]["milliseconds"]) == {form.description for form in cpu_forms()}
    # another run of the same network goes by the file, whatever it would measure
    for form in cpu_forms():
        kept[key]["fastest"] = form.description
        (tmp_path / "fastest.json").write_text(json.dumps(kept))
        assert prepare_for_inference(network(), CPU).description == form.description
    # another architecture is measured for itself
    prepare_for_inference(network(DDPM), CPU)
    assert len(json.loads((tmp_path / "fastest.json").read_text())) == 2


def test_preparing_draws_nothing_from_the_global_generator() -> None:
    model = network()
    before = torch.get_rng_state()
    for form in cpu_forms():
        in_form(model, form)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_itself_is_not_touched() -> None:
    model, given = network(), inputs(2)
    before = copy.deepcopy(model.state_dict())
    ready = prepare_for_inference(model, CPU)
    eps = ready(*given)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(ready(*given), eps)


def test_an_image_alone_is_what_it_is_in_a_batch() -> None:
    ready, schedule = prepare_for_inference(network(size=16), CPU), NoiseSchedule.linear(1000)
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    labels, targets = np.zeros(5, np.int64), np.array([1, 2, 3, 1, 2])

    def generate(rows: slice) -> np.ndarray:
        return generate_outliers(
            DiffusionModel(ready, schedule, N_CLASSES, CPU),
            images[rows],
            labels[rows],
            targets[rows],
            content_ids(images[rows]),
            Recipe(100, 2.0, 5, "ddim"),
        ).outliers.astype(float)

    together = generate(slice(None))
    for i in range(5):
        assert np.abs(generate(slice(i, i + 1))[0] - together[i]).mean() < 1


def test_threads_do_not_see_each_others_pictures() -> None:
    ready = prepare_for_inference(network(), CPU)
    work = [inputs(4, seed=s) for s in range(8)]
    alone = [ready(*w) for w in work]
    with ThreadPoolExecutor(4) as pool:
        for expected, eps in zip(alone, pool.map(lambda w: ready(*w), work), strict=True):
            torch.testing.assert_close(eps, expected, rtol=0, atol=1e-4)


def test_a_network_without_exchanged_parts_is_called_as_it_is() -> None:
    model, given = network(), inputs(3)
    plain = InferenceModel(model, torch.float32, "float32")
    torch.testing.assert_close(plain(*given), model(*given), rtol=1e-4, atol=1e-5)


# --- the exchanged parts, in float32, where they must agree to the last digits -------------------------


@exact_forms
@pytest.mark.parametrize(
    ("config", "size", "rows"),
    [
        (SMALL, 16, 2),
        (SMALL, 12, 3),  # 6 px and 3 px inside: no whole 4x4 blocks
        (SMALL, 16, 70),  # from 64 rows on diffusers leaves channels-last for its upsampling
        (DDPM, 16, 2),  # attention between the blocks, downsampling without padding
        (UNetConfig(arch="small", channels=(16, 16, 32), pixel_unshuffle=1), 16, 2),
    ],
)
def test_every_form_is_the_same_function(config: UNetConfig, size: int, rows: int, form: Form) -> None:
    model, given = network(config, size), inputs(rows, size)
    fast = in_form(model, form)
    kinds = {type(m).__name__ for m in fast.network.modules()}
    assert ({"_Residual", "_Upsample", "_NormSiLU"} <= kinds) == (form.blocks != "plain")
    assert ("_PackedConv" in kinds) == (form.blocks == "packed")
    assert ("ResnetBlock2D" in kinds) == (form.blocks == "plain")
    torch.testing.assert_close(fast(*given), model(*given), rtol=1e-4, atol=1e-5)


@exact_forms
@pytest.mark.parametrize(
    "other", [{"resnet_time_scale_shift": "scale_shift"}, {"act_fn": "gelu"}, {"mid_block_scale_factor": 2.0}]
)
def test_blocks_that_are_built_otherwise_stay_as_they_are(other: dict[str, str | float], form: Form) -> None:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("ResnetDownsampleBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "ResnetUpsampleBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=4,
        num_class_embeds=N_CLASSES + 1,
        **other,
    )
    model, given = scatter(NoisePredictor(unet, 1)), inputs(3, 8)
    fast = in_form(model, form)
    kinds = {type(m).__name__ for m in fast.network.modules()}
    assert "ResnetBlock2D" in kinds
    torch.testing.assert_close(fast(*given), model(*given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("mean", [0.0, 5.0])
def test_norm_silu_by_pytorchs_own(dtype: torch.dtype, tolerance: float, mean: float) -> None:
    generator = torch.Generator().manual_seed(0)
    norm = nn.GroupNorm(4, 8, eps=1e-6)
    nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
    nn.init.normal_(norm.bias, generator=generator)
    x = (torch.randn(3, 8, 8, 8, generator=generator) + mean).to(dtype)
    shift = torch.randn(3, 8, generator=generator)
    with torch.no_grad():
        expected = F.silu(norm(x.float() + shift[:, :, None, None]))
        y = inference._NormSiLU(norm)(x, shift)
    assert y.dtype == dtype
    assert (y.float() - expected).abs().max() < tolerance * 3


# --- CUDA -------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestCuda:
    def test_graphs_predict_what_the_model_predicts_at_any_batch_size(self) -> None:
        model = network(DDPM)
        ready = prepare_for_inference(model, torch.device("cuda"))
        assert "CUDA graphs" in ready.description
        for n in (1, 8, 13, inference.MAX_GRAPH_ROWS, inference.MAX_GRAPH_ROWS + 2):
            given = inputs(n)
            expected = model(*given)
            eps = ready(*(g.cuda() for g in given)).cpu()
            assert (eps - expected).abs().mean() / expected.abs().mean() < 0.02

    def test_a_result_is_not_overwritten_by_the_next_call(self) -> None:
        ready = prepare_for_inference(network(), torch.device("cuda"))
        first = ready(*(g.cuda() for g in inputs(4, seed=1)))
        kept = first.clone()
        ready(*(g.cuda() for g in inputs(4, seed=2)))
        assert torch.equal(first, kept)
        assert torch.equal(ready(*(g.cuda() for g in inputs(4, seed=1))), kept)

    def test_threads_do_not_see_each_others_pictures(self) -> None:
        ready = prepare_for_inference(network(), torch.device("cuda"))
        work = [tuple(g.cuda() for g in inputs(4, seed=s)) for s in range(8)]
        alone = [ready(*w) for w in work]
        with ThreadPoolExecutor(4) as pool:
            for expected, eps in zip(alone, pool.map(lambda w: ready(*w), work), strict=True):
                assert torch.equal(eps, expected)
