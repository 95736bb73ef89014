"""Reads a configuration from YAML and writes it; errors have one line."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from ..baselines import BASELINES
from .nodes import ConfigError, Node
from .tree import RunConfig


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also reads 8e-4 as a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads and checks a configuration; its `profile` is the file's stem if it has none.

    Each override is "a.b=c" with c in YAML, and replaces a value of the file.

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
        # as JSON, for which pydantic's strict mode takes a list for a tuple and 3 for a float, but not "3"
        return RunConfig.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        key, reason = _explain(error)
        by_override = any(f"{one}.".startswith(f"{key}.") or key.startswith(f"{one}.") for one in keys)
        where = "--set " if by_override else f"{path}: "
        raise ConfigError(f"{where}{key}: {reason}" if key else f"{path}: {reason}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a plain tree of keys ({error})") from error


def to_yaml(config: Node) -> str:
    """Writes all values of the tree as YAML that `load_config` reads."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def key_paths(node: type[Node] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Paths of all valid keys, a branch before its keys: "diffusion", "diffusion.unet", ..."""
    for name, field in node.model_fields.items():
        yield prefix + name
        for branch in _nodes_of(field.annotation):
            yield from key_paths(branch, f"{prefix}{name}.")


def _nodes_of(kind: object) -> Iterator[type[Node]]:
    """The nodes in a field's type, also within a union or a list."""
    if isinstance(kind, type) and issubclass(kind, Node):
        yield kind
    for one in get_args(kind):
        yield from _nodes_of(one)


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
    "model_attributes_type": "keys beneath it",
    "model_type": "keys beneath it",
    "string_type": "text",
    "tuple_type": "a list",
}


def _explain(error: ValidationError) -> tuple[str, str]:
    """The path of the first wrong key, unknown keys first, and what is wrong with it."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    kind, given = first["type"], first["input"]
    parts: list[str] = []
    method = None
    for before, part in pairwise((None, *first["loc"])):
        if isinstance(before, int) and part in BASELINES:  # pydantic adds the kind of node to the path
            method = part
        else:
            parts.append(str(part))
    key = ".".join(parts)
    if kind == "extra_forbidden":
        if method and ".".join(part for part in parts if not part.isdecimal()) in key_paths():
            return ".".join(parts[:-1]), f"{method} has no {parts[-1]}"
        return key, f"unknown key; the nearest is {_nearest_key(key)}"
    if kind == "union_tag_not_found":
        return f"{key}.method", "is missing"
    if kind == "union_tag_invalid":
        known, _, last = first["ctx"]["expected_tags"].rpartition(", ")
        return f"{key}.method", f"must be {known} or {last}, got {_shown(given['method'])}"
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
    """The valid key most like `path`: in its own branch, else by its last part, else by the whole path.

    It keeps the positions of list entries, as in "evaluation.baselines.0.k".
    """
    parts = path.split(".")
    nearest = _nearest_without_places(".".join(part for part in parts if not part.isdecimal()))
    for i, part in enumerate(parts):
        branch = "".join(f"{one}." for one in parts[:i])
        if part.isdecimal() and nearest.startswith(branch):
            nearest = f"{branch}{part}.{nearest.removeprefix(branch)}"
    return nearest


def _nearest_without_places(path: str) -> str:
    parent, _, name = path.rpartition(".")
    known = list(key_paths())
    leaves = {key.rpartition(".")[2] for key in known}
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == parent}
    near = difflib.get_close_matches(name, siblings, 1, 0.55)
    if near:
        return siblings[near[0]]
    near = difflib.get_close_matches(name, leaves, 1)
    among = [key for key in known if near and key.rpartition(".")[2] == near[0]] or known
    return max(among, key=lambda key: difflib.SequenceMatcher(None, path, key).ratio())
