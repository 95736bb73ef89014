"""The sampling loop, from x_S to x_0, that all solvers share.

    x = x_S
    for t in timesteps:                                       S-1 first, 0 last
        eps = the network's guided prediction (Eq. 3)
        x_0 = clip((x - sqrt(1 - abar_t) eps) / sqrt(abar_t))
        x = the solver's update of (x, eps, x_0)
    return x

A solver is one function of one step (`Step`), so several samplings can share each call of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from .schedule import NoiseSchedule

EpsFn = Callable[[torch.Tensor, int], torch.Tensor]
StepNoise = Callable[[int], torch.Tensor]
Callback = Callable[[int, torch.Tensor, torch.Tensor], None]
# each x_0 prediction is clipped to [-X_0_LIMIT, X_0_LIMIT], the range of images
X_0_LIMIT = 1.0


@dataclass(frozen=True, eq=False)
class Step:
    """One step of one sampling, from timestep t to the next.

    Attributes:
        x: x_t, float32 (N,3,H,W).
        eps: The noise predicted in it, as x.
        x_0: The image predicted from both, as x, clipped to [-1,1].
        a: abar_t.
        a_next: abar of the next timestep; 1 at the last step.
        before: x_0 and abar of the step before; None at the first.
        eta: DDIM's share of fresh noise, 0..1.
        noise: Draws standard normal noise for this step, as x.
    """

    x: torch.Tensor
    eps: torch.Tensor
    x_0: torch.Tensor
    a: float
    a_next: float
    before: tuple[torch.Tensor, float] | None
    eta: float
    noise: Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Sampler:
    """A solver.

    Attributes:
        update: One step -> x at the next timestep.
        uses_eta: Whether it adds the share `eta` of fresh noise.
    """

    key: str
    title: str
    update: Callable[[Step], torch.Tensor]
    uses_eta: bool = False

    def __call__(
        self,
        eps_fn: EpsFn,
        x: torch.Tensor,
        timesteps: Sequence[int],
        schedule: NoiseSchedule,
        *,
        eta: float = 0.0,
        step_noise: StepNoise | None = None,
        callback: Callback | None = None,
    ) -> torch.Tensor:
        """Samples x_0, float32 (N,3,H,W), with one call (x_t, t) -> eps for each timestep; see `Sampling`."""
        one = Sampling(self, x, timesteps, schedule, eta, step_noise, callback)
        return sample([one], lambda asked: [eps_fn(x, t) for _, x, t in asked])[0]


@dataclass(frozen=True, eq=False)
class Sampling:
    """All that fixes one sampling, but for the network.

    Attributes:
        x: float32 (N,3,H,W), x_S with S = timesteps[0] + 1.
        timesteps: 0-based, strictly falling; without any, x is the result.
        eta: DDIM's share of fresh noise, 0..1; the others ignore it.
        step_noise: t -> standard normal float32 (N,3,H,W); needed where noise is added.
        callback: Called before each update as (step, x_t, x_0 prediction).
    """

    sampler: Sampler
    x: torch.Tensor
    timesteps: Sequence[int]
    schedule: NoiseSchedule
    eta: float = 0.0
    step_noise: StepNoise | None = None
    callback: Callback | None = None

    def alphas_cumprod(self) -> list[float]:
        """abar of each timestep, and 1 at the end."""
        steps = list(self.timesteps)
        if any(b >= a for a, b in zip(steps, steps[1:], strict=False)):
            raise ValueError(f"timesteps must fall strictly, not {steps}")
        if steps and not 0 <= steps[-1] <= steps[0] < len(self.schedule):
            raise ValueError(f"timesteps must lie in 0..{len(self.schedule) - 1}, not {steps}")
        return [self.schedule.alpha_bar(t + 1) for t in steps] + [1.0]

    def noise(self, t: int) -> torch.Tensor:
        """Fresh noise for timestep t."""
        if self.step_noise is None:
            raise ValueError("this sampler adds noise: step_noise is needed")
        return self.step_noise(t).to(self.x)


@torch.no_grad()
def sample(
    samplings: Sequence[Sampling],
    predict: Callable[[list[tuple[int, torch.Tensor, int]]], Sequence[torch.Tensor]],
) -> list[torch.Tensor]:
    """Runs samplings to their ends, all one step at a time.

    Args:
        samplings: Of any solvers, timesteps and sizes.
        predict: A list of (which sampling, x_t, t), those that are not at their end -> the noise in each x_t.

    Returns:
        x_0 of each, float32 (N_i,3,H,W).

    Raises:
        ValueError: Timesteps that do not fall or lie outside the schedule; noise needed but not given.
    """
    x = [one.x for one in samplings]
    abar = [one.alphas_cumprod() for one in samplings]
    before: list[tuple[torch.Tensor, float] | None] = [None] * len(samplings)
    for step in range(max((len(a) - 1 for a in abar), default=0)):
        asked = [(i, x[i], one.timesteps[step]) for i, one in enumerate(samplings) if step < len(one.timesteps)]
        for (i, x_t, t), eps in zip(asked, predict(asked), strict=True):
            one, a = samplings[i], abar[i][step]
            x_0 = ((x_t - (1 - a) ** 0.5 * eps) / a**0.5).clamp(-X_0_LIMIT, X_0_LIMIT)
            if one.callback is not None:
                one.callback(step, x_t, x_0)
            draw = partial(one.noise, t)
            x[i] = one.sampler.update(Step(x_t, eps, x_0, a, abar[i][step + 1], before[i], one.eta, draw))
            before[i] = x_0, a
    return x
