"""Reads a configuration from YAML and writes it; errors have one line."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from ..baselines import BASELINES
from ..files import MAX_WHOLE
from .nodes import ConfigError, Node
from .tree import RunConfig

# a resolved configuration has 10 kB and five levels
MAX_TEXT = 50_000
MAX_DEPTH = 20
MAX_KEY = 100


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader for a plain tree: no aliases, no tags but those of JSON's types, few levels.

    It also reads 8e-4 as a number, as YAML 1.2 does, and a date as text.
    """

    depth = 0
    yaml_implicit_resolvers = {
        first: [one for one in rules if one[0] != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401
        """Refuses aliases and many levels before anything is built."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases are not taken", problem_mark=self.peek_event().start_mark
            )
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_yaml_int(self, node: Any) -> int:  # noqa: ANN401
        """Refuses numbers beyond 64 bits, which no setting takes."""
        value = super().construct_yaml_int(node)
        if abs(value) >= MAX_WHOLE:
            raise ValueError("a whole number beyond 64 bits")
        return value

    def construct_yaml_str(self, node: Any) -> str:  # noqa: ANN401
        """Refuses characters that no name and no path has."""
        value = super().construct_yaml_str(node)
        if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n" for c in value):
            raise ValueError(f"text with a control character: {value!r}")
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_yaml_str)
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
        with path.open("rb") as stream:
            text = stream.read(MAX_TEXT + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: no name of a file: {error}") from error
    tree = _parse(text, f"{path}: ")
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
    if not equals or not all(parts) or len(parts) > MAX_DEPTH:
        raise ConfigError(f"--set {text}: must be KEY=VALUE, as in diffusion.batch_size=64")
    parsed = _parse(value, f"--set {key}: ")
    branch = tree
    for part in parts[:-1]:
        if not isinstance(branch.get(part), dict):
            branch[part] = {}
        branch = branch[part]
    branch[parts[-1]] = parsed
    return key


def _parse(text: str | bytes, where: str) -> Any:  # noqa: ANN401
    """Reads YAML; `where` begins the message of a ConfigError."""
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{where}more than {MAX_TEXT:,} characters")
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ConfigError(f"{where}not YAML: {line}{error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}not YAML: {str(error).splitlines()[0]}") from error
    # PyYAML's constructors raise others: at "!!bool x"; "!!int x", 0x_ or 5,000 digits; "\\UFFFFFFFF"
    except KeyError as error:
        raise ConfigError(f"{where}not YAML: {error} is neither true nor false") from error
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{where}not YAML: {error}") from error


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
    # the search takes time with the square of its length
    path = path[:MAX_KEY]
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
