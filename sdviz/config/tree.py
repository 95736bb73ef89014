"""The tree of a run's configuration: what there is to set, in which range, with which default."""

from __future__ import annotations

import json
import os.path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# what numpy, torch and scikit-learn all take, with room above it for the seeds counted on from it
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Node(BaseModel):
    """A branch of the tree: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class UNetConfig(Node):
    """The noise predictor, built as `diffusers.UNet2DModel`.

    `arch` names a size of PAPER.md section 4: "small" is for the CPU (2x2 pixel-unshuffle, 64/128/128
    channels, 4.4 M parameters), "ddpm" is the U-Net of Ho et al. 2020 (35.75 M). The other fields,
    where given, replace that size's own values.
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
        """Pixels of a factor x factor square are channels of the U-Net; 1 for none."""
        return self.pixel_unshuffle or (2 if self.arch == "small" else 1)


class DiffusionConfig(Node):
    """Training of the noise predictor by Eq. 1."""

    unet: UNetConfig = UNetConfig()
    num_train_timesteps: int = Field(1000, ge=1)
    max_train_timestep: int | None = Field(
        None, ge=1, description="only t below this is trained; None trains all"
    )
    phase_means: bool = Field(
        True,
        description="behind pixel-unshuffle, after training: the noise in each channel's mean by its posterior,"
        " not by the U-Net, whose normalisation hides it; without, every outlier has a fine grid",
    )
    p_uncond: float = Field(0.1, ge=0, le=1)
    batch_size: int = Field(64, ge=1)
    total_steps: int = Field(10_000, ge=1)
    time_limit_sec: float | None = Field(None, gt=0, description="stop early, cooled down, after this long")
    learning_rate: float = Field(2e-4, gt=0)
    warmup_steps: int = Field(500, ge=0)
    cooldown: float = Field(0.0, ge=0, le=1, description="the last share of training, with a rate falling to 0")
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


class DataConfig(Node):
    """What to train on, in the words of `sdviz.data.load`."""

    id: str = Field(min_length=1, description="a name, folder:PATH, parquet:PATH, npz:PATH or npy:PATH")
    split: str | None = Field(None, description="None takes the only split there is, else train")
    test_split: str | None = Field(None, description="None takes test, where the set has one")
    limit: int | None = Field(None, ge=1, description="images to train on; None takes all")
    size_px: int = Field(32, ge=1)
    on_error: Literal["raise", "skip"] = Field("raise", description="what to do about a bad picture")
    holdout: float = Field(
        0.1, gt=0, lt=1, description="share kept for testing a detector, where there is no test split"
    )


class ViewsConfig(Node):
    """Random views of an image: what must not matter to the encoder.

    Every view is a random window (zoom, place, tilt, flip), recoloured. What hides the nuisances differs
    from set to set: photographs want crops and colour jitter, flat shapes over gradients want colour
    fields and colour matrices.
    """

    area: tuple[float, float] = Field(
        (0.2, 1.0), description="share of the picture's area in the window; above 1 looks past its border"
    )
    max_shift: float = Field(
        1.0, ge=0, le=1, description="how far the window moves, 1 being to the picture's border"
    )
    max_tilt_deg: float = Field(0.0, ge=0, le=180)
    random_flip: bool = True
    brightness: float = Field(0.4, ge=0, lt=1, description="a factor of 1 +- this; so are the next two")
    contrast: float = Field(0.4, ge=0, lt=1)
    saturation: float = Field(0.4, ge=0, lt=1)
    hue: float = Field(0.1, ge=0, le=0.5, description="a turn of the hue by +- this, 1 being a full circle")
    jitter_share: float = Field(0.8, ge=0, le=1, description="how many views the four above change")
    grey_share: float = Field(0.2, ge=0, le=1)
    colour_matrix_share: float = Field(
        0.0, ge=0, le=1, description="how many views have their colours turned by a random orthogonal matrix"
    )
    colour_field: float = Field(
        0.0, ge=0, description="strength of a random smooth field added to the colours, grey levels in -1..1"
    )
    noise: float = Field(0.0, ge=0, description="standard deviation of added noise, grey levels in -1..1")

    @model_validator(mode="after")
    def _area_is_a_range(self) -> ViewsConfig:
        low, high = self.area
        if not 0 < low <= high <= 4:
            raise ValueError(f"area {list(self.area)} is not [low, high] with 0 < low <= high <= 4")
        return self


MILD_VIEWS = ViewsConfig(area=(0.8, 1.0), brightness=0.2, contrast=0.2, saturation=0.2, hue=0.0, grey_share=0.0)


