"""The noise predictor: a `diffusers.UNet2DModel`, with or without pixel-unshuffle."""

from __future__ import annotations

import math

import torch
from diffusers import UNet2DModel
from torch import nn
from torch.nn import functional as F

from ..config.nodes import UNetConfig
from .phase_means import PhaseMeans


class NoisePredictor(nn.Module):
    """eps_theta(x_t, c): a class-conditional U-Net whose last class row is the null token.

    Attributes:
        unet: The `UNet2DModel` inside, which diffusers saves and loads.
        pixel_unshuffle: Pixels of a factor x factor square become channels before the U-Net.
        phases: Corrects the channel means of the prediction; None leaves them.
        null_label: C, the row of the class embedding that means "no condition".
    """

    def __init__(self, unet: UNet2DModel, pixel_unshuffle: int, phases: PhaseMeans | None = None) -> None:
        super().__init__()
        self.unet = unet
        self.pixel_unshuffle = pixel_unshuffle
        self.phases = phases
        self.null_label = int(unet.config["num_class_embeds"]) - 1

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        """Predicts the noise in x, float (N,3,H,W); float32 if there are `phases`.

        Timesteps are 0-based, int64 (N,), class labels int64 (N,), 0..C-1 or `null_label`.
        """
        if self.pixel_unshuffle > 1:
            x = F.pixel_unshuffle(x, self.pixel_unshuffle)
        eps = self.unet(x, timesteps, class_labels=class_labels, return_dict=False)[0]
        if self.phases is not None:
            eps = self.phases(eps, x, timesteps)
        return F.pixel_shuffle(eps, self.pixel_unshuffle) if self.pixel_unshuffle > 1 else eps


def build_noise_predictor(config: UNetConfig, n_classes: int, image_size: int) -> NoisePredictor:
    """An untrained network with C+1 class rows for square images of that side in pixels.

    Raises:
        ValueError: The network cannot halve that image size often enough.
    """
    small = config.arch == "small"
    factor = config.unshuffle_factor
    channels = config.channels or ((64, 128, 128) if small else (128, 256, 256, 256))
    halvings = factor * 2 ** (len(channels) - 1)
    if image_size % halvings:
        raise ValueError(f"image size {image_size} px is not a multiple of {halvings}, as this U-Net needs")
    attention = (1,) if config.attention_levels is None else config.attention_levels
    attended = [channels[i] for i in attention if i < len(channels)]
    down = ["AttnDownBlock2D" if i in attention else "DownBlock2D" for i in range(len(channels))]
    up = [block.replace("Down", "Up") for block in reversed(down)]
    dropout = config.dropout if config.dropout is not None else (0.0 if small else 0.1)
    paper = {} if small else {"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1}
    unet = UNet2DModel(
        sample_size=image_size // factor,
        in_channels=3 * factor**2,
        out_channels=3 * factor**2,
        block_out_channels=tuple(channels),
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        layers_per_block=config.layers_per_block or (1 if small else 2),
        dropout=dropout,
        # one head of 64 channels in "small": narrow heads are slow on a CPU; a single head in "ddpm"
        attention_head_dim=min(64, channels[-1], *attended) if small else None,
        # at least two channels a group: in a group of one, the norm removes what the embeddings of time and
        # class add to the channel
        norm_num_groups=min(math.gcd(32, *channels), min(channels) // 2),
        norm_eps=1e-6,
        num_class_embeds=n_classes + 1,
        **paper,
    )
    return NoisePredictor(unet, factor)


def n_parameters(module: nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in module.parameters())
