"""Random views of images, for contrastive training, self-labelling and the detector's augmentation."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from ..config.nodes import ViewsConfig

FIELD_CELLS = 4


def random_views(x: torch.Tensor, config: ViewsConfig | None, generator: torch.Generator) -> torch.Tensor:
    """Makes one random view of each image; None leaves images as they are.

    A view depends on the generator, the image's row and the number of rows, not on the other images.

    Args:
        x: float32 (N,3,H,W) in [-1,1].
        generator: On the CPU; the work is done on the device of `x`.
    """
    if config is None:
        return x
    n, where = len(x), x.device

    def uniform(*shape: int) -> torch.Tensor:
        """Uniform in -1..1."""
        return (torch.rand(n, *shape, generator=generator) * 2 - 1).to(where)

    def happens(share: float) -> torch.Tensor:
        """True for this share of the images, bool (N,1,1,1)."""
        return (torch.rand(n, 1, 1, 1, generator=generator) < share).to(where)

    # 1. the window: zoom, place, tilt, flip in one resampling; the picture is mirrored past its border
    low, high = config.area
    zoom = (low + (high - low) * (uniform() + 1) / 2).sqrt()
    tilt = uniform() * math.radians(config.max_tilt_deg)
    shift = uniform(2) * config.max_shift * (1 - zoom).abs()[:, None]
    side = torch.where(happens(0.5).view(n), -1.0, 1.0) if config.random_flip else torch.ones(n, device=where)
    turned = [zoom * tilt.cos() * side, -zoom * tilt.sin(), zoom * tilt.sin() * side, zoom * tilt.cos()]
    matrix = torch.stack(turned, 1).view(n, 2, 2)
    grid = F.affine_grid(torch.cat([matrix, shift[:, :, None]], 2), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    # 2. brightness, contrast, saturation, hue
    jittered = _jitter(x, config, uniform(4, 1, 1, 1))
    x = torch.where(happens(config.jitter_share), jittered, x)

    # 3. a random orthogonal matrix over the colours, about mid-grey: rotations and reflections alike
    if config.colour_matrix_share:
        q, r = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator))
        q = (q * torch.diagonal(r, dim1=1, dim2=2).sign()[:, None, :]).to(where)  # uniform over the group
        turned_colours = torch.einsum("nij,njhw->nihw", q, x)
        x = torch.where(happens(config.colour_matrix_share), turned_colours, x)

    # 4. a smooth field over the colours
    if config.colour_field:
        cells = torch.randn(n, 3, FIELD_CELLS, FIELD_CELLS, generator=generator).to(where)
        field = F.interpolate(cells, size=x.shape[2:], mode="bilinear", align_corners=True)
        x = x + config.colour_field * (uniform(1, 1, 1) + 1) / 2 * field

    # 5. grey, blur, noise
    grey = (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    x = torch.where(happens(config.grey_share), grey.expand_as(x), x)
    if config.blur_share:
        sigma = config.max_blur_px * (uniform(1, 1, 1) + 1) / 2
        x = torch.where(happens(config.blur_share), _blur(x, sigma, math.ceil(3 * config.max_blur_px)), x)
    if config.noise:
        x = x + config.noise * torch.randn(x.shape, generator=generator).to(where)
    return x.clamp(-1, 1)


def random_flip(x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Mirrors an image of x (N,3,H,W) left to right if its draw, (N,) and uniform in 0..1, is below 0.5."""
    return torch.where((draws < 0.5).to(x.device)[:, None, None, None], x.flip(-1), x)


def _blur(x: torch.Tensor, sigma: torch.Tensor, radius: int) -> torch.Tensor:
    """Blurs each image of x (N,3,H,W) by a Gaussian of its own sigma (N,1,1,1), in pixels, cut off at `radius`.

    The picture is continued by its border.
    """
    n, c, h, w = x.shape
    at = torch.arange(-radius, radius + 1, device=x.device)
    weights = torch.softmax(-0.5 * (at / sigma.view(n, 1).clamp_min(1e-3)).square(), 1)
    kernels = weights.repeat_interleave(c, 0)
    rows = F.pad(x.reshape(1, n * c, h, w), [radius] * 4, mode="replicate")
    across = F.conv2d(rows, kernels[:, None, None, :], groups=n * c)
    return F.conv2d(across, kernels[:, None, :, None], groups=n * c).view_as(x)


def _jitter(x: torch.Tensor, config: ViewsConfig, draws: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast, saturation and hue of x, by draws (N,4,1,1,1) uniform in -1..1."""
    brightness, contrast, saturation, hue = draws.unbind(1)
    x = (x + 1) * (1 + config.brightness * brightness) - 1
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (1 + config.contrast * contrast)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * (1 + config.saturation * saturation)
    if config.hue:
        # a turn about the grey axis (Rodrigues): as hue, and linear
        angle = 2 * math.pi * config.hue * hue.view(-1)
        cos, sin = angle.cos(), angle.sin()
        a, b = cos + (1 - cos) / 3, (1 - cos) / 3
        c = sin / math.sqrt(3)
        rows = [a, b - c, b + c, b + c, a, b - c, b - c, b + c, a]
        x = torch.einsum("nij,njhw->nihw", torch.stack(rows, 1).view(-1, 3, 3), x)
    return x
