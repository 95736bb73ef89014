"""The tree of a run's configuration: all settings with ranges and defaults.

Solvers, methods and the methods' settings come from their registries, so a new file appears here by itself.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, create_model, field_validator, model_validator

from ..baselines import BASELINES, Baseline
from ..data import OWN_KINDS
from ..data.decode import Fit
from ..data.levels import AUTO, parse_range
from ..diffusion.samplers import SAMPLERS
from ..outliers.recipe import RANGES, is_interval
from .nodes import (
    ClustererConfig,
    DetectorConfig,
    DiffusionConfig,
    EncoderConfig,
    NetworkConfig,
    Node,
    ScanConfig,
    Seed,
    SelfLabelConfig,
    TemiConfig,
    TurtleConfig,
    ViewsConfig,
)

if TYPE_CHECKING:
    Solver: TypeAlias = str
else:
    Solver = Literal[tuple(SAMPLERS)]


class DataConfig(Node):
    """The training set; names as in `sdviz.data.load`."""

    id: str = Field(
        min_length=1, description=f"a name, or a path as {' or '.join(f'{kind}PATH' for kind in OWN_KINDS)}"
    )
    split: str | None = Field(None, description="None takes the only split there is, else train")
    test_split: str | None = Field(None, description="None takes test, where the set has one")
    limit: int | None = Field(None, ge=1, description="images to train on; None takes all")
    size_px: int = Field(32, ge=1)
    on_error: Literal["raise", "skip"] = Field("raise", description="if a picture cannot be read")
    range: str = Field(
        AUTO,
        description="the stored values of black and white, as 0..4095, of pictures of more than 8 bits or"
        " floating point; auto takes it from the values, once for a set",
    )
    fit: Fit = Field(
        "crop", description="of pictures that are not square: crop to the middle, pad with black, or stretch"
    )
    holdout: float = Field(
        0.1, gt=0, lt=1, description="share of different pictures kept for testing, if there is no test split"
    )
    on_overlap: Literal["drop", "refuse", "keep"] = Field(
        "drop",
        description="what becomes of a test image that equals a training image, and of an OOD image that equals"
        " one of these or a validation image: it is left out, the run is refused, or it is kept",
    )

    @property
    def reading(self) -> dict[str, Any]:
        """How pictures are read, as arguments of `data.load`."""
        return {"size_px": self.size_px, "value_range": self.range, "fit": self.fit}

    @field_validator("range")
    @classmethod
    def _range_is_one(cls, text: str) -> str:
        parse_range(text)
        return text


# sources of labels that cluster images
CLUSTERINGS = ("scan", "kmeans", "turtle", "temi")


class LabelsConfig(Node):
    """The source of the training labels y~."""

    source: Literal["scan", "kmeans", "turtle", "temi", "ground_truth", "file"] = "ground_truth"
    n_clusters: int | None = Field(None, ge=2, description="C, for scan, kmeans, turtle and temi")
    spaces: tuple[NetworkConfig, ...] = Field(
        (), description="further networks; kmeans, turtle and temi cluster by their features, too"
    )
    path: str | None = Field(
        None,
        description="for file: a Parquet or CSV table with columns id and label, words or whole numbers from 0",
    )
    scan: ScanConfig = ScanConfig()
    self_label: SelfLabelConfig | None = SelfLabelConfig()
    turtle: TurtleConfig = TurtleConfig()
    temi: TemiConfig = TemiConfig()
    seed: Seed = 0

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> LabelsConfig:
        if self.source in CLUSTERINGS and self.n_clusters is None:
            raise ValueError(f"source {self.source} needs n_clusters")
        if (self.source == "file") != (self.path is not None):
            raise ValueError("path goes with source file, and only with it")
        return self


class JpegConfig(Node):
    """JPEG encoding of generated images, so that compression artefacts do not tell them from ID images."""

    quality: int = Field(75, ge=1, le=100)
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"


def _recipe_field(key: str, default: float | None) -> Any:  # noqa: ANN401
    """A setting of `Recipe`, with its range."""
    low, high = RANGES[key]
    return Field(default, ge=low, le=high)


class OutliersConfig(Node):
    """The SD outliers for the training of the detector; None takes the value in `defaults`."""

    per_image: int = Field(1, ge=1)
    limit: int | None = Field(None, ge=1, description="images to use for outliers and detector; None: all")
    start_timestep: int | None = Field(None, ge=0)
    guidance_scale: float | None = _recipe_field("guidance_scale", None)
    num_inference_steps: int | None = _recipe_field("num_inference_steps", None)
    solver: Solver | None = None
    eta: float = _recipe_field("eta", 0.0)
    guidance_interval: tuple[float, float] | None = None
    jpeg: JpegConfig | None = Field(None, description="for ID images that were JPEG files")
    shard_size: int = Field(256, ge=1, description="images made and saved together")
    batch_size: int = Field(64, ge=1)
    seed: Seed = 0

    @model_validator(mode="after")
    def _interval_is_a_range(self) -> OutliersConfig:
        if self.guidance_interval is not None and not is_interval(*self.guidance_interval):
            ends = list(self.guidance_interval)
            raise ValueError(f"guidance_interval {ends} is not [low, high] with 0 <= low <= high")
        return self


class ScoreConfig(Node):
    """Eq. 6."""

    k: int = Field(10, ge=1)
    alpha: float = Field(0.3, ge=0)
    normalize: bool = Field(True, description="unit length features")


class SDTestConfig(Node):
    """SD outliers of held-out ID images as an OOD set (Table 4); other settings as in `outliers`."""

    start_timestep: int = Field(150, ge=0)
    guidance_scale: float = _recipe_field("guidance_scale", 4.0)
    limit: int | None = Field(None, ge=1, description="held-out images to make outliers of; None takes all")
    seed: Seed = 0


class BaselineConfig(Node):
    """One method of `evaluation.baselines`. Each method adds its own settings to these two."""

    method: str
    network: Literal["backbone", "encoder"] = Field(
        "backbone", description="the network that it uses or trains"
    )

    @property
    def key(self) -> str:
        """Its name in tables and files: as `dn2`, `dn2+unit` or `dn2@encoder`."""
        return self.key_with("unit" if self._other_length == "unit length" else self._other_length)

    def key_with(self, terms: str) -> str:
        """The method's name with its terms, if any, and its network, if that is the encoder."""
        name = f"{self.method}+{terms}" if terms else self.method
        return name if self.network == "backbone" else f"{name}@{self.network}"

    @property
    def title(self) -> str:
        """Its name for readers."""
        return self.title_with(self._other_length)

    def title_with(self, terms: str) -> str:
        """As `key_with`, for readers."""
        network = "" if self.network == "backbone" else f"on the {self.network}"
        return ", ".join(filter(None, [BASELINES[self.method].title, terms, network]))

    @property
    def _other_length(self) -> str:
        """How features are measured, if not as the method's authors do."""
        normalize = BASELINES[self.method].Settings.model_fields.get("normalize")
        own = getattr(self, "normalize", None)
        if normalize is None or own == normalize.default:
            return ""
        return "unit length" if own else "raw"

    def build(self) -> Baseline:
        """The method with these settings, not fitted yet."""
        return BASELINES[self.method](**self.model_dump(exclude={"method", "network"}))


