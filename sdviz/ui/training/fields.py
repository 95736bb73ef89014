"""The settings on the page Training, with types and ranges from the configuration tree."""

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sdviz.config.nodes import Node
from sdviz.config.tree import RunConfig

# distance of a range from an end that it excludes
_OPEN_BORDER = 1e-9


@dataclass(frozen=True)
class Setting:
    """A key of the configuration in plain words."""

    key: str
    label: str  # with the unit in brackets
    empty: str = ""  # the meaning of an empty field, if it may be empty
    help: str = ""  # added to the description in the tree


GROUPS: dict[str, tuple[Setting, ...]] = {
    "Images and their clusters": (
        Setting("data.limit", "Images to train on", "all", "A fixed random choice of so many."),
        Setting(
            "labels.source",
            "Labels from",
            help="All but ground_truth and file need no label.",
        ),
        Setting("labels.n_clusters", "Clusters C", "none", "The number of clusters to look for."),
        Setting("encoder.simclr.total_steps", "Encoder (steps)"),
        Setting("labels.scan.total_steps", "SCAN (steps)"),
        Setting("encoder.simclr.batch_size", "Encoder batch", help="Lower it where memory runs out."),
    ),
    "Noise predictor": (
        Setting(
            "diffusion.unet.arch", "Network", help="small is for the CPU; ddpm, 36 M parameters, for a GPU."
        ),
        Setting("diffusion.total_steps", "Training (steps)"),
        Setting("diffusion.time_limit_sec", "Time limit (seconds)", "none"),
        Setting("diffusion.batch_size", "Batch (images)", help="Lower it where memory runs out."),
        Setting("diffusion.learning_rate", "Learning rate"),
        Setting("diffusion.max_train_timestep", "Largest S (steps)", "all are trained"),
    ),
    "Outliers": (
        Setting(
            "outliers.start_timestep",
            "S (noising steps)",
            "as in the lab",
            "More changes more, of the background too.",
        ),
        Setting(
            "outliers.guidance_scale",
            "w (guidance)",
            "as in the lab",
            "0 is conditional; above, the label is exaggerated.",
        ),
        Setting("outliers.num_inference_steps", "K (network calls)", "as in the lab"),
        Setting("outliers.per_image", "Outliers an image"),
    ),
    "Detector": (
        Setting("detector.epochs", "Training (epochs)"),
        Setting("detector.batch_size", "Batch (images)", help="Half ID, half outliers."),
        Setting("detector.outlier_weight", "λ (outlier losses)"),
        Setting("evaluation.score.k", "k (neighbours)"),
    ),
}
# other branches that need a detector
_NEEDS_DETECTOR = ("outliers.", "evaluation.")


@dataclass(frozen=True)
class Limits:
    """Type and range of a key."""

    kind: Literal["int", "float", "bool", "choice", "text"]
    optional: bool  # may be empty
    low: float | None = None  # the smallest value
    high: float | None = None  # the largest value
    choices: tuple[str, ...] = ()  # of a "choice"
    description: str = ""  # in the tree


def limits(key: str) -> Limits:
    """Returns type and range of a key. Raises KeyError: no such key, or a branch."""
    field = _field(key)
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    optional = type(None) in get_args(field.annotation)
    kind = kinds[0] if optional and len(kinds) == 1 else field.annotation
    if get_origin(kind) is Literal:
        return Limits("choice", optional, choices=get_args(kind), description=field.description or "")
    names: dict[Any, Any] = {int: "int", float: "float", bool: "bool", str: "text"}
    if kind not in names:
        raise KeyError(key)
    step = 1 if kind is int else _OPEN_BORDER
    borders = ("ge", "gt", "le", "lt")
    ends = {name: getattr(rule, name) for rule in field.metadata for name in borders if hasattr(rule, name)}
    low = ends["gt"] + step if "gt" in ends else ends.get("ge")
    high = ends["lt"] - step if "lt" in ends else ends.get("le")
    return Limits(names[kind], optional, low, high, (), field.description or "")


def value_of(config: RunConfig, key: str) -> Any:  # noqa: ANN401
    """Returns the value of a key. Raises KeyError: this configuration lacks its branch."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, BaseModel):
            raise KeyError(key)
        value = getattr(value, part)
    return value


def settings_of(config: RunConfig) -> dict[str, list[Setting]]:
    """Returns the settings that have a meaning in this configuration, by group."""
    shown = {group: [one for one in settings if _has(config, one.key)] for group, settings in GROUPS.items()}
    return {group: settings for group, settings in shown.items() if settings}


def _has(config: RunConfig, key: str) -> bool:
    if key.startswith(_NEEDS_DETECTOR) and config.detector is None:
        return False
    if key.startswith("labels.scan.") and config.labels.source != "scan":
        return False
    try:
        value_of(config, key)
    except KeyError:
        return False
    return True


def _field(key: str) -> FieldInfo:
    node: type[Node] | None = RunConfig
    field = None
    for part in key.split("."):
        if node is None or part not in node.model_fields:
            raise KeyError(key)
        field = node.model_fields[part]
        kinds = get_args(field.annotation) or (field.annotation,)
        node = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Node)), None)
    if field is None or node is not None:
        raise KeyError(key)
    return field
