"""The noise predictor as a device runs it best."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from .device import has_fast_bf16
from .unet import NoisePredictor


@dataclass(frozen=True, eq=False)
class InferenceModel:
    """A noise predictor ready to sample with.

    Attributes:
        network: On its device, in eval mode.
        dtype: What it computes in.
        description: Precision and compiler in words, for captions and benches.
    """

    network: NoisePredictor
    dtype: torch.dtype
    description: str

    @torch.no_grad()
    def __call__(self, x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        """Predicts the noise: see `NoisePredictor.forward`; float32 in, float32 out."""
        with torch.autocast(x.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            return self.network(x, timesteps, class_labels).float()


def prepare_for_inference(model: NoisePredictor, device: torch.device) -> InferenceModel:
    """A copy of the model on the device: bfloat16 where the device computes in it, else float32."""
    network = copy.deepcopy(model).eval().requires_grad_(False).to(device)
    fast = has_fast_bf16(device)
    dtype = torch.bfloat16 if fast else torch.float32
    return InferenceModel(network, dtype, "bfloat16" if fast else "float32")