def _plain_method(value: object) -> object:
    """Accepts a method's name alone, and drops settings that are null."""
    if isinstance(value, dict):
        return {k: v for k, v in value.items() if v is not None or k == "method"}
    return {"method": value} if isinstance(value, str) else value


def _with_settings(method: type[Baseline]) -> type[BaselineConfig]:
    """Adds the settings in a method's file to `BaselineConfig`."""
    bases: Any = (method.Settings, BaselineConfig)
    name: Any = Literal[method.key]
    return create_model(f"{method.__name__}Config", __base__=bases, method=name)


if TYPE_CHECKING:
    AnyBaseline: TypeAlias = BaselineConfig
else:
    AnyBaseline = Annotated[
        reduce(or_, map(_with_settings, BASELINES.values())),
        Field(discriminator="method"),
        BeforeValidator(_plain_method),
    ]


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name in names if names.count(name) > 1]


Control = Literal["no_training", "no_outliers", "right_label", "noise", "right_label_as_id", "lambda_zero"]


class TuningConfig(Node):
    """Every method, ours included, is tried with the same number of settings; the best are a further row."""

    trials: int = Field(4, ge=1, le=8, description="of each method; the first has its own settings")
    criterion: Literal["validation", "left_out"] = Field(
        "validation",
        description="what the trials tell from held-out ID images: the validation sets, or, for networks that"
        " were taught those, two clusters that the trial was not fitted on",
    )
    left_out_pairs: int = Field(2, ge=1, description="how often two clusters are left out, for left_out")
    holdout: float = Field(0.2, gt=0, lt=1, description="share of the ID images that trials are measured on")
    frozen_blocks: tuple[int, ...] = Field(
        (0, -2, -1),
        min_length=1,
        description="tried for every method that trains, ours too: how many of its network's first blocks are"
        " not trained; below 0 from the last block",
    )
    seed: Seed = 0


