"""Chooses the columns of a Parquet file that hold pictures and labels."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..imageset import DataError
from .labels import check_names

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label", "coarse_label")
_LARGEST_METADATA = 20_000_000


@dataclass(frozen=True)
class Columns:
    """The columns of a file."""

    image: str
    label: str | None
    class_names: tuple[str, ...] | None  # None if the file names no classes
    note: str = ""  # a choice that the user should know of

    @property
    def names(self) -> tuple[str, str | None]:
        """What all files of a set must share."""
        return self.image, self.label


def columns_of(path: str, schema: pa.Schema, options: Mapping[str, str]) -> Columns:
    """Chooses by name, then by type.

    Args:
        path: The file, for messages.
        options: "image" and "label" may name columns.

    Raises:
        DataError: No column of pictures, several, or one of another type.
    """
    features = _features(path, schema)
    image = _image_column(path, schema, options.get("image"))
    label, note = _label_column(path, schema, options.get("label"), features, image)
    if label is None:
        return Columns(image, None, (), note)
    return Columns(image, label, _class_names(path, schema, label, features), note)


def is_words(kind: pa.DataType) -> bool:
    """Whether labels of this type are words, or true and false."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_boolean(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)


def _image_column(path: str, schema: pa.Schema, asked: str | None) -> str:
    fitting = [one.name for one in schema if _holds_pictures(one.type)]
    present = [column for column in IMAGE_COLUMNS if column in schema.names]
    # an image column may have paths or captions, with the pictures in another one
    named = asked or next((one for one in present if one in fitting or not fitting), None)
    if named is not None:
        if named not in schema.names:
            raise DataError(f"{path} has no column {named}; it has {', '.join(schema.names)}")
        kind = schema.field(named).type
        if not _holds_pictures(kind):
            raise DataError(f"{path}: column {named} must be bytes or struct{{bytes, path}}, not {kind}")
        return named
    # a column of bytes may be anything; a struct with bytes is a picture
    structs = [one for one in fitting if pa.types.is_struct(schema.field(one).type)]
    if len(structs) == 1:
        fitting = structs
    if not fitting:
        raise DataError(
            f"{path} has no column {' or '.join(IMAGE_COLUMNS)}, nor another of bytes; it has"
            f" {', '.join(schema.names)}"
        )
    if len(fitting) > 1:
        raise DataError(
            f"{path}: pictures may be in {', '.join(fitting)}: name one, as in parquet:PATH?image={fitting[0]}"
        )
    return fitting[0]


def _label_column(
    path: str, schema: pa.Schema, asked: str | None, features: Mapping[str, Any], image: str
) -> tuple[str | None, str]:
    """The column of labels, None for none; and a line about the choice, "" for none."""
    note = ""
    label = asked
    if label is None:
        present = [column for column in LABEL_COLUMNS if column in schema.names]
        if not present:
            present = [one for one in schema.names if _feature(features, one).get("_type") == "ClassLabel"]
            present = present if len(present) == 1 else []
        if not present:
            others = [
                one.name for one in schema
                if one.name != image and (is_words(one.type) or pa.types.is_integer(one.type))
            ]  # fmt: skip
            maybe = f"; parquet:PATH?label=COLUMN takes one of {', '.join(others)}" if others else ""
            return None, f"no column {', '.join(LABEL_COLUMNS)}: pictures have no class{maybe}" if maybe else ""
        label = present[0]
        if len(present) > 1:
            note = f"classes are taken from column {label}; {', '.join(present[1:])} has others"
    if label not in schema.names:
        raise DataError(f"{path} has no column {label}; it has {', '.join(schema.names)}")
    kind = schema.field(label).type
    if not _is_number(kind) and not is_words(kind):
        raise DataError(f"{path}: column {label} must be whole numbers, words or true and false, not {kind}")
    return label, note


def _features(path: str, schema: pa.Schema) -> Mapping[str, Any]:
    """The feature types that Hugging Face's datasets keep in the metadata."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    tree = _parsed(path, text)
    for key in ("info", "features"):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, dict) else {}


def _feature(features: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    found = features.get(column)
    return found if isinstance(found, dict) else {}


def _class_names(
    path: str, schema: pa.Schema, label: str, features: Mapping[str, Any]
) -> tuple[str, ...] | None:
    given = (schema.metadata or {}).get(b"class_names")
    names = _parsed(path, given) if given is not None else _feature(features, label).get("names")
    if isinstance(names, dict) and all(str(key).isdecimal() for key in names):
        names = [names[key] for key in sorted(names, key=lambda key: int(key))]
    if names is None:
        return None
    if not isinstance(names, list):
        raise DataError(f"{path}: the class names in its schema metadata cannot be read")
    return check_names(path, names)


def _parsed(path: str, text: bytes) -> Any:  # noqa: ANN401
    try:
        if len(text) > _LARGEST_METADATA:
            raise ValueError("too long")
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the class names in its schema metadata cannot be read") from error
