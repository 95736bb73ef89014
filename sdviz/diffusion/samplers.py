"""Samplers from x_S to x_0: pure functions over explicit timesteps.

Each takes `eps_fn(x_t, t)` and a strictly falling list of 0-based timesteps, calls the network once
for each of them, and after the last one stands at abar = 1. No state is kept between calls.

Each is written as its steps, a generator that yields (x_t, t) and is sent the noise predicted there: so
several samplings can go side by side and share one call of the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeAlias, cast

import torch

from .schedule import NoiseSchedule

EpsFn = Callable[[torch.Tensor, int], torch.Tensor]
StepNoise = Callable[[int], torch.Tensor]
Callback = Callable[[int, torch.Tensor, torch.Tensor], None]
# yields (x_t, t), is sent eps, returns x_0
Steps: TypeAlias = Generator[tuple[torch.Tensor, int], torch.Tensor, torch.Tensor]
# (x, timesteps, schedule, *, eta, step_noise, callback, clip_x_0) as `Sampler` takes them, without the network;
# nothing happens before the first `next`
StepsOf: TypeAlias = Callable[..., Steps]


class Sampler(Protocol):
    """What every sampler looks like."""

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
        clip_x_0: bool = True,
    ) -> torch.Tensor:
        """Samples.

        Args:
            eps_fn: (x_t float32 (N,3,H,W), t) -> predicted noise, float32 (N,3,H,W).
            x: float32 (N,3,H,W), x_S with S = timesteps[0] + 1.
            timesteps: 0-based, strictly falling.
            schedule: The noise schedule of the network.
            eta: DDIM's share of fresh noise, 0..1; the others ignore it.
            step_noise: t -> standard normal float32 (N,3,H,W); needed where noise is added.
            callback: Called before each update as (step, x_t, x_0 prediction).
            clip_x_0: Clip each x_0 prediction to [-1,1].

        Returns:
            float32 (N,3,H,W), x_0.

        Raises:
            ValueError: Timesteps that do not fall or lie outside the schedule; noise needed but not given.
        """
        ...


def _abar_pairs(timesteps: Sequence[int], schedule: NoiseSchedule) -> list[tuple[int, float, float]]:
    """(t, abar_t, abar of the next timestep or 1) for each step."""
    steps = list(timesteps)
    if any(b >= a for a, b in zip(steps, steps[1:], strict=False)):
        raise ValueError(f"timesteps must fall strictly, not {steps}")
    if steps and not 0 <= steps[-1] <= steps[0] < len(schedule):
        raise ValueError(f"timesteps must lie in 0..{len(schedule) - 1}, not {steps}")
    abar = [schedule.alpha_bar(t + 1) for t in steps] + [1.0]
    return [(t, abar[i], abar[i + 1]) for i, t in enumerate(steps)]


def _predict_x_0(x: torch.Tensor, eps: torch.Tensor, a: float, clip: bool) -> torch.Tensor:
    x_0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
    return x_0.clamp(-1, 1) if clip else x_0


@torch.no_grad()
def run_steps(steps: Steps, eps_fn: EpsFn) -> torch.Tensor:
    """Runs one sampling to its end, x_0."""
    answer: torch.Tensor | None = None
    while True:
        try:
            x, t = next(steps) if answer is None else steps.send(answer)
        except StopIteration as end:
            return end.value
        answer = eps_fn(x, t)


def _sampler(steps_of: StepsOf) -> Sampler:
    """The sampler that takes those steps."""

    def sample(eps_fn: EpsFn, *state: Any, **settings: Any) -> torch.Tensor:  # noqa: ANN401 - see `Sampler`
        return run_steps(steps_of(*state, **settings), eps_fn)

    sample.__doc__ = steps_of.__doc__
    return cast(Sampler, sample)


def _fresh(step_noise: StepNoise | None, t: int, x: torch.Tensor) -> torch.Tensor:
    if step_noise is None:
        raise ValueError("this sampler adds noise: step_noise is needed")
    return step_noise(t).to(x)


def ddpm_steps(
    x: torch.Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    *,
    eta: float = 0.0,
    step_noise: StepNoise | None = None,
    callback: Callback | None = None,
    clip_x_0: bool = True,
) -> Steps:
    """Ancestral sampling (Ho et al. 2020, Algorithm 2, over any subset of the timesteps).

    The variance is their "fixed small", beta~ = (1 - abar_prev) / (1 - abar_t) beta_t with
    beta_t = 1 - abar_t / abar_prev. See `Sampler` for the arguments; `eta` is not used.
    """
    for step, (t, a_t, a_prev) in enumerate(_abar_pairs(timesteps, schedule)):
        x_0 = _predict_x_0(x, (yield x, t), a_t, clip_x_0)
        if callback is not None:
            callback(step, x, x_0)
        # Eq. 7: the mean of q(x_prev | x_t, x_0)
        alpha_t = a_t / a_prev
        beta_t = 1 - alpha_t
        x = (a_prev**0.5 * beta_t / (1 - a_t)) * x_0 + (alpha_t**0.5 * (1 - a_prev) / (1 - a_t)) * x
        if a_prev < 1:
            x = x + ((1 - a_prev) / (1 - a_t) * beta_t) ** 0.5 * _fresh(step_noise, t, x)
    return x


def ddim_steps(
    x: torch.Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    *,
    eta: float = 0.0,
    step_noise: StepNoise | None = None,
    callback: Callback | None = None,
    clip_x_0: bool = True,
) -> Steps:
    """DDIM (Song et al. 2021, Eq. 12 with the sigma of Eq. 16). See `Sampler` for the arguments."""
    for step, (t, a_t, a_prev) in enumerate(_abar_pairs(timesteps, schedule)):
        eps = yield x, t
        x_0 = _predict_x_0(x, eps, a_t, clip_x_0)
        if callback is not None:
            callback(step, x, x_0)
        sigma = eta * ((1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev)) ** 0.5
        x = a_prev**0.5 * x_0 + max(0.0, 1 - a_prev - sigma**2) ** 0.5 * eps
        if sigma > 0:
            x = x + sigma * _fresh(step_noise, t, x)
    return x


def dpmpp_2m_steps(
    x: torch.Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    *,
    eta: float = 0.0,
    step_noise: StepNoise | None = None,
    callback: Callback | None = None,
    clip_x_0: bool = True,
) -> Steps:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), first order at both ends.

    See `Sampler` for the arguments; `eta` and `step_noise` are not used.
    """
    previous: tuple[torch.Tensor, float] | None = None
    for step, (t, a_t, a_prev) in enumerate(_abar_pairs(timesteps, schedule)):
        x_0 = _predict_x_0(x, (yield x, t), a_t, clip_x_0)
        if callback is not None:
            callback(step, x, x_0)
        if a_prev == 1:
            # lambda is infinite at abar = 1, and the first-order step is the prediction itself
            return x_0
        # lambda = log(alpha / sigma), h the step in it
        lambda_t, lambda_next = (0.5 * math.log(a / (1 - a)) for a in (a_t, a_prev))
        h = lambda_next - lambda_t
        direction = x_0
        if previous is not None:
            older, lambda_older = previous
            r = (lambda_t - lambda_older) / h
            direction = x_0 + (x_0 - older) / (2 * r)
        shrink = ((1 - a_prev) / (1 - a_t)) ** 0.5
        decay = math.expm1(-h)
        x = shrink * x - a_prev**0.5 * decay * direction
        previous = (x_0, lambda_t)
    return x


STEPS: dict[str, StepsOf] = {"ddpm": ddpm_steps, "ddim": ddim_steps, "dpmpp_2m": dpmpp_2m_steps}
SAMPLERS: dict[str, Sampler] = {name: _sampler(steps_of) for name, steps_of in STEPS.items()}
ddpm, ddim, dpmpp_2m = SAMPLERS["ddpm"], SAMPLERS["ddim"], SAMPLERS["dpmpp_2m"]
