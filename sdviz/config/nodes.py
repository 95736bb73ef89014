"""The branches of a configuration for networks and trainings, and the base class of all branches."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..text import LineError

# numpy, torch and scikit-learn all accept these and somewhat larger ones
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class ConfigError(LineError):
    """A wrong configuration; the message is one line with the path of the key."""


class Node(BaseModel):
    """A branch of the tree: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class UNetConfig(Node):
    """The noise predictor, built as `diffusers.UNet2DModel`.

    "small" is for the CPU (2x2 pixel-unshuffle, 64/128/128 channels, 4.4 M parameters), "ddpm" is the U-Net of
    Ho et al. 2020 (35.75 M). Other fields that are given replace the values of that size.
    """

    arch: Literal["small", "ddpm"] = "small"
    channels: tuple[int, ...] | None = None
    layers_per_block: int | None = Field(None, ge=1)
    attention_levels: tuple[int, ...] | None = Field(
        None, description="levels with attention, 0 the finest; [] leaves it to the middle block"
    )
    dropout: float | None = Field(None, ge=0, lt=1)
    pixel_unshuffle: int | None = Field(None, ge=1, le=4)

    @property
    def unshuffle_factor(self) -> int:
        """The pixels of a square of this side become channels of the U-Net; 1 for none."""
        return self.pixel_unshuffle or (2 if self.arch == "small" else 1)


class DiffusionConfig(Node):
    """Training of the noise predictor by Eq. 1."""

    unet: UNetConfig = UNetConfig()
    num_train_timesteps: int = Field(1000, ge=1)
    max_train_timestep: int | None = Field(
        None, ge=1, description="only t below it is trained; None trains all"
    )
    phase_means: bool = Field(
        True,
        description="with pixel-unshuffle, after training: the noise in each channel's mean comes from its"
        " posterior, not from the U-Net, whose normalisation hides it; without this, outliers show a fine grid",
    )
    p_uncond: float = Field(0.1, ge=0, le=1)
    min_snr: float | None = Field(
        None,
        gt=0,
        description="weighs each t by min(SNR, this) / SNR (Hang et al. 2023), so low noise counts less; None"
        " weighs all t alike, as Eq. 1",
    )
    batch_size: int = Field(64, ge=1)
    total_steps: int = Field(10_000, ge=1)
    time_limit_sec: float | None = Field(None, gt=0, description="end after this time, the cooldown included")
    learning_rate: float = Field(2e-4, gt=0)
    warmup_steps: int = Field(500, ge=0)
    cooldown: float = Field(0.0, ge=0, le=1, description="last share of the training; the rate falls to 0")
    max_grad_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    random_flip: bool = True
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    save_every_sec: float = Field(180.0, gt=0)
    seed: Seed = 0

    @model_validator(mode="after")
    def _timesteps_agree(self) -> DiffusionConfig:
        if self.max_train_timestep is not None and self.max_train_timestep > self.num_train_timesteps:
            raise ValueError(
                f"max_train_timestep {self.max_train_timestep} is above"
                f" num_train_timesteps {self.num_train_timesteps}"
            )
        return self


class ViewsConfig(Node):
    """Random views of an image, which the encoder learns to treat as the same.

    A view is a random window (zoom, place, tilt, flip) with changed colours. Crops and colour jitter suit
    photographs; colour fields and colour matrices suit flat shapes over gradients.
    """

    area: tuple[float, float] = Field(
        (0.2, 1.0),
        description="share of the picture's area in the window; above 1 the window is larger than it",
    )
    max_shift: float = Field(1.0, ge=0, le=1, description="how far the window moves; 1 is to the border")
    max_tilt_deg: float = Field(0.0, ge=0, le=180)
    random_flip: bool = True
    brightness: float = Field(0.4, ge=0, lt=1, description="a factor of 1 +- this, as the next two")
    contrast: float = Field(0.4, ge=0, lt=1)
    saturation: float = Field(0.4, ge=0, lt=1)
    hue: float = Field(0.1, ge=0, le=0.5, description="turns the hue by +- this; 1 is a full circle")
    jitter_share: float = Field(0.8, ge=0, le=1, description="share of the views that the four above change")
    grey_share: float = Field(0.2, ge=0, le=1)
    colour_matrix_share: float = Field(
        0.0, ge=0, le=1, description="share of views with a random orthogonal colour matrix"
    )
    colour_field: float = Field(
        0.0, ge=0, description="of a random smooth field added to the colours, in -1..1"
    )
    blur_share: float = Field(0.0, ge=0, le=1, description="share of views that a Gaussian blurs")
    max_blur_px: float = Field(1.0, gt=0, le=8, description="the largest standard deviation of that Gaussian")
    noise: float = Field(0.0, ge=0, description="standard deviation of added noise, grey levels in -1..1")

    @model_validator(mode="after")
    def _area_is_a_range(self) -> ViewsConfig:
        low, high = self.area
        if not 0 < low <= high <= 4:
            raise ValueError(f"area {list(self.area)} is not [low, high] with 0 < low <= high <= 4")
        return self


