"""The channel means of unshuffled pixels: measured, turned into tables, and what they do to pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sdviz.config.nodes import UNetConfig
from sdviz.diffusion.guidance import guide
from sdviz.diffusion.samplers import SAMPLERS
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.nn import phase_means as phases
from sdviz.nn.device import has_fast_bf16
from sdviz.nn.inference import prepare_for_inference
from sdviz.nn.phase_means import PhaseMeans, PhaseStatistics, measure_phases
from sdviz.nn.unet import NoisePredictor

pytestmark = pytest.mark.usefixtures("one_thread")
SCHEDULE = NoiseSchedule.linear()
SMALL = UNetConfig(channels=(8, 8), layers_per_block=1, pixel_unshuffle=2)


def means_of(x: torch.Tensor, f: int) -> torch.Tensor:
    return F.pixel_unshuffle(x, f).mean((2, 3))


def smooth_images(n: int, size: int = 16, seed: int = 0) -> np.ndarray:
    """Flat colours with a gradient: no grid in them."""
    generator = np.random.default_rng(seed)
    colour = generator.uniform(60, 196, (n, 1, 1, 3))
    slope = np.linspace(-1, 1, size)[None, :, None, None] * generator.uniform(-40, 40, (n, 1, 1, 1))
    return np.round(np.broadcast_to(colour + slope, (n, size, size, 3))).astype(np.uint8)


def to_x(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture
def statistics() -> PhaseStatistics:
    generator = np.random.default_rng(5)
    root = generator.normal(size=(12, 12)) * 0.1
    return PhaseStatistics(mean=generator.normal(size=12).tolist(), covariance=(root @ root.T).tolist())


# --- measured ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("f", [1, 2, 4])
def test_measured_as_torch_unshuffles(
    tiny_images: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch, f: int
) -> None:
    monkeypatch.setattr(phases, "_AT_ONCE", 7)  # more than one part, and the last one is not whole
    images = tiny_images(60)
    found = measure_phases(images, f)
    m = means_of(to_x(images).double(), f)
    np.testing.assert_allclose(found.mean, m.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.covariance, torch.cov(m.T), atol=1e-7)
    found.check(f)


def test_refuses_what_has_no_statistics(tiny_images: Callable[..., np.ndarray]) -> None:
    with pytest.raises(ValueError, match="1 images have no covariance"):
        measure_phases(tiny_images(1), 2)
    with pytest.raises(ValueError, match="8 x 8 px are not multiples of 3"):
        measure_phases(tiny_images(3), 3)


def test_check_names_what_is_wrong(statistics: PhaseStatistics) -> None:
    statistics.check(2)
    with pytest.raises(ValueError, match="phase statistics are not of 48 channels"):
        statistics.check(4)
    for wrong in (np.diag([1.0] * 11 + [-1.0]), np.triu(np.ones((12, 12)))):
        with pytest.raises(ValueError, match="is not a covariance"):
            statistics.model_copy(update={"covariance": wrong.tolist()}).check(2)


# --- the posterior ----------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0, 99, 999])
def test_is_the_conditional_mean_of_a_joint_gaussian(statistics: PhaseStatistics, t: int) -> None:
    n_pixels, d = 16, 12
    table = PhaseMeans(statistics, SCHEDULE.alphas_cumprod, n_pixels)
    x = torch.randn(5, d, 4, 4, generator=torch.Generator().manual_seed(1))
    got = table(torch.zeros_like(x), x, torch.full((5,), t)).mean((2, 3))
    # the joint distribution of (n, y), y = A m + B n, and its textbook conditional mean
    a = SCHEDULE.alpha_bar(t + 1)
    mu, c = np.array(statistics.mean), np.array(statistics.covariance)
    joint = np.block([[np.eye(d) / n_pixels, np.zeros((d, d))], [np.zeros((d, d)), c]])
    to_ny = np.block([[np.eye(d), np.zeros((d, d))], [(1 - a) ** 0.5 * np.eye(d), a**0.5 * np.eye(d)]])
    s = to_ny @ joint @ to_ny.T
    y = x.mean((2, 3)).double().numpy()
    expected = (s[:d, d:] @ np.linalg.solve(s[d:, d:], (y - a**0.5 * mu).T)).T
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-4)


def test_no_linear_guess_is_nearer_to_the_noise(statistics: PhaseStatistics) -> None:
    n_pixels, t, n = 16, 199, 40_000
    generator = np.random.default_rng(0)
    a = SCHEDULE.alpha_bar(t + 1)
    m = generator.multivariate_normal(statistics.mean, statistics.covariance, n)
    noise = generator.normal(size=(n, 12)) / n_pixels**0.5
    y = a**0.5 * m + (1 - a) ** 0.5 * noise
    fitted = np.linalg.lstsq(y - y.mean(0), noise - noise.mean(0), rcond=None)[0].T
    table = PhaseMeans(statistics, SCHEDULE.alphas_cumprod, n_pixels)
    np.testing.assert_allclose(table.gain[t], fitted, atol=0.05)
    ours = (y - table.centre[t].numpy()) @ table.gain[t].numpy().T
    theirs = (y - y.mean(0)) @ fitted.T
    assert ((ours - noise) ** 2).mean() == pytest.approx(((theirs - noise) ** 2).mean(), rel=2e-3)
    # and it is worth something
    assert ((ours - noise) ** 2).mean() < 0.8 * (noise**2).mean()


def test_only_the_means_change(statistics: PhaseStatistics) -> None:
    table, generator = PhaseMeans(statistics, SCHEDULE.alphas_cumprod, 16), torch.Generator().manual_seed(0)
    eps, x = torch.randn(2, 3, 12, 4, 4, generator=generator)
    out = table(eps, x, torch.tensor([0, 10, 500]))
    torch.testing.assert_close(out - out.mean((2, 3), True), eps - eps.mean((2, 3), True), rtol=0, atol=1e-4)
    # whatever the network said of them
    other = table(eps + torch.randn(3, 12, 1, 1, generator=generator), x, torch.tensor([0, 10, 500]))
    torch.testing.assert_close(out, other, rtol=0, atol=1e-4)


def test_guidance_leaves_the_means(statistics: PhaseStatistics) -> None:
    table, t = PhaseMeans(statistics, SCHEDULE.alphas_cumprod, 16), torch.tensor([50, 99])
    x = torch.randn(2, 12, 4, 4)
    cond, uncond = (table(torch.randn(2, 12, 4, 4), x, t) for _ in range(2))
    guided = guide(cond, uncond, 4.0).mean((2, 3))
    torch.testing.assert_close(guided, cond.mean((2, 3)), rtol=0, atol=1e-5)


def test_stays_in_float32_and_out_of_the_weights(statistics: PhaseStatistics) -> None:
    table = PhaseMeans(statistics, SCHEDULE.alphas_cumprod, 16)
    before = table.gain.clone()
    table = table.to(torch.bfloat16).to(memory_format=torch.channels_last)
    assert table.gain.dtype == table.centre.dtype == torch.float32
    assert torch.equal(table.gain, before)
    out = table(torch.zeros(1, 12, 4, 4, dtype=torch.bfloat16), torch.zeros(1, 12, 4, 4), torch.tensor([5]))
    assert out.dtype == torch.float32
    assert table.state_dict() == {}
    assert table.to("meta").gain.device.type == "meta"


# --- in the network, in pictures --------------------------------------------------------------------


def test_a_network_without_phases_is_as_it_was(tiny_network: Callable[..., NoisePredictor]) -> None:
    network = tiny_network(SMALL, size=16)
    x, t, c = torch.randn(2, 3, 16, 16), torch.tensor([5, 50]), torch.tensor([0, 1])
    with torch.no_grad():
        before = network(x, t, c)
        network.phases = PhaseMeans(measure_phases(smooth_images(50), 2), SCHEDULE.alphas_cumprod, 64)
        after = network(x, t, c)
        assert list(network.state_dict()) == [f"unet.{name}" for name in network.unet.state_dict()]
    difference = F.pixel_unshuffle(after - before, 2)
    # one number a channel
    torch.testing.assert_close(
        difference, difference.mean((2, 3), True).expand_as(difference), rtol=0, atol=1e-5
    )
    assert difference.abs().max() > 0.01


def test_prepared_for_inference_it_knows_them_too(tiny_network: Callable[..., NoisePredictor]) -> None:
    network = tiny_network(SMALL, size=16)
    network.phases = PhaseMeans(measure_phases(smooth_images(50), 2), SCHEDULE.alphas_cumprod, 64)
    cpu = torch.device("cpu")
    ready = prepare_for_inference(network, cpu)
    x, t, c = torch.randn(3, 3, 16, 16), torch.tensor([5, 50, 399]), torch.tensor([0, 1, 3])
    with torch.no_grad():
        expected, got = network(x, t, c), ready(x, t, c)
    # x is rounded to bfloat16, the tables are not: in x_0 it makes less than a fifth of a grey level
    in_x_0 = ((1 - SCHEDULE.alphas_cumprod[t]) / SCHEDULE.alphas_cumprod[t]).sqrt()[:, None]
    error = (means_of(got, 2) - means_of(expected, 2)) * in_x_0
    assert error.abs().max() < (0.2 / 127.5 if has_fast_bf16(cpu) else 1e-5)
    assert ready.network.phases is not None
    assert ready.network.phases.gain.dtype == torch.float32


class BlindToMeans(nn.Module):
    """Predicts the noise in known pictures exactly, but without its channel means."""

    config = {"num_class_embeds": 4}

    def __init__(self, x_0: torch.Tensor) -> None:
        super().__init__()
        self.x_0 = F.pixel_unshuffle(x_0, 2)

    def forward(
        self, x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor, return_dict: bool
    ) -> tuple[torch.Tensor]:
        a = SCHEDULE.alphas_cumprod[timesteps][:, None, None, None].to(x)
        eps = (x - a.sqrt() * self.x_0) / (1 - a).sqrt()
        return (eps - eps.mean((2, 3), keepdim=True),)


def grid(x: torch.Tensor) -> float:
    """How strong the frequencies of period 2 are."""
    power = torch.fft.fft2(x).abs().square().mean((0, 1))
    half = x.shape[-1] // 2
    return float((power[half, half] + power[0, half] + power[half, 0]) / 3) ** 0.5


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmpp_2m"])
def test_no_grid_is_left_in_a_denoised_picture(solver: str) -> None:
    x_0 = to_x(smooth_images(64, seed=1))
    generator = torch.Generator().manual_seed(0)
    x_s = SCHEDULE.add_noise(x_0, torch.randn(x_0.shape, generator=generator), 200)
    steps = {t: torch.randn(x_0.shape, generator=generator) for t in range(1000)}
    labels = torch.zeros(64, dtype=torch.int64)

    def denoise(table: PhaseMeans | None) -> torch.Tensor:
        network = NoisePredictor(BlindToMeans(x_0), 2, table)  # type: ignore[arg-type]
        return SAMPLERS[solver](
            lambda x, t: network(x, torch.full((64,), t), labels),
            x_s,
            SCHEDULE.timesteps(200, 10),
            SCHEDULE,
            step_noise=lambda t: steps[t],
        )

    table = PhaseMeans(measure_phases(smooth_images(2000), 2), SCHEDULE.alphas_cumprod, 64)
    without, with_it = grid(denoise(None) - x_0), grid(denoise(table) - x_0)
    assert without > 5
    # what is left is what a Gaussian cannot know of the gradients
    assert with_it < 0.2 * without


# --- CUDA -------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_graphs_on_cuda_know_them_too(tiny_network: Callable[..., NoisePredictor]) -> None:
    network = tiny_network(SMALL, size=16)
    network.phases = PhaseMeans(measure_phases(smooth_images(50), 2), SCHEDULE.alphas_cumprod, 64)
    ready = prepare_for_inference(network, torch.device("cuda"))
    x, t, c = torch.randn(3, 3, 16, 16), torch.tensor([5, 50, 399]), torch.tensor([0, 1, 3])
    with torch.no_grad():
        expected = network(x, t, c)
    got = ready(x.cuda(), t.cuda(), c.cuda()).cpu()
    in_x_0 = ((1 - SCHEDULE.alphas_cumprod[t]) / SCHEDULE.alphas_cumprod[t]).sqrt()[:, None]
    assert ((means_of(got, 2) - means_of(expected, 2)) * in_x_0).abs().max() < 0.2 / 127.5
