"""Corrects the channel means of noise that a U-Net predicts on unshuffled pixels.

An f x f pixel-unshuffle makes one channel of the pixels at one place of every f x f square. If the means of
two channels differ, the picture has a grid of period f. Group normalisation removes the means, so the network
cannot tell how much of such a grid is noise and leaves it in the picture. The share of noise follows in closed
form if the channel means of training images are Gaussian, as those of the noise are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from .batches import slices
from .pixels import centred

# images at a time, to save memory
_AT_ONCE = 4096


class PhaseStatistics(BaseModel):
    """The channel means of unshuffled training images in [-1,1], as a Gaussian.

    Attributes:
        mean: (D,), D = 3 f^2, in the order of `torch.pixel_unshuffle`.
        covariance: (D,D).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    def check(self, pixel_unshuffle: int) -> None:
        """Raises ValueError for another number of channels or a matrix that is no covariance."""
        d = 3 * pixel_unshuffle**2
        if len(self.mean) != d or [len(row) for row in self.covariance] != [d] * d:
            raise ValueError(f"phase statistics are not of {d} channels")
        c = np.array(self.covariance)
        if not np.allclose(c, c.T) or np.linalg.eigvalsh(c).min() < -1e-6:
            raise ValueError("the covariance of the phase statistics is not a covariance")


def measure_phases(images: np.ndarray, pixel_unshuffle: int) -> PhaseStatistics:
    """Mean and covariance (n - 1) of the channel means of images uint8 (N,H,W,3).

    Raises:
        ValueError: Fewer than two images, or sides that the factor f does not divide.
    """
    n, h, w, _ = images.shape
    f = pixel_unshuffle
    if n < 2:
        raise ValueError(f"{n} images have no covariance")
    if h % f or w % f:
        raise ValueError(f"{h} x {w} px are not multiples of {f}")
    means = np.empty((n, 3, f, f))
    for rows in slices(n, _AT_ONCE):
        part = images[rows]
        squares = part.reshape(len(part), h // f, f, w // f, f, 3)
        # channels in the order colour, row in the square, column in the square
        means[rows] = squares.mean((1, 3)).transpose(0, 3, 1, 2)
    means = centred(means.reshape(n, -1))
    return PhaseStatistics(mean=means.mean(0).tolist(), covariance=np.cov(means, rowvar=False).tolist())


class PhaseMeans(nn.Module):
    """Replaces the channel means of a noise prediction by their posterior means.

    With y the channel means of x_t over P pixels, m ~ N(mu, C) those of x_0 and n ~ N(0, I/P) those of the
    noise, y = sqrt(abar) m + sqrt(1-abar) n, so that

        E[n | y] = sqrt(1-abar)/P (abar C + (1-abar)/P I)^-1 (y - sqrt(abar) mu).

    It computes in float32. It does not depend on the class, so guidance does not change it.
    """

    gain: torch.Tensor
    centre: torch.Tensor

    def __init__(self, statistics: PhaseStatistics, alphas_cumprod: torch.Tensor, n_pixels: int) -> None:
        """Makes tables with one entry a timestep from abar float64 (T,) and P = H W / f^2 pixels."""
        super().__init__()
        mu = torch.tensor(statistics.mean, dtype=torch.float64)
        c = torch.tensor(statistics.covariance, dtype=torch.float64)
        a = alphas_cumprod.double().cpu()[:, None, None]
        noise = (1 - a) / n_pixels
        inverse = torch.linalg.inv(a * c + noise * torch.eye(len(mu), dtype=torch.float64))
        # not persistent: a network's saved weights stay the same
        self.register_buffer("gain", ((1 - a).sqrt() / n_pixels * inverse).float(), persistent=False)
        self.register_buffer("centre", (a[:, 0].sqrt() * mu).float(), persistent=False)

    def forward(self, eps: torch.Tensor, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The prediction eps of x, both (N,D,h,w), with its channel means replaced; float32."""
        eps = eps.float()
        y = x.float().mean((2, 3)) - self.centre[timesteps]
        wanted = torch.bmm(self.gain[timesteps], y[:, :, None])[:, :, 0]
        return eps + (wanted - eps.mean((2, 3)))[:, :, None, None]

    def _apply(self, fn: Any, recurse: bool = True) -> PhaseMeans:  # noqa: ANN401 - as nn.Module has it
        """Moves the tables to other devices and keeps them float32 when a network is rounded to bfloat16."""
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            moved = self._buffers[name]
            assert moved is not None
            if moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self
