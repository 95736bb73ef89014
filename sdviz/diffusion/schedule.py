"""The noise schedule of Ho et al. 2020, immutable."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I).

    The paper's S counts noising steps: after S steps an image is at index t = S-1 of the arrays.
    """

    _betas: torch.Tensor
    _alphas_cumprod: torch.Tensor

    @classmethod
    def linear(
        cls, num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> NoiseSchedule:
        """Betas evenly spaced from `beta_start` to `beta_end`, both included; ValueError if out of 0..1."""
        if num_train_timesteps < 1:
            raise ValueError(f"num_train_timesteps {num_train_timesteps} is not at least 1")
        if not 0 < beta_start <= beta_end < 1:
            raise ValueError(f"betas {beta_start}..{beta_end} are not 0 < beta_start <= beta_end < 1")
        # in float32 first, as diffusers does, so that both give the same numbers
        betas = torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float32)
        alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
        return cls(betas.double(), alphas_cumprod.double())

    def __len__(self) -> int:
        return len(self._betas)

    # a tensor cannot be made read-only, so these return copies

    @property
    def betas(self) -> torch.Tensor:
        """float64 (T,), on the CPU."""
        return self._betas.clone()

    @property
    def alphas_cumprod(self) -> torch.Tensor:
        """float64 (T,), abar, on the CPU."""
        return self._alphas_cumprod.clone()

    @property
    def num_train_timesteps(self) -> int:
        """Number of timesteps, T."""
        return len(self._betas)

    def _check(self, start_timestep: int | torch.Tensor) -> int:
        s = _whole("S", start_timestep)
        if not 0 <= s <= len(self):
            raise ValueError(f"S = {s} is outside 0..{len(self)}")
        return s

    def alpha_bar(self, start_timestep: int | torch.Tensor) -> float:
        """abar after S noising steps: alphas_cumprod[S-1], and 1 at S=0."""
        s = self._check(start_timestep)
        return float(self._alphas_cumprod[s - 1]) if s else 1.0

    def sigma(self, start_timestep: int) -> float:
        """Noise over signal after S steps, sqrt((1-abar)/abar); 0 at S=0."""
        a = self.alpha_bar(start_timestep)
        return ((1 - a) / a) ** 0.5

    def add_noise(
        self, x_0: torch.Tensor, noise: torch.Tensor, start_timestep: int | torch.Tensor
    ) -> torch.Tensor:
        """x_S = sqrt(abar) x_0 + sqrt(1-abar) noise.

        Args:
            x_0: float (N,...), images in [-1,1].
            noise: float, as x_0, standard normal.
            start_timestep: S in 0..T for all, or int (N,), one for each.

        Returns:
            float, as x_0; x_0 itself at S=0.

        Raises:
            ValueError: S outside 0..T or not whole, or different shapes.
        """
        if x_0.shape != noise.shape:
            raise ValueError(f"x_0 {tuple(x_0.shape)} and noise {tuple(noise.shape)} differ in shape")
        if isinstance(start_timestep, torch.Tensor) and start_timestep.ndim:
            s = start_timestep.cpu()
            whole = not (s.is_floating_point() or s.is_complex() or s.dtype == torch.bool)
            in_range = whole and bool(((s >= 0) & (s <= len(self))).all())
            if s.shape != x_0.shape[:1] or not in_range:
                raise ValueError(f"S must be ({len(x_0)},) whole numbers in 0..{len(self)}")
            padded = torch.cat([torch.ones(1, dtype=torch.float64), self._alphas_cumprod])
            a = padded[s.long()].reshape(-1, *[1] * (x_0.ndim - 1))
            return a.sqrt().to(x_0) * x_0 + (1 - a).sqrt().to(x_0) * noise
        a_bar = self.alpha_bar(start_timestep)
        return a_bar**0.5 * x_0 + (1 - a_bar) ** 0.5 * noise

    def timesteps(self, start_timestep: int, num_inference_steps: int) -> list[int]:
        """The timesteps from x_S to x_0: round(linspace(S-1, 0, K)), strictly falling.

        K > S takes S steps, S=0 none; K=1 is one step, at S-1.

        Raises:
            ValueError: S outside 0..T or K below 1, or one that is not whole.
        """
        s = self._check(start_timestep)
        k = _whole("num_inference_steps", num_inference_steps)
        if k < 1:
            raise ValueError(f"num_inference_steps {k} is not at least 1")
        # numbers at least 1 apart stay apart when rounded
        return np.linspace(s - 1, 0, min(k, s)).round().astype(int).tolist()


def _whole(name: str, value: int | torch.Tensor) -> int:
    """The value as an int; ValueError for 2.5, 2.0, NaN, True, "2"."""
    try:
        whole = operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name} = {value!r} is not a whole number") from error
    if isinstance(value, bool):
        raise ValueError(f"{name} = {value!r} is not a whole number")
    return whole
