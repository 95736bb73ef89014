from __future__ import annotations

import pytest
import torch

from sdviz.diffusion.from_noise import sample_from_noise
from sdviz.diffusion.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.linear()
MEANS = torch.tensor([-0.5, 0.0, 0.6])


def gaussians(x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The exact noise in x_t where x_0 of label c is N(MEANS[c], 0.1^2); the null label has mean 0."""
    a = SCHEDULE.alphas_cumprod[t].to(x).reshape(-1, 1, 1, 1)
    mean = torch.cat([MEANS, torch.zeros(1)])[labels].reshape(-1, 1, 1, 1)
    return (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * 0.1**2 + 1 - a)


def sample(labels: list[int], ids: list[str], **how: object) -> torch.Tensor:
    settings: dict[str, object] = {"num_inference_steps": 50, "guidance_scale": 0.0} | how
    return sample_from_noise(gaussians, SCHEDULE, torch.tensor(labels), ids, 8, 3, **settings)  # type: ignore[arg-type]


def test_what_comes_out_is_of_the_distribution_of_its_label() -> None:
    x_0 = sample([0, 1, 2] * 20, [str(i) for i in range(60)], num_inference_steps=200)
    assert x_0.shape == (60, 3, 8, 8)
    for label, mean in enumerate(MEANS.tolist()):
        pixels = x_0[label::3]
        assert pixels.mean().item() == pytest.approx(mean, abs=0.02)
        assert pixels.std().item() == pytest.approx(0.1, abs=0.03)


def test_an_image_depends_on_id_and_label_alone() -> None:
    together = sample([0, 2, 1], ["a", "b", "c"])
    assert torch.allclose(sample([2], ["b"])[0], together[1], atol=1e-5)
    assert not torch.allclose(sample([2], ["d"])[0], together[1], atol=1e-2)
    assert not torch.allclose(sample([0], ["b"])[0], together[1], atol=1e-2)


def test_it_begins_at_the_end_of_the_schedule() -> None:
    asked: list[int] = []

    def model(x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        asked.append(int(t[0]))
        assert len(x) == 2  # guided: with the label and without
        return gaussians(x, t, labels)

    sample_from_noise(
        model, SCHEDULE, torch.tensor([1]), ["a"], 8, 3, num_inference_steps=4, guidance_scale=1.0
    )
    assert asked == SCHEDULE.timesteps(1000, 4) and asked[0] == 999 and asked[-1] == 0


def test_as_many_ids_as_labels() -> None:
    with pytest.raises(ValueError, match="1 ids, but 2 labels"):
        sample([0, 1], ["a"])