class OptimizerConfig(Node):
    """How a network's weights follow the gradient; the rate warms up and falls as a cosine."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    warmup_steps: int = Field(0, ge=0)


class TrainingConfig(Node):
    """What every training has."""

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
    """Supervised training of the encoder on another set, before anything else."""

    data: str = Field(min_length=1, description="a labelled set, as data.id")
    split: str | None = None
    labels: tuple[int, int] | None = Field(
        None, description="[first, last] of the labels to use; None takes all"
    )
    views: ViewsConfig | None = Field(None, description="its augmentation; None takes the run's views")

    @model_validator(mode="after")
    def _labels_are_a_range(self) -> PretrainingConfig:
        if self.labels is not None and not 0 <= self.labels[0] <= self.labels[1]:
            raise ValueError(f"labels {list(self.labels)} is not [first, last] with 0 <= first <= last")
        return self


class EncoderConfig(Node):
    """The network before detector training: clusters and plain features come from it."""

    arch: str = Field("small", description="small, resnet18 or timm:NAME")
    width: int = Field(48, ge=4, description="channels of the first stage; of small and resnet18")
    weights: str | None = Field(
        None, description="pretrained (timm's own download), or a .safetensors or .pth file"
    )
    input_px: int | None = Field(None, ge=8, description="resize pictures to this first (bicubic)")
    pretraining: PretrainingConfig | None = None
    simclr: SimCLRConfig | None = SimCLRConfig()
    seed: Seed = 0

    @field_validator("arch")
    @classmethod
    def _arch_is_known(cls, arch: str) -> str:
        if arch not in ("small", "resnet18") and not (arch.startswith("timm:") and arch != "timm:"):
            raise ValueError(f"must be small, resnet18 or timm:NAME, got {json.dumps(arch)}")
        return arch


class ScanConfig(TrainingConfig):
    """The SCAN loss (Van Gansbeke et al. 2020): neighbours in one cluster, all clusters used."""

    total_steps: int = Field(1000, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-4)
    neighbours: int = Field(20, ge=1)
    heads: int = Field(10, ge=1, description="trained side by side; the one with the lowest loss is kept")
    head_steps: int = Field(
        500, ge=0, description="steps of the heads alone on the encoder as it is, before all is trained"
    )
    head_learning_rate: float = Field(0.1, gt=0)
    head_batch_size: int = Field(1000, ge=2)
    entropy_weight: float = Field(5.0, ge=0)


class SelfLabelConfig(TrainingConfig):
    """Self-labelling: confident predictions on plain images become targets on strong views."""

    total_steps: int = Field(1000, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-4)
    threshold: float = Field(0.99, gt=0, lt=1)


class LabelsConfig(Node):
    """Where the training labels y~ come from."""

    source: Literal["scan", "kmeans", "ground_truth", "file"] = "ground_truth"
    n_clusters: int | None = Field(None, ge=2, description="C, for scan and kmeans")
    path: str | None = Field(
        None,
        description="for file: a Parquet or CSV table with columns id and label, words or whole numbers from 0",
    )
    scan: ScanConfig = ScanConfig()
    self_label: SelfLabelConfig | None = SelfLabelConfig()
    seed: Seed = 0

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> LabelsConfig:
        if self.source in ("scan", "kmeans") and self.n_clusters is None:
            raise ValueError(f"source {self.source} needs n_clusters")
        if (self.source == "file") != (self.path is not None):
            raise ValueError("path goes with source file, and only with it")
        return self


class ClustererConfig(Node):
    """Training of the small classifier that names the cluster of any image, where SCAN does not."""

    width: int = Field(32, ge=1, description="channels of its first stage")
    total_steps: int = Field(1000, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(3e-3, gt=0, description="peak of one cycle")
    weight_decay: float = Field(1e-2, ge=0)
    max_shift_px: int = Field(3, ge=0)
    random_flip: bool = True
    colour_jitter: float = Field(
        0.4, ge=0, lt=1, description="how far brightness, contrast and saturation may be from 1"
    )


class JpegConfig(Node):
    """Re-encoding of the network's pictures, so that compression does not give them away."""

    quality: int = Field(75, ge=1, le=100)
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"


