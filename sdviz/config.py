"""The configuration of a run: one validated tree, YAML in and out."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class ConfigError(ValueError):
    """A configuration that is wrong; the message is one line with the path of the key."""


class Node(BaseModel):
    """A branch of the tree: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class UNetConfig(Node):
    """The noise predictor, built as `diffusers.UNet2DModel`.

    `arch` names a size of PAPER.md section 4: "small" is for the CPU (2x2 pixel-unshuffle, 64/128/128
    channels), "ddpm" is the U-Net of Ho et al. 2020 (35.75 M parameters). The other fields, where
    given, replace that size's own values.
    """

    arch: Literal["small", "ddpm"] = "small"
    channels: tuple[int, ...] | None = None
    layers_per_block: int | None = Field(None, ge=1)
    dropout: float | None = Field(None, ge=0, lt=1)
    pixel_unshuffle: int | None = Field(None, ge=1, le=4)


class DiffusionConfig(Node):
    """Training of the noise predictor by Eq. 1."""

    unet: UNetConfig = UNetConfig()
    num_train_timesteps: int = Field(1000, ge=1)
    max_train_timestep: int | None = Field(
        None, ge=1, description="only t below this is trained; None trains all"
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
    seed: int = 0

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

    id: str = Field(min_length=1, description="a name, folder:PATH or parquet:PATH")
    split: str | None = Field(None, description="None takes the only split there is, else train")
    test_split: str | None = Field(None, description="None takes test, where the set has one")
    limit: int | None = Field(None, ge=1, description="images to train on; None takes all")
    size_px: int = Field(32, ge=1)
    on_error: Literal["raise", "skip"] = Field("raise", description="what to do about a bad picture")


class LabelsConfig(Node):
    """Where the training labels y~ come from."""

    source: Literal["ground_truth"] = "ground_truth"


class ClustererConfig(Node):
    """Training of the small classifier that names the cluster of any image."""

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


class DefaultsConfig(Node):
    """What the bundle does when it is not told: S, w, K and the sampler."""

    start_timestep: int = Field(100, ge=0)
    guidance_scale: float = Field(2.0, ge=-1, le=20)
    num_inference_steps: int = Field(10, ge=1, le=1000)
    solver: Literal["ddpm", "ddim", "dpmpp_2m"] = "dpmpp_2m"


class RunConfig(Node):
    """The whole tree of a run."""

    profile: str = Field("run", min_length=1, description="part of the run folder's name")
    data: DataConfig
    labels: LabelsConfig = LabelsConfig()
    clusterer: ClustererConfig = ClustererConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    defaults: DefaultsConfig = DefaultsConfig()
    seed: int = Field(0, ge=0, lt=2**31, description="of data.limit and the clusterer; diffusion has its own")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")

    @model_validator(mode="after")
    def _start_is_trained(self) -> RunConfig:
        if self.defaults.start_timestep > self.max_train_timestep:
            raise ValueError(
                f"defaults.start_timestep {self.defaults.start_timestep} is above {self.max_train_timestep},"
                " the last timestep that diffusion trains"
            )
        return self

    @property
    def max_train_timestep(self) -> int:
        """The largest S that the noise predictor is trained for."""
        return self.diffusion.max_train_timestep or self.diffusion.num_train_timesteps


# --------------------------------------------------------------------------------------------------
# YAML in and out
# --------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which takes 8e-4 for a number, as YAML 1.2 does, and not for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads and checks a configuration.

    Args:
        path: A YAML file. Without a `profile` in it, the file's stem is one.
        overrides: "a.b=c" on top, the value in YAML.

    Raises:
        ConfigError: No such file, no YAML, an unknown key, a wrong type or a value out of its range.
    """
    path = Path(path)
    try:
        tree = yaml.load(path.read_bytes(), _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {_yaml_reason(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds no keys")
    tree = {"profile": path.stem} | tree
    keys = [_override(tree, one) for one in overrides]
    try:
        # through JSON, where pydantic's strict mode lets a list be a tuple and 3 be a float, but not "3"
        return RunConfig.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        key, reason = _explain(error)
        by_override = any(f"{one}.".startswith(f"{key}.") or key.startswith(f"{one}.") for one in keys)
        where = "--set " if by_override else f"{path}: "
        raise ConfigError(f"{where}{key}: {reason}" if key else f"{path}: {reason}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a plain tree of keys ({error})") from error


def to_yaml(config: Node) -> str:
    """The tree, every value written out, as `load_config` reads it."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def key_paths(node: type[Node] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Every valid key of the tree by its path, branches first: "diffusion", "diffusion.unet", ..."""
    for name, field in node.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Node):
            yield from key_paths(field.annotation, f"{prefix}{name}.")


def _override(tree: dict[str, Any], text: str) -> str:
    """Puts "a.b=c" into the tree and returns "a.b"."""
    key, equals, value = text.partition("=")
    key = key.strip()
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {text}: must be KEY=VALUE, as in diffusion.batch_size=64")
    try:
        parsed = yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: not YAML: {_yaml_reason(error)}") from error
    branch = tree
    for part in parts[:-1]:
        if not isinstance(branch.get(part), dict):
            branch[part] = {}
        branch = branch[part]
    branch[parts[-1]] = parsed
    return key


def _yaml_reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error).splitlines()[0]


_EXPECTED = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "model_type": "keys beneath it",
    "string_type": "text",
    "tuple_type": "a list",
}


def _explain(error: ValidationError) -> tuple[str, str]:
    """The path of the first wrong key, unknown keys before all, and what is wrong with it."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    kind, given = first["type"], first["input"]
    if kind == "extra_forbidden":
        return key, f"unknown key; the nearest is {_nearest_key(key)}"
    if kind == "missing":
        return key, "is missing"
    if kind == "value_error":
        return key, first["msg"].removeprefix("Value error, ")
    if kind in _EXPECTED:
        return key, f"expected {_EXPECTED[kind]}, got {_shown(given)}"
    message = first["msg"].removeprefix("Input should be ")
    return key, f"must be {message}, got {_shown(given)}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _nearest_key(path: str) -> str:
    """The valid key most like `path`: beside it, then of that name anywhere, then by the whole path."""
    parent, _, name = path.rpartition(".")
    known = list(key_paths())
    leaves = {key.rpartition(".")[2] for key in known}
    beside = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == parent}
    near = difflib.get_close_matches(name, beside, 1)
    if near:
        return beside[near[0]]
    near = difflib.get_close_matches(name, leaves, 1)
    among = [key for key in known if near and key.rpartition(".")[2] == near[0]] or known
    return max(among, key=lambda key: difflib.SequenceMatcher(None, path, key).ratio())