class EvaluationConfig(Node):
    """The sets and methods of the evaluation. Choose settings by `validation` only."""

    near: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    classes: dict[str, tuple[str, ...]] = Field(
        {}, description="classes to take of a set named above, by name or first word; all of other sets"
    )
    sd_test: SDTestConfig | None = Field(None, description="SD outliers of held-out ID images as an OOD set")
    baselines: tuple[AnyBaseline, ...] = Field((), description="methods: names, or a method with settings")
    tuning: TuningConfig | None = Field(None, description="trials for every method; None makes none")
    score: ScoreConfig = ScoreConfig()
    limit: int | None = Field(None, ge=1, description="images of each set; None takes all")
    controls: tuple[Control, ...] = (
        "no_training",
        "right_label",
        "noise",
    )
    interpolation: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0),
        description="shares of the trained weights that the score is measured at, as in detector.interpolation;"
        " each takes a pass over all images; () for none",
    )
    bootstrap: int = Field(1000, ge=0, description="resamples for the intervals")
    inception_weights: str | None = Field(None, description="a file with the weights that FID is defined by")
    seed: Seed = 0

    @model_validator(mode="after")
    def _sets_have_one_role(self) -> EvaluationConfig:
        for name in _repeated([_plain(name) for name in self.ood_sets]):
            raise ValueError(f"{name} has two roles among near, far and validation")
        return self

    @model_validator(mode="after")
    def _lists_fit(self) -> EvaluationConfig:
        for name in self.classes:
            if name not in self.ood_sets:
                raise ValueError(f"classes: {name} is not among near, far and validation")
        for key in _repeated([one.key for one in self.baselines]):
            raise ValueError(f"baselines names {key} twice")
        if self.tuning is not None and self.tuning.criterion == "validation" and not self.validation:
            raise ValueError("tuning: criterion validation needs a set in validation")
        for name in _repeated(self.controls):
            raise ValueError(f"controls names {name} twice")
        for share in _repeated([f"{share:g}" for share in self.interpolation]):
            raise ValueError(f"interpolation names {share} twice")
        return self

    @property
    def ood_sets(self) -> tuple[str, ...]:
        """The names of all OOD sets."""
        return (*self.near, *self.far, *self.validation)


class DefaultsConfig(Node):
    """The S, w, K and solver that a bundle takes by default."""

    start_timestep: int = Field(100, ge=0)
    guidance_scale: float = _recipe_field("guidance_scale", 2.0)
    num_inference_steps: int = _recipe_field("num_inference_steps", 10)
    solver: Solver = "dpmpp_2m"


class GeneratedConfig(Node):
    """Images from noise that the bundle carries, for machines without the training images."""

    n_images: int = Field(
        0, ge=0, description="made evenly over the clusters, each with an SD outlier; 0 makes none"
    )
    num_inference_steps: int = Field(50, ge=1, description="DDIM steps from noise to an image")
    guidance_scale: float = _recipe_field("guidance_scale", 1.0)


class BundleConfig(Node):
    """The contents of the bundle besides networks and features."""

    outlier_pictures: int | None = Field(
        None,
        ge=0,
        description="outliers kept as PNG; the others are made again when they are shown; None keeps all",
    )
    weights: Literal["float32", "float16"] = Field(
        "float32",
        description="of encoder, clusterer and detector; float16 halves their files. The U-Net is float16",
    )
    generated: GeneratedConfig = GeneratedConfig()


class RunConfig(Node):
    """The whole tree of a run. Without `detector`, its bundle only makes outliers."""

    profile: str = Field("run", min_length=1, description="part of the run folder's name")
    data: DataConfig
    views: ViewsConfig = ViewsConfig()
    encoder: EncoderConfig | None = Field(None, description="None trains none; scan and detector need one")
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
        if self.bundle.generated.n_images and self.max_train_timestep < self.diffusion.num_train_timesteps:
            raise ValueError(
                f"bundle.generated: a U-Net trained up to S = {self.max_train_timestep} of "
                f"{self.diffusion.num_train_timesteps} makes no image from noise; "
                "set diffusion.max_train_timestep=null"
            )
        if self.encoder is None and self.labels.source in CLUSTERINGS:
            raise ValueError(f"labels.source {self.labels.source} needs an encoder: add encoder: {{}}")
        if self.detector is not None and self.detector.jpeg_both_sides and self.outliers.jpeg is None:
            raise ValueError("detector.jpeg_both_sides needs outliers.jpeg, the encoding of the other side")
        tuning, n_clusters = self.evaluation.tuning, self.labels.n_clusters
        if tuning is not None and tuning.criterion == "left_out" and n_clusters is not None and n_clusters < 4:
            raise ValueError(f"evaluation.tuning: criterion left_out needs 4 clusters, not {n_clusters}")
        if self.encoder is None and self.detector is not None:
            raise ValueError("detector needs an encoder: add encoder: {}")
        for name in self.evaluation.ood_sets:
            # nor may it be another split of that set
            if _plain(name) == _plain(self.data.id) or name.partition(":")[0] == self.data.id:
                raise ValueError(f"evaluation: {name} is what the run trains on, not OOD")
        return self

    @property
    def max_train_timestep(self) -> int:
        """The largest S that the noise predictor is trained for."""
        return self.diffusion.max_train_timestep or self.diffusion.num_train_timesteps


def _plain(name: str) -> str:
    """The name of a data set; a path in it, as in folder:./pets/, is normalised."""
    kind, _, path = name.partition(":")
    return f"{kind}:{os.path.normpath(path)}" if path and name.startswith(OWN_KINDS) else name