class OutliersConfig(Node):
    """The SD outliers that the detector learns from; what is None is taken from `defaults`."""

    per_image: int = Field(1, ge=1)
    limit: int | None = Field(
        None, ge=1, description="images to make them of and to train the detector with; None takes all"
    )
    start_timestep: int | None = Field(None, ge=0)
    guidance_scale: float | None = Field(None, ge=-1, le=20)
    num_inference_steps: int | None = Field(None, ge=1, le=1000)
    solver: Literal["ddim", "ddpm", "dpmpp_2m"] | None = None
    eta: float = Field(0.0, ge=0, le=1)
    guidance_interval: tuple[float, float] | None = None
    jpeg: JpegConfig | None = Field(None, description="for ID images that went through JPEG")
    shard_size: int = Field(256, ge=1, description="images made and saved together")
    batch_size: int = Field(64, ge=1)
    seed: Seed = 0

    @model_validator(mode="after")
    def _interval_is_a_range(self) -> OutliersConfig:
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low <= high:
                raise ValueError(f"guidance_interval {[low, high]} is not [low, high] with 0 <= low <= high")
        return self


class DetectorConfig(Node):
    """Training of f, g_bin, g_in and g_out by Eq. 4-5."""

    epochs: int = Field(5, ge=1)
    batch_size: int = Field(128, ge=2, description="half ID, half outliers")
    optimizer: OptimizerConfig = OptimizerConfig()
    outlier_weight: float = Field(0.3, ge=0, description="lambda of Eq. 4")
    backbone: EncoderConfig | None = Field(
        None, description="the network that the detector starts from; None takes the encoder"
    )
    frozen_blocks: int = Field(0, ge=0, description="the encoder's first blocks that stay as they are")
    zero_heads: bool = Field(True, description="the three heads begin at 0")
    views: ViewsConfig = MILD_VIEWS
    reconstructed_id: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the ID images shown as the U-Net rebuilds them",
    )
    snapshot_ids: int = Field(2000, ge=0, description="images whose features are kept after every epoch")
    save_every_sec: float = Field(180.0, gt=0)
    seed: Seed = 0

    @model_validator(mode="after")
    def _batch_has_halves(self) -> DetectorConfig:
        if self.batch_size % 2:
            raise ValueError(f"batch_size {self.batch_size} has no halves")
        return self


class ScoreConfig(Node):
    """Eq. 6."""

    k: int = Field(10, ge=1)
    alpha: float = Field(0.3, ge=0)
    normalize: bool = Field(True, description="unit length features")


class SDTestConfig(Node):
    """SD outliers of held-out ID images as an OOD set of their own (Table 4); the rest is as in `outliers`."""

    start_timestep: int = Field(150, ge=0)
    guidance_scale: float = Field(4.0, ge=-1, le=20)
    limit: int | None = Field(None, ge=1, description="held-out images to make them of; None takes all")
    seed: Seed = 0


class BaselineConfig(Node):
    """One of the methods that stand beside the paper's; what is None is that method's own default."""

    method: Literal[
        "dn2",
        "knn",
        "ssd",
        "multiclass_ad",
        "mscl",
        "fake_it",
        "rot",
        "msp",
        "energy",
        "entropy",
        "png_size",
        "input_complexity",
    ]
    network: Literal["backbone", "encoder"] = Field(
        "backbone", description="whose features it takes, or which network it trains on"
    )
    k: int | None = Field(None, ge=1, description="neighbours; of dn2, knn, multiclass_ad, mscl, fake_it")
    epochs: float | None = Field(None, gt=0, description="of those that train; so are the next two")
    learning_rate: float | None = Field(None, gt=0)
    batch_size: int | None = Field(None, ge=2)
    generator_steps: int | None = Field(
        None, ge=1, description="of fake_it: steps of the U-Net's training at which its generator stops"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_a_name(cls, value: object) -> object:
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _method_has_these(self) -> BaselineConfig:
        trains = ("multiclass_ad", "mscl", "fake_it", "rot")
        of = {
            "k": ("dn2", "knn", "multiclass_ad", "mscl", "fake_it"),
            "epochs": trains,
            "learning_rate": trains,
            "batch_size": trains,
            "generator_steps": ("fake_it",),
        }
        for name, methods in of.items():
            if getattr(self, name) is not None and self.method not in methods:
                raise ValueError(f"{self.method} has no {name}")
        return self

    @property
    def key(self) -> str:
        """What tables and files call it: the method's name, with `network` where that is the encoder."""
        return self.method if self.network == "backbone" else f"{self.method}@{self.network}"


class EvaluationConfig(Node):
    """What the detector is measured on. Settings are chosen on `validation` alone."""

    near: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    classes: dict[str, tuple[str, ...]] = Field(
        {}, description="of a set that is named above, the only classes to take: their names or first words"
    )
    sd_test: SDTestConfig | None = Field(None, description="SD outliers of held-out ID images as an OOD set")
    baselines: tuple[BaselineConfig, ...] = Field((), description="methods to measure beside ours")
    score: ScoreConfig = ScoreConfig()
    limit: int | None = Field(None, ge=1, description="images of each set; None takes all")
    controls: tuple[Literal["no_training", "right_label", "noise", "right_label_as_id", "lambda_zero"], ...] = (
        "no_training",
        "right_label",
        "noise",
    )
    bootstrap: int = Field(1000, ge=0, description="resamples for the intervals")
    inception_weights: str | None = Field(None, description="a file with the weights that FID is defined by")
    seed: Seed = 0

    @model_validator(mode="after")
    def _sets_have_one_role(self) -> EvaluationConfig:
        every = [_plain(name) for name in (*self.near, *self.far, *self.validation)]
        twice = [name for name in dict.fromkeys(every) if every.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]} has two roles among near, far and validation")
        return self

    @model_validator(mode="after")
    def _lists_fit(self) -> EvaluationConfig:
        named = (*self.near, *self.far, *self.validation)
        for name in self.classes:
            if name not in named:
                raise ValueError(f"classes: {name} is not among near, far and validation")
        keys = [one.key for one in self.baselines]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise ValueError(f"baselines names {twice[0]} twice")
        return self

    @model_validator(mode="after")
    def _controls_stand_once(self) -> EvaluationConfig:
        twice = [name for name in self.controls if self.controls.count(name) > 1]
        if twice:
            raise ValueError(f"controls names {twice[0]} twice")
        return self


