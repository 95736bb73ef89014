"""The sampling loop, from x_S to x_0, that all solvers share.

    x = x_S
    for t in timesteps:                                       S-1 first, 0 last
        eps = guided noise prediction                         Eq. 3
        x_0 = clip((x - sqrt(1 - abar_t) eps) / sqrt(abar_t))
        x = the solver's update of (x, eps, x_0)
    return x

`sample` runs several such loops side by side, so that they can share each call of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch

from .schedule import NoiseSchedule

EpsFn = Callable[[torch.Tensor, int], torch.Tensor]
StepNoise = Callable[[int], torch.Tensor]
Callback = Callable[[int, torch.Tensor, torch.Tensor], None]
# number of the sampling, x_t, t
Input = tuple[int, torch.Tensor, int]
# each x_0 prediction is clipped to [-X_0_LIMIT, X_0_LIMIT], the range of images
X_0_LIMIT = 1.0


@dataclass(frozen=True, eq=False)
class Step:
    """One step of one sampling, from timestep t to the next.

    Attributes:
        x: x_t, float32 (N,3,H,W).
        eps: The predicted noise, as x.
        x_0: The predicted image, as x, clipped to [-1,1].
        abar: abar_t.
        abar_next: abar of the next timestep; 1 at the last step.
        previous: x_0 and abar of the previous step; None at the first.
        eta: DDIM's share of fresh noise, 0..1.
        noise: Draws standard normal noise for this step, as x.
    """

    x: torch.Tensor
    eps: torch.Tensor
    x_0: torch.Tensor
    abar: float
    abar_next: float
    previous: tuple[torch.Tensor, float] | None
    eta: float
    noise: Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Sampler:
    """A solver.

    Attributes:
        update: Takes one step to x at the next timestep.
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
        """Samples x_0, float32 (N,3,H,W); `eps_fn` takes (x_t, t) to eps, the rest is as in `Sampling`."""
        one = Sampling(self, x, timesteps, schedule, eta, step_noise, callback)
        return sample([one], lambda inputs: [eps_fn(x, t) for _, x, t in inputs])[0]


@dataclass(frozen=True, eq=False)
class Sampling:
    """One run of the loop: all but the network.

    Attributes:
        x: float32 (N,3,H,W), x_S with S = timesteps[0] + 1.
        timesteps: 0-based, strictly falling; with none, x is the result.
        eta: DDIM's share of fresh noise, 0..1; other solvers ignore it.
        step_noise: t -> standard normal float32 (N,3,H,W); needed where noise is added.
        callback: Called with (step, x_t, x_0 prediction) before each update.
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
        if any(later >= earlier for earlier, later in pairwise(steps)):
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
    predict: Callable[[list[Input]], Sequence[torch.Tensor]],
) -> list[torch.Tensor]:
    """Runs samplings of any solvers, timesteps and sizes side by side, one step of all at a time.

    Args:
        samplings: One that has reached its end waits for the others.
        predict: Returns the noise in each x_t; called once a step with the samplings that still run.

    Returns:
        x_0 of each sampling, float32 (N_i,3,H,W).

    Raises:
        ValueError: Timesteps that do not fall or lie outside the schedule; noise needed but not given.
    """
    x = [one.x for one in samplings]
    alphas_cumprod = [one.alphas_cumprod() for one in samplings]
    previous: list[tuple[torch.Tensor, float] | None] = [None] * len(samplings)
    for step in range(max((len(one.timesteps) for one in samplings), default=0)):
        # 1. the noise in each x_t, Eq. 3
        running = [i for i, one in enumerate(samplings) if step < len(one.timesteps)]
        inputs = [(i, x[i], samplings[i].timesteps[step]) for i in running]
        for (i, x_t, t), eps in zip(inputs, predict(inputs), strict=True):
            one, (abar, abar_next) = samplings[i], alphas_cumprod[i][step : step + 2]
            # 2. x_0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t), clipped
            x_0 = ((x_t - (1 - abar) ** 0.5 * eps) / abar**0.5).clamp(-X_0_LIMIT, X_0_LIMIT)
            if one.callback is not None:
                one.callback(step, x_t, x_0)
            # 3. the solver's step to the next timestep
            noise = partial(one.noise, t)
            x[i] = one.sampler.update(Step(x_t, eps, x_0, abar, abar_next, previous[i], one.eta, noise))
            previous[i] = x_0, abar
    return x
