"""Encoders: networks from images to features."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from ..config.nodes import NetworkConfig
from .weights import EncoderError, load_weights, size_option

# timm and torchvision take a second each to import, so they are imported when a network is built
if TYPE_CHECKING:
    from torchvision.models.resnet import BasicBlock

# of each stage: width over that of the stem, number of blocks, stride; ResNet-18 of width 64 is the paper's
RESNETS = {
    "small": ((1, 2, 4), (1, 1, 1), (2, 2, 2)),
    "resnet18": ((1, 2, 4, 8), (2, 2, 2, 2), (1, 2, 2, 2)),
}
# timm's names of the parts before the first block
STEMS = ("patch_embed", "stem", "conv_stem", "conv1", "bn1")


class Encoder(nn.Module):
    """Maps each image to one feature vector.

    Attributes:
        config: `Encoder(**config)` builds the same network, without its weights.
        input_px: The side that images are resized to; None keeps their size.
    """

    def __init__(self, arch: str = "small", width: int = 48, input_px: int | None = None) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"arch": arch, "width": width, "input_px": input_px}
        self.input_px = input_px
        self._frozen: list[nn.Module] = []
        if arch.startswith("timm:"):
            self.body: nn.Module = _timm_body(arch.removeprefix("timm:"), input_px)
            # some networks widen the pooled features once more
            dim: Any = getattr(self.body, "head_hidden_size", None) or getattr(self.body, "num_features", 0)
            self.feature_dim = int(dim)
            cfg = getattr(self.body, "pretrained_cfg", {})
            mean, std = cfg.get("mean", (0.5, 0.5, 0.5)), cfg.get("std", (0.5, 0.5, 0.5))
            if input_px is None and cfg.get("fixed_input_size"):
                self.input_px = int(cfg["input_size"][-1])
        elif arch in RESNETS:
            factors, depths, strides = RESNETS[arch]
            self.body = _resnet(width, factors, depths, strides)
            self.feature_dim = factors[-1] * width
            mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
        else:
            raise EncoderError(f"encoder arch {arch!r} is not small, resnet18 or timm:NAME")
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features, float (N,D), of images float (N,3,H,W) in [-1,1].

        Resizes to `input_px` (bicubic, antialiased), normalises as the weights expect, pools the features.
        """
        if self.input_px is not None and x.shape[-2:] != (self.input_px, self.input_px):
            # autocast has no bfloat16 kernel for this one
            x = F.interpolate(
                x.float(), size=(self.input_px, self.input_px), mode="bicubic", antialias=True
            ).clamp(-1, 1)
        return self.body(((x + 1) / 2 - self.mean) / self.std)

    @property
    def blocks(self) -> list[nn.Module]:
        """Stem and residual (or transformer) blocks in order, as `freeze` counts them.

        What comes after the last block (a last convolution or norm) belongs to it.
        """
        if isinstance(self.body, nn.Sequential):
            return [m for m in self.body if not isinstance(m, nn.AdaptiveAvgPool2d | nn.Flatten)]
        children = dict(self.body.named_children())
        stem = [name for name in children if name in STEMS]
        inner = [name for name in children if name in ("blocks", "stages", "layers")][:1]
        inner = inner or [name for name in children if name.startswith("layer")]
        tail = [m for name, m in children.items() if name not in (*stem, *inner) and list(m.parameters())]
        parts = [children[name] for name in inner]
        if len(parts) == 1 and isinstance(parts[0], nn.Sequential | nn.ModuleList):
            parts = list(parts[0])
        last = nn.ModuleList([parts[-1], *tail]) if tail else parts[-1]
        return [*(children[name] for name in stem), *parts[:-1], last]

    def freeze(self, n_blocks: int) -> None:
        """Freezes the first `n_blocks` of `blocks`: no gradient, no new batch statistics.

        With the first block of a vision transformer, its position embedding and class token freeze too.
        EncoderError if there are fewer blocks.
        """
        blocks = self.blocks
        if n_blocks > len(blocks):
            raise EncoderError(f"frozen_blocks {n_blocks}: {self.config['arch']} has {len(blocks)} blocks")
        self._frozen = blocks[:n_blocks]
        for block in self._frozen:
            block.requires_grad_(False)
            block.eval()
        if n_blocks:
            for name in ("pos_embed", "cls_token"):
                token = getattr(self.body, name, None)
                if isinstance(token, nn.Parameter):
                    token.requires_grad_(False)

    @property
    def frozen(self) -> list[nn.Module]:
        """The blocks that are frozen."""
        return self._frozen

    def activations(self, x: torch.Tensor) -> torch.Tensor:
        """What the frozen blocks make of images as in `forward`: the features, if all blocks are frozen."""
        first = self._first_trained
        if first is None:
            return self(x)
        taken: list[torch.Tensor] = []
        hook = first.register_forward_pre_hook(lambda block, given: taken.append(given[0]))
        try:
            self(x)
        finally:
            hook.remove()
        return taken[0]

    def features_of(self, activations: torch.Tensor) -> torch.Tensor:
        """The features of images whose `activations` are known: frozen blocks compute nothing.

        EncoderError for a network that needs the image itself, such as a vision transformer.
        """
        first = self._first_trained
        if first is None:
            return activations
        hook = first.register_forward_pre_hook(lambda block, given: (activations, *given[1:]))
        try:
            for block in self._frozen:
                block.forward = lambda x, *rest: x
            return self.body(activations.new_zeros(1, 3, 8, 8))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise EncoderError(f"{self.config['arch']} cannot start at block {len(self._frozen)}") from error
        finally:
            hook.remove()
            for block in self._frozen:
                block.__dict__.pop("forward", None)

    @property
    def _first_trained(self) -> nn.Module | None:
        """The first block that is not frozen; None if all are."""
        left = self.blocks[len(self._frozen) :]
        if not left:
            return None
        # the last block with its tail is a list, which has no input
        return left[0][0] if isinstance(left[0], nn.ModuleList) else left[0]

    def train(self, mode: bool = True) -> Encoder:
        """As `nn.Module.train`; frozen blocks stay in eval mode."""
        super().train(mode)
        for block in self._frozen:
            block.eval()
        return self


def build_encoder(config: NetworkConfig) -> Encoder:
    """Builds an encoder and loads the weights that its configuration names; EncoderError if it fails."""
    torch.manual_seed(config.seed)
    encoder = Encoder(config.arch, config.width, config.input_px)
    if config.weights is not None:
        load_weights(encoder.body, config.arch, config.weights, encoder.input_px)
    return encoder


def _timm_body(name: str, input_px: int | None) -> nn.Module:
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 1)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise EncoderError(f"timm has no model {name!r}{hint}")
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **size_option(name, input_px))
    except (AssertionError, RuntimeError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        size = "" if input_px is None else f" for {input_px} px"
        raise EncoderError(f"timm cannot build {name}{size}: {reason}") from error


def _resnet(
    width: int, factors: tuple[int, ...], depths: tuple[int, ...], strides: tuple[int, ...]
) -> nn.Sequential:
    """A 3x3 stem without max-pool, as is usual on 32x32 pictures, and residual stages."""
    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    layers: list[nn.Module] = [stem]
    channels = width
    for factor, depth, stride in zip(factors, depths, strides, strict=True):
        out = factor * width
        for i in range(depth):
            layers.append(_block(channels, out, stride if i == 0 else 1))
            channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _block(channels: int, out: int, stride: int) -> BasicBlock:
    from torchvision.models.resnet import BasicBlock

    shortcut = None
    if stride != 1 or channels != out:
        shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    return BasicBlock(channels, out, stride, shortcut)
