"""What all solvers share, and cases whose answer is known on paper.

Those are of Gaussian data, for which the best noise prediction is a formula.

Class c is N(m_c, s_c^2) in each pixel. Then x_t given c is N(sqrt(a) m_c, a s_c^2 + 1 - a), a = abar_t, and
the best prediction of its noise, -sqrt(1-a) times the gradient of the log density, is

    eps*(x, t, c) = sqrt(1-a) (x - sqrt(a) m_c) / (a s_c^2 + 1 - a).                                  (1)

In X = x / sqrt(a) and sigma = sqrt((1-a)/a) the ODE that DDIM and DPM-Solver follow is dX/dsigma = eps, so

    dX/dsigma = sigma (X - m_c) / (s_c^2 + sigma^2),
    X(0) = m_c + (X(sigma) - m_c) s_c / sqrt(s_c^2 + sigma^2).                                         (2)

Guidance, Eq. 3, with a null prediction that is itself that of one Gaussian N(m_u, s_u^2):

(A) s_u = s_c = s. (1+w) eps_c - w eps_u is (1) with the mean (1+w) m_c - w m_u in place of m_c. All samplers,
    the ancestral one too, must land on N(m_c + w (m_c - m_u), s^2), and the ODE maps each point by (2).

(B) m_u = m_c = m. dX/dsigma = sigma (X - m) [(1+w) / (s_c^2 + sigma^2) - w / (s_u^2 + sigma^2)], so

    X(0) = m + (X(sigma) - m) (s_c^2 / (s_c^2 + sigma^2))^((1+w)/2) ((s_u^2 + sigma^2) / s_u^2)^(w/2). (3)

    This is narrower than N(m, s_c^2) where s_u > s_c: guidance sharpens.

(C) The null prediction is that of the even mixture of N(m, s^2) and N(-m, s^2), the class the first: with
    v = a s^2 + 1 - a it is (1) with the mean m tanh(sqrt(a) m x / v) in place of m_c. The guided mean is then
    m + w m (1 - tanh(..)), between m and (1+2w) m. The ODE has no solution in closed form, but its slope falls
    as the mean grows, so that each point lands between the points that (2) gives for the means m and
    (1+2w) m: beyond the class, never short of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from sdviz.diffusion import sampling
from sdviz.diffusion.guidance import GuidedNoise
from sdviz.diffusion.samplers import SAMPLERS
from sdviz.nn.unet import NoisePredictor
from tests.trajectories import SCHEDULE, ours

N = 4_000
pytestmark = pytest.mark.usefixtures("one_thread")
Model = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@pytest.fixture
def no_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    """No x_0 prediction is clipped: the formulas have no range of images."""
    monkeypatch.setattr(sampling, "X_0_LIMIT", math.inf)


def gaussians(means: list[float], stds: list[float]) -> Model:
    """The best noise prediction (1), row by row of the means and stds; the last row is the null token's."""

    def model(x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        a = SCHEDULE.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        m = torch.tensor(means, dtype=torch.float64)[class_labels].reshape(-1, 1, 1, 1)
        s = torch.tensor(stds, dtype=torch.float64)[class_labels].reshape(-1, 1, 1, 1)
        return (1 - a).sqrt() * (x - a.sqrt() * m) / (a * s**2 + 1 - a)

    return model


def sample(
    model: Model,
    null_label: int,
    sampler: str,
    x: torch.Tensor,
    s: int,
    steps: int,
    w: float = 0.0,
    class_label: int = 0,
    eta: float = 0.0,
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return SAMPLERS[sampler](
        GuidedNoise(model, torch.full((len(x),), class_label), null_label, w, SCHEDULE),
        x,
        SCHEDULE.timesteps(s, steps),
        SCHEDULE,
        eta=eta,
        step_noise=lambda t: torch.randn(x.shape, generator=generator, dtype=torch.float64),
    )


def pure_noise() -> torch.Tensor:
    """Shuffled quantiles of the normal distribution: mean 0 and standard deviation 1 without sampling error."""
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    share = (torch.arange(N, dtype=torch.float64) + 0.5) / N
    return torch.special.ndtri(share)[order].reshape(1, 1, 1, N)


def landing(x: torch.Tensor, s: int, m: float, std: float) -> torch.Tensor:
    """Equation (2), for each point."""
    sigma = SCHEDULE.sigma(s)
    return m + (x / SCHEDULE.alpha_bar(s) ** 0.5 - m) * std / math.hypot(std, sigma)


@pytest.mark.usefixtures("no_clipping")
@pytest.mark.parametrize("class_label", [0, 1])
@pytest.mark.parametrize(
    ("sampler", "steps", "eta"),
    [("ddim", 1000, 0.0), ("ddim", 1000, 1.0), ("ddpm", 1000, 0.0), ("dpmpp_2m", 400, 0.0)],
)
def test_from_pure_noise_to_the_gaussian_of_the_class(
    sampler: str, steps: int, eta: float, class_label: int
) -> None:
    means, stds = [0.5, -0.3], [0.1, 0.3]
    model = gaussians([*means, 9.0], [*stds, 9.0])
    x = sample(model, 2, sampler, pure_noise(), 1000, steps, class_label=class_label, eta=eta)
    assert x.mean().item() == pytest.approx(means[class_label], abs=0.01)
    assert x.std().item() == pytest.approx(stds[class_label], rel=0.03)


@pytest.mark.usefixtures("no_clipping")
@pytest.mark.parametrize("w", [0.0, 1.0, 3.0, -0.5, -1.0])
@pytest.mark.parametrize(
    ("sampler", "steps", "eta"),
    [("ddim", 1000, 0.0), ("ddim", 1000, 1.0), ("ddpm", 1000, 0.0), ("dpmpp_2m", 400, 0.0)],
)
def test_guided_to_the_gaussian_that_eq_3_says(sampler: str, steps: int, eta: float, w: float) -> None:
    m_c, m_u, s = 0.3, 0.1, 0.2
    x = sample(gaussians([m_c, m_u], [s, s]), 1, sampler, pure_noise(), 1000, steps, w, eta=eta)
    assert x.mean().item() == pytest.approx((1 + w) * m_c - w * m_u, abs=0.01)
    assert x.std().item() == pytest.approx(s, rel=0.03)


@pytest.mark.usefixtures("no_clipping")
@pytest.mark.parametrize("start_timestep", [100, 300])
@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_every_point_lands_where_the_guided_ode_says(sampler: str, start_timestep: int) -> None:
    # an edit: images of another class (mean -0.4), noised to S, pulled towards the class as far as S allows
    m_c, m_u, s, w = 0.3, 0.1, 0.2, 2.0
    generator = torch.Generator().manual_seed(1)
    x_0 = -0.4 + s * torch.randn(1, 1, 1, N, generator=generator, dtype=torch.float64)
    noise = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    x_s = SCHEDULE.add_noise(x_0, noise, start_timestep)
    x = sample(gaussians([m_c, m_u], [s, s]), 1, sampler, x_s, start_timestep, start_timestep, w)
    expected = landing(x_s, start_timestep, (1 + w) * m_c - w * m_u, s)
    # the step size is what is left over; a wrong w would be off by 0.1 and more
    assert (x - expected).abs().max() < 0.012
    assert (x.mean() - x_0.mean()).abs() > 0.15


@pytest.mark.usefixtures("no_clipping")
@pytest.mark.parametrize("w", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_guidance_against_a_wider_null_sharpens_as_the_ode_says(sampler: str, w: float) -> None:
    m, s_c, s_u, start_timestep = 0.2, 0.2, 0.6, 400
    sigma = SCHEDULE.sigma(start_timestep)
    x_s = SCHEDULE.alpha_bar(start_timestep) ** 0.5 * (m + math.hypot(s_c, sigma) * pure_noise())
    x = sample(gaussians([m, m], [s_c, s_u]), 1, sampler, x_s, start_timestep, start_timestep, w)
    ratio = (s_c**2 / (s_c**2 + sigma**2)) ** ((1 + w) / 2) * ((s_u**2 + sigma**2) / s_u**2) ** (w / 2)
    expected = m + (x_s / SCHEDULE.alpha_bar(start_timestep) ** 0.5 - m) * ratio
    assert (x - expected).abs().max() < 0.02
    assert x.std().item() == pytest.approx(expected.std().item(), rel=0.03, abs=0.002)
    if w > 0:
        assert x.std() < 0.9 * s_c


@pytest.mark.usefixtures("no_clipping")
@pytest.mark.parametrize("w", [1.0, 3.0])
@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_guidance_against_the_mixture_lands_between_its_bounds(sampler: str, w: float) -> None:
    m, s, start_timestep = 0.25, 0.2, 400

    def model(x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        a = SCHEDULE.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        v = a * s**2 + 1 - a
        mixture = (class_labels == 1).reshape(-1, 1, 1, 1)
        mean = torch.where(mixture, m * torch.tanh(a.sqrt() * m * x / v), m)
        return (1 - a).sqrt() * (x - a.sqrt() * mean) / v

    # images of the other class
    generator = torch.Generator().manual_seed(1)
    x_0 = -m + s * torch.randn(1, 1, 1, N, generator=generator, dtype=torch.float64)
    x_s = SCHEDULE.add_noise(
        x_0, torch.randn(x_0.shape, generator=generator, dtype=torch.float64), start_timestep
    )
    x = sample(model, 1, sampler, x_s, start_timestep, start_timestep, w)
    low, high = (landing(x_s, start_timestep, mean, s) for mean in (m, (1 + 2 * w) * m))
    assert (x > low - 0.01).all()
    assert (x < high + 0.01).all()
    assert (x - low).mean() > 0.05
    # more guidance, further from the class that is left
    assert (x > sample(model, 1, sampler, x_s, start_timestep, start_timestep, w - 1) - 1e-9).all()


@pytest.mark.usefixtures("no_clipping")
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("s", "k"), [(1, 1), (100, 10), (400, 1), (400, 37), (50, 50)])
def test_noise_then_denoise_with_a_perfect_model_gives_the_image_back(sampler: str, s: int, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
    x_s = SCHEDULE.add_noise(x_0, torch.randn(2, 3, 8, 8, generator=generator), s)
    predictions: list[torch.Tensor] = []

    def perfect(x: torch.Tensor, t: int) -> torch.Tensor:
        a = SCHEDULE.alpha_bar(t + 1)
        return (x - a**0.5 * x_0) / (1 - a) ** 0.5

    x = SAMPLERS[sampler](
        perfect,
        x_s,
        SCHEDULE.timesteps(s, k),
        SCHEDULE,
        step_noise=lambda t: torch.randn(2, 3, 8, 8, generator=generator),
        callback=lambda step, x_t, prediction: predictions.append(prediction),
    )
    assert len(predictions) == k
    for prediction in (*predictions, x):
        torch.testing.assert_close(prediction, x_0, rtol=0, atol=2e-5)


@pytest.mark.usefixtures("no_clipping")
def test_ddim_is_of_first_order_and_dpmpp_2m_of_second() -> None:
    m, s, start_timestep = 0.4, 0.5, 300
    x_s = SCHEDULE.add_noise(-0.4 + s * pure_noise(), pure_noise().flip(-1), start_timestep)
    expected = landing(x_s, start_timestep, m, s)
    model = gaussians([m, m], [s, s])

    def error(sampler: str, steps: int) -> float:
        return (sample(model, 1, sampler, x_s, start_timestep, steps) - expected).abs().mean().item()

    # four times the steps: a quarter of the error, and a sixteenth of it
    assert error("ddim", 20) / error("ddim", 80) == pytest.approx(4, rel=0.2)
    assert error("dpmpp_2m", 20) / error("dpmpp_2m", 80) == pytest.approx(16, rel=0.4)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_says_whether_it_uses_eta(network: NoisePredictor, name: str) -> None:
    timesteps = SCHEDULE.timesteps(100, 4)
    without, half = (ours(SAMPLERS[name], network, timesteps, eta=eta) for eta in (0.0, 0.5))
    assert torch.equal(without[-1][0], half[-1][0]) != SAMPLERS[name].uses_eta


def test_clipping_matters_in_these_comparisons(network: NoisePredictor) -> None:
    timesteps = SCHEDULE.timesteps(400, 10)
    for sampler in SAMPLERS.values():
        clipped, free = (ours(sampler, network, timesteps, clip=clip) for clip in (True, False))
        assert (clipped[-1][0] - free[-1][0]).abs().max() > 1e-2
        assert all(x_0.abs().max() <= 1 for _, x_0 in clipped)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_network_call_a_timestep_and_callbacks_in_order(name: str) -> None:
    called: list[int] = []
    seen: list[int] = []

    def eps_fn(x: torch.Tensor, t: int) -> torch.Tensor:
        called.append(t)
        return 0.1 * x

    x = torch.full((1, 3, 2, 2), 0.5)
    kept = x.clone()
    SAMPLERS[name](
        eps_fn,
        x,
        [50, 20, 3],
        SCHEDULE,
        step_noise=lambda t: torch.ones(1, 3, 2, 2),
        callback=lambda step, x_t, x_0: seen.append(step),
    )
    assert called == [50, 20, 3]
    assert seen == [0, 1, 2]
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_timesteps_return_the_image(name: str) -> None:
    x = torch.randn(1, 3, 2, 2)
    assert torch.equal(SAMPLERS[name](lambda x, t: x, x, [], SCHEDULE), x)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_last_step_is_the_x_0_prediction(name: str) -> None:
    predictions: list[torch.Tensor] = []
    final = SAMPLERS[name](
        lambda x, t: x * 0.3,
        torch.randn(2, 3, 2, 2),
        [400, 100, 7],
        SCHEDULE,
        step_noise=lambda t: torch.zeros(2, 3, 2, 2),
        callback=lambda step, x, x_0: predictions.append(x_0),
    )
    torch.testing.assert_close(final, predictions[-1], rtol=0, atol=1e-6)


def test_step_noise_is_asked_for_by_timestep_and_only_where_it_counts() -> None:
    asked: list[int] = []

    def step_noise(t: int) -> torch.Tensor:
        asked.append(t)
        return torch.zeros(1, 3, 2, 2)

    x = torch.zeros(1, 3, 2, 2)
    for name, eta, expected in (
        ("ddpm", 0.0, [50, 20]),
        ("ddim", 0.5, [50, 20]),
        ("ddim", 0.0, []),
        ("dpmpp_2m", 0.0, []),
    ):
        asked.clear()
        SAMPLERS[name](lambda x, t: x, x, [50, 20, 3], SCHEDULE, eta=eta, step_noise=step_noise)
        # none after the last step, which stands at abar = 1
        assert asked == expected, name


def test_noise_that_is_needed_and_not_given_is_refused() -> None:
    x = torch.zeros(1, 3, 2, 2)
    with pytest.raises(ValueError, match="step_noise is needed"):
        SAMPLERS["ddpm"](lambda x, t: x, x, [50, 20], SCHEDULE)
    with pytest.raises(ValueError, match="step_noise is needed"):
        SAMPLERS["ddim"](lambda x, t: x, x, [50, 20], SCHEDULE, eta=0.5)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("timesteps", "message"),
    [
        ([10, 20], "fall strictly"),
        ([10, 10], "fall strictly"),
        ([1000, 5], r"0\.\.999"),
        ([5, -1], r"0\.\.999"),
    ],
)
def test_refuses_timesteps_that_do_not_fall(name: str, timesteps: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAMPLERS[name](lambda x, t: x, torch.zeros(1, 3, 2, 2), timesteps, SCHEDULE)