class DefaultsConfig(Node):
    """What the bundle does when it is not told: S, w, K and the sampler."""

    start_timestep: int = Field(100, ge=0)
    guidance_scale: float = Field(2.0, ge=-1, le=20)
    num_inference_steps: int = Field(10, ge=1, le=1000)
    solver: Literal["ddim", "ddpm", "dpmpp_2m"] = "dpmpp_2m"


class BundleConfig(Node):
    """What goes into the bundle besides networks and features."""

    outlier_pictures: int | None = Field(
        None,
        ge=0,
        description="outliers kept as PNG; the others are made again from their source; None keeps all",
    )
    weights: Literal["float32", "float16"] = Field(
        "float32",
        description="of encoder, clusterer and detector; float16 halves their files. The U-Net is float16",
    )


class RunConfig(Node):
    """The whole tree of a run. Without `detector` it ends in a bundle that makes outliers only."""

    profile: str = Field("run", min_length=1, description="part of the run folder's name")
    data: DataConfig
    views: ViewsConfig = ViewsConfig()
    encoder: EncoderConfig | None = Field(None, description="None trains none; scan and detector need it")
    labels: LabelsConfig = LabelsConfig()
    clusterer: ClustererConfig = ClustererConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    defaults: DefaultsConfig = DefaultsConfig()
    outliers: OutliersConfig = OutliersConfig()
    detector: DetectorConfig | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    bundle: BundleConfig = BundleConfig()
    seed: Seed = Field(0, description="of data.limit and the clusterer; the others have their own")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")

    @model_validator(mode="after")
    def _parts_fit(self) -> RunConfig:
        starts = {"defaults": self.defaults.start_timestep, "outliers": self.outliers.start_timestep or 0}
        if self.evaluation.sd_test is not None:
            starts["evaluation.sd_test"] = self.evaluation.sd_test.start_timestep
        for branch, start in starts.items():
            if start > self.max_train_timestep:
                raise ValueError(
                    f"{branch}.start_timestep {start} is above {self.max_train_timestep},"
                    " the last timestep that diffusion trains"
                )
        if self.encoder is None and self.labels.source in ("scan", "kmeans"):
            raise ValueError(f"labels.source {self.labels.source} needs an encoder: add encoder: {{}}")
        if self.encoder is None and self.detector is not None:
            raise ValueError("detector needs an encoder: add encoder: {}")
        for name in (*self.evaluation.near, *self.evaluation.far, *self.evaluation.validation):
            # no split of it either: the others are of the same kind
            if _plain(name) == _plain(self.data.id) or name.partition(":")[0] == self.data.id:
                raise ValueError(f"evaluation: {name} is what the run trains on, not OOD")
        return self

    @property
    def max_train_timestep(self) -> int:
        """The largest S that the noise predictor is trained for."""
        return self.diffusion.max_train_timestep or self.diffusion.num_train_timesteps


def _plain(name: str) -> str:
    """A data set's name; where it is a path, as in folder:./pets/, without detours in it."""
    kind, _, path = name.partition(":")
    return f"{kind}:{os.path.normpath(path)}" if kind in ("folder", "parquet") and path else name
