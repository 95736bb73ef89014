import pytest
import torch

from sdviz.diffusion.guidance import GuidedNoise, guide
from sdviz.diffusion.schedule import NoiseSchedule

NULL = 3
SCHEDULE = NoiseSchedule.linear(1000)


class RecordingFormula:
    """eps = x + class label + t / 1000, and a list of the calls: (timesteps, class labels)."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], list[int]]] = []

    def __call__(self, x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        assert len(x) == len(timesteps) == len(class_labels)
        self.calls.append((timesteps.tolist(), class_labels.tolist()))
        return x + (class_labels + timesteps / 1000)[:, None, None, None]


def guided(
    model: RecordingFormula, w: float, interval: tuple[float, float] | None = None, labels: tuple = (0, 2)
) -> GuidedNoise:
    return GuidedNoise(model, torch.tensor(labels), NULL, w, SCHEDULE, interval)


@pytest.mark.parametrize("w", [-1.0, -0.5, 0.0, 0.7, 2.0, 20.0])
def test_guide_is_diffusers_guidance_with_g_of_one_plus_w(w: float) -> None:
    eps_cond, eps_uncond = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 3, 4, 4).double()
    # diffusers' pipelines: noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)
    expected = eps_uncond + (1 + w) * (eps_cond - eps_uncond)
    torch.testing.assert_close(guide(eps_cond, eps_uncond, w), expected, rtol=0, atol=1e-12)


def test_guide_at_its_fixed_points() -> None:
    eps_cond, eps_uncond = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    assert torch.equal(guide(eps_cond, eps_uncond, 0), eps_cond)
    assert torch.equal(guide(eps_cond, eps_uncond, -1), eps_uncond)
    torch.testing.assert_close(guide(eps_cond, eps_cond, 7.5), eps_cond)
    assert guide(torch.tensor(1.0), torch.tensor(0.5), 2.0) == 2.0


def test_guide_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and eps_uncond \(1, 3\)"):
        guide(torch.zeros(2, 3), torch.zeros(1, 3), 1.0)


def test_no_guidance_never_makes_the_unconditional_call() -> None:
    model = RecordingFormula()
    x = torch.randn(2, 3, 4, 4)
    eps = guided(model, 0.0)(x, 50)
    assert model.calls == [([50, 50], [0, 2])]
    assert torch.equal(eps, x + (torch.tensor([0, 2]) + torch.tensor(50) / 1000)[:, None, None, None])


def test_w_of_minus_one_never_makes_the_conditional_call() -> None:
    model = RecordingFormula()
    guided(model, -1.0)(torch.randn(2, 3, 4, 4), 50)
    assert model.calls == [([50, 50], [NULL, NULL])]


@pytest.mark.parametrize("w", [-0.5, 0.1, 2.0])
def test_any_other_w_makes_one_call_of_a_doubled_batch(w: float) -> None:
    model = RecordingFormula()
    x = torch.randn(2, 3, 4, 4)
    eps = guided(model, w)(x, 50)
    assert model.calls == [([50] * 4, [0, 2, NULL, NULL])]
    shift = (1 + w) * torch.tensor([0.0, 2.0]) - w * NULL + 0.05
    torch.testing.assert_close(eps, x + shift[:, None, None, None])


def test_the_interval_skips_the_unconditional_call_outside() -> None:
    model = RecordingFormula()
    eps_fn = guided(model, 2.0, (SCHEDULE.sigma(41), SCHEDULE.sigma(81)), labels=(1,))
    x = torch.zeros(1, 3, 2, 2)
    timesteps = [99, 81, 80, 60, 40, 39, 0]
    predictions = [eps_fn(x, t).mean().item() for t in timesteps]
    # sigma of timestep t is that after S = t+1 steps, and both ends belong to the interval
    inside = [False, False, True, True, True, False, False]
    assert [len(labels) == 2 for _, labels in model.calls] == inside
    assert [eps_fn.is_guided(t) for t in timesteps] == inside
    assert [eps_fn.evaluations(t) for t in timesteps] == [1 + i for i in inside]
    conditional, exaggerated = 1, 3 * 1 - 2 * NULL
    for t, prediction, is_inside in zip(timesteps, predictions, inside, strict=True):
        assert prediction == pytest.approx((exaggerated if is_inside else conditional) + t / 1000, abs=1e-5)


def test_outside_the_interval_even_w_of_minus_one_is_conditional() -> None:
    model = RecordingFormula()
    eps_fn = guided(model, -1.0, (0.0, SCHEDULE.sigma(50)), labels=(1,))
    for t in (99, 20):
        eps_fn(torch.zeros(1, 3, 2, 2), t)
    assert [labels for _, labels in model.calls] == [[1], [NULL]]


@pytest.mark.parametrize(("w", "evaluations"), [(0.0, 1), (-1.0, 1), (2.0, 2)])
def test_evaluations_are_those_made(w: float, evaluations: int) -> None:
    model = RecordingFormula()
    eps_fn = guided(model, w)
    eps_fn(torch.zeros(2, 3, 2, 2), 10)
    assert eps_fn.evaluations(10) == evaluations
    assert len(model.calls[0][1]) == 2 * evaluations


def test_a_model_in_half_precision_gives_back_the_dtype_of_x() -> None:
    def model(x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16)

    for w in (0.0, 2.0):
        eps_fn = GuidedNoise(model, torch.tensor([0]), NULL, w, SCHEDULE)
        assert eps_fn(torch.zeros(1, 3, 2, 2), 10).dtype == torch.float32
