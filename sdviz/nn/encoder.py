"""Encoders: networks from images to features."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import constants, get_session, hf_hub_url, try_to_load_from_cache
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from ..config.nodes import EncoderConfig

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


class EncoderError(ValueError):
    """An encoder that cannot be made: an unknown name, or weights that are missing or of another network."""


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
        """Stem and residual (or transformer) blocks in order, as `freeze` counts them."""
        if isinstance(self.body, nn.Sequential):
            return [m for m in self.body if not isinstance(m, nn.AdaptiveAvgPool2d | nn.Flatten)]
        stem = [m for name, m in self.body.named_children() if name in STEMS]
        for name in ("blocks", "stages", "layers"):
            inner = getattr(self.body, name, None)
            if isinstance(inner, nn.Sequential | nn.ModuleList):
                return [*stem, *inner]
        inner = [m for name, m in self.body.named_children() if name.startswith("layer")]
        return [*stem, *inner]

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

    def train(self, mode: bool = True) -> Encoder:
        """As `nn.Module.train`; frozen blocks stay in eval mode."""
        super().train(mode)
        for block in getattr(self, "_frozen", []):
            block.eval()
        return self


def build_encoder(config: EncoderConfig) -> Encoder:
    """Builds an encoder and loads the weights that its configuration names; EncoderError if it fails."""
    torch.manual_seed(config.seed)
    encoder = Encoder(config.arch, config.width, config.input_px)
    if config.weights == "pretrained":
        _load_pretrained(encoder, config.arch)
    elif config.weights is not None:
        load_weights(encoder.body, Path(config.weights).expanduser())
    return encoder


def load_weights(module: nn.Module, path: Path) -> None:
    """Loads the weights of a file into a network, without a class head in the file.

    Args:
        module: The network, changed in place.
        path: .safetensors, or .pth / .pt / .bin opened with `weights_only`; weights of an `Encoder`, as in a
            run or a bundle, or of its body.

    Raises:
        EncoderError: No such file, a pickle of anything but tensors, or another network's weights.
    """
    if not path.is_file():
        raise EncoderError(f"no weights at {path}: put a .safetensors or .pth file of this network there")
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # reading damaged bytes as a pickle can raise any error
        raise EncoderError(f"{path}: damaged, or holds more than weights") from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise EncoderError(f"{path}: holds no table of weights")
    wanted = module.state_dict()
    if state and all(k.startswith("body.") for k in state) and not any(k.startswith("body.") for k in wanted):
        state = {k.removeprefix("body."): v for k, v in state.items()}
    extra = [k for k in state if k not in wanted and not k.startswith(("head.", "fc.", "classifier."))]
    # files from before 2018 lack this counter, which eval mode does not use
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    wrong = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    for what, keys in (("lacks", missing), ("has another shape of", wrong), ("has an unknown", extra)):
        if keys:
            raise EncoderError(f"{path}: not this network's weights: it {what} {keys[0]}")
    module.load_state_dict({k: state[k] for k in wanted if k in state})


def _load_pretrained(encoder: Encoder, arch: str) -> None:
    import timm

    if not arch.startswith("timm:"):
        raise EncoderError(f"encoder.weights pretrained: there are none for {arch}; use timm:NAME or a file")
    name = arch.removeprefix("timm:")
    try:
        _check_hub(name)
        # timm looks into its own cache first
        trained = timm.create_model(name, pretrained=True, num_classes=0, **_size(name, encoder.input_px))
    except Exception as error:  # hub, network and cache errors of many libraries
        raise EncoderError(
            f"timm cannot get the weights of {name} here: download its model.safetensors elsewhere and set"
            f" encoder.weights to that file"
        ) from error
    encoder.body.load_state_dict(trained.state_dict())


def _check_hub(name: str) -> None:
    """Raises the hub's error at once if weights are neither cached nor there; timm would retry for a minute."""
    import timm

    repo = getattr(timm.get_pretrained_cfg(name, allow_unregistered=True), "hf_hub_id", None)
    files = ("model.safetensors", "pytorch_model.bin")
    if repo and not any(isinstance(try_to_load_from_cache(repo, file), str) for file in files):
        get_session().head(hf_hub_url(repo, files[0]), timeout=constants.HF_HUB_ETAG_TIMEOUT)


def _timm_body(name: str, input_px: int | None) -> nn.Module:
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 1)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise EncoderError(f"timm has no model {name!r}{hint}")
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **_size(name, input_px))
    except (AssertionError, RuntimeError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        size = "" if input_px is None else f" for {input_px} px"
        raise EncoderError(f"timm cannot build {name}{size}: {reason}") from error


def _size(name: str, input_px: int | None) -> dict[str, Any]:
    """The size argument of networks with a position for each patch; others take any size."""
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    fixed = config is not None and config.fixed_input_size
    return {"img_size": input_px} if input_px is not None and fixed else {}


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