MILD_VIEWS = ViewsConfig(area=(0.8, 1.0), brightness=0.2, contrast=0.2, saturation=0.2, hue=0.0, grey_share=0.0)


class OptimizerConfig(Node):
    """The optimizer of a network; its rate warms up, then falls as a cosine."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float | None = Field(
        None, gt=0, description="longer gradients are shortened to this length; None leaves them"
    )


class TrainingConfig(Node):
    """The settings of every training."""

    total_steps: int = Field(2000, ge=1)
    batch_size: int = Field(256, ge=2)
    optimizer: OptimizerConfig = OptimizerConfig()
    save_every_sec: float = Field(180.0, gt=0)


class SimCLRConfig(TrainingConfig):
    """Contrastive training of the encoder without labels (Chen et al. 2020)."""

    temperature: float = Field(0.1, gt=0)
    projection_hidden: int = Field(512, ge=1)
    projection_dim: int = Field(128, ge=1)


class PretrainingConfig(TrainingConfig):
    """Supervised training of the encoder on another set, as its first stage."""

    data: str = Field(min_length=1, description="a labelled set, as data.id")
    split: str | None = None
    labels: tuple[int, int] | None = Field(None, description="[first, last] of the labels to use; None: all")
    views: ViewsConfig | None = Field(None, description="its augmentation; None takes the run's views")

    @model_validator(mode="after")
    def _labels_are_a_range(self) -> PretrainingConfig:
        if self.labels is not None and not 0 <= self.labels[0] <= self.labels[1]:
            raise ValueError(f"labels {list(self.labels)} is not [first, last] with 0 <= first <= last")
        return self


class NetworkConfig(Node):
    """A network that gives features, and the weights that it starts from."""

    arch: str = Field("small", description="small, resnet18 or timm:NAME")
    width: int = Field(48, ge=4, description="channels of the first stage; of small and resnet18")
    weights: str | None = Field(
        None, description="pretrained (timm's download), pip (a package), or a .safetensors or .pth file"
    )
    input_px: int | None = Field(None, ge=8, description="resize pictures to this first (bicubic)")
    seed: Seed = 0

    @field_validator("arch")
    @classmethod
    def _arch_is_known(cls, arch: str) -> str:
        if arch not in ("small", "resnet18") and not (arch.startswith("timm:") and arch != "timm:"):
            raise ValueError(f"must be small, resnet18 or timm:NAME, got {json.dumps(arch)}")
        return arch


class DistillationConfig(TrainingConfig):
    """Training of the encoder to give the features of another network, without labels."""

    teacher: NetworkConfig
    data: tuple[str, ...] = Field((), description="further sets to train on, as data.id or NAME:SPLIT")
    limit: int = Field(10_000, ge=1, description="images to take of each further set")
    views: ViewsConfig = Field(MILD_VIEWS, description="what the encoder sees; the teacher sees plain images")


class EncoderConfig(NetworkConfig):
    """The network before detector training; it gives the clusters and the plain features."""

    pretraining: PretrainingConfig | None = None
    distillation: DistillationConfig | None = None
    simclr: SimCLRConfig | None = SimCLRConfig()

    @property
    def trainings(self) -> tuple[TrainingConfig, ...]:
        """Its trainings, in order."""
        return tuple(one for one in (self.pretraining, self.distillation, self.simclr) if one is not None)


class ScanConfig(TrainingConfig):
    """Training by the SCAN loss (Van Gansbeke et al. 2020): neighbours share a cluster, no cluster is empty."""

    total_steps: int = Field(1000, ge=0, description="0 trains the heads alone and leaves the encoder as it is")
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-4)
    neighbours: int = Field(20, ge=1)
    neighbours_by: NetworkConfig | None = Field(
        None, description="the network whose features give the neighbours; None takes the encoder"
    )
    heads: int = Field(10, ge=1, description="trained together; the one with the lowest loss is kept")
    head_steps: int = Field(
        500, ge=0, description="steps of the heads alone, before the encoder is trained too"
    )
    head_learning_rate: float = Field(0.1, gt=0)
    head_batch_size: int = Field(1000, ge=2)
    entropy_weight: float = Field(5.0, ge=0)

    @model_validator(mode="after")
    def _heads_are_trained(self) -> ScanConfig:
        if not self.head_steps and not self.total_steps:
            raise ValueError("head_steps and total_steps are both 0")
        return self


class SelfLabelConfig(TrainingConfig):
    """Self-labelling: confident predictions on plain images become the targets of strong views."""

    total_steps: int = Field(1000, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-4)
    threshold: float = Field(0.99, gt=0, lt=1)


class TurtleConfig(TrainingConfig):
    """Clusters of fixed features by TURTLE (Gadetsky et al. 2024)."""

    total_steps: int = Field(200, ge=1)
    batch_size: int = Field(10_000, ge=2)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-2, weight_decay=0.0)
    classifier_steps: int = Field(10, ge=1, description="of the classifiers that each step trains anew")
    classifier_learning_rate: float = Field(1e-3, gt=0)
    entropy_weight: float = Field(10.0, ge=0, description="keeps clusters from getting empty")


class TemiConfig(TrainingConfig):
    """Clusters of fixed features by TEMI (Adaloglou et al. 2023)."""

    total_steps: int = Field(2000, ge=1)
    batch_size: int = Field(512, ge=2)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-4)
    neighbours: int = Field(50, ge=1)
    heads: int = Field(16, ge=1, description="trained together; the one with the lowest loss is kept")
    hidden: tuple[int, int] = (512, 256)
    temperature: float = Field(0.1, gt=0)
    teacher_decay: float = Field(0.996, ge=0, lt=1)


class ClustererConfig(Node):
    """Training of the small classifier that names an image's cluster if SCAN has not made one."""

    width: int = Field(32, ge=1, description="channels of its first stage")
    total_steps: int = Field(1000, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(3e-3, gt=0, description="peak of one cycle")
    weight_decay: float = Field(1e-2, ge=0)
    max_shift_px: int = Field(3, ge=0)
    random_flip: bool = True
    colour_jitter: float = Field(
        0.4, ge=0, lt=1, description="brightness, contrast, saturation vary by +- this"
    )


class DetectorConfig(Node):
    """Training of f, g_bin, g_in and g_out by Eq. 4-5."""

    epochs: int = Field(5, ge=1)
    batch_size: int = Field(128, ge=2, description="half ID, half outliers")
    optimizer: OptimizerConfig = OptimizerConfig()
    outlier_weight: float = Field(0.3, ge=0, description="lambda of Eq. 4")
    backbone: EncoderConfig | None = Field(None, description="starting network; None takes the encoder")
    frozen_blocks: int = Field(0, ge=0, description="first blocks of the encoder that are not trained")
    frozen_batch_norm: bool = Field(
        False, description="batch norms keep the statistics of the starting network and normalise by them"
    )
    head_epochs: int = Field(
        0, ge=0, description="epochs of the heads alone, on plain images, before `epochs` of everything"
    )
    head_learning_rate: float = Field(1e-2, gt=0, description="in those epochs")
    distillation: float = Field(
        0.0, ge=0, description="weight of the squared distance to the starting network's features"
    )
    bin_loss: Literal["plane", "neighbours"] = Field(
        "plane",
        description="what teaches f the sides: g_bin, or near features of one side; g_bin then leaves f alone",
    )
    zero_heads: bool = Field(True, description="the three heads start at 0")
    unit_features: bool = Field(
        False, description="the heads see features at one length, so that training moves their directions only"
    )
    views: ViewsConfig | None = Field(
        MILD_VIEWS, description="None: plain images, and what frozen blocks make of them is computed once"
    )
    reconstructed_id: float = Field(
        0.0, ge=0, le=1, description="share of ID images replaced by their reconstructions"
    )
    jpeg_both_sides: bool = Field(
        False, description="ID images are trained on as they come out of outliers.jpeg, too"
    )
    interpolation: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of the trained weights in the encoder that scores; the rest is what it started from",
    )
    snapshot_ids: int = Field(2000, ge=0, description="images whose features are kept after every epoch")
    save_every_sec: float = Field(180.0, gt=0)
    seed: Seed = 0

    @model_validator(mode="after")
    def _batch_has_halves(self) -> DetectorConfig:
        if self.batch_size % 2:
            raise ValueError(f"batch_size {self.batch_size} has no halves")
        if self.bin_loss == "neighbours" and self.batch_size < 4:
            raise ValueError(f"batch_size {self.batch_size}: bin_loss neighbours needs two images of each side")
        return self
