from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from sdviz.data.imageset import DataError
from sdviz.data.layouts.columns import Columns, columns_of, is_words

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def schema(metadata: dict[str, str] | None = None, **columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()), metadata)


def features(**given: Any) -> dict[str, str]:  # noqa: ANN401
    return {"huggingface": json.dumps({"info": {"features": given}})}


def test_columns_are_chosen_by_name_then_by_type() -> None:
    assert columns_of("f", schema(img=STRUCT, label=pa.int64()), {}) == Columns("img", "label", None)
    assert columns_of("f", schema(image=pa.binary(), labels=pa.string()), {}) == Columns(
        "image", "labels", None
    )
    found = columns_of("f", schema(id=pa.int64(), hash=pa.binary(), photo=STRUCT), {})
    assert (found.image, found.label, found.class_names) == ("photo", None, ())
    assert found.note.endswith("parquet:PATH?label=COLUMN takes one of id")
    assert (
        columns_of("f", schema(photo=pa.large_binary(), breed=pa.string()), {"label": "breed"}).label == "breed"
    )


def test_an_image_column_of_paths_is_no_picture() -> None:
    assert columns_of("f", schema(image=pa.string(), jpg=pa.binary(), label=pa.int64()), {}).image == "jpg"
    with pytest.raises(DataError, match="column image must be bytes"):
        columns_of("f", schema(image=pa.string()), {})


def test_of_two_labels_the_choice_is_told() -> None:
    found = columns_of("f", schema(img=STRUCT, coarse_label=pa.int64(), fine_label=pa.int64()), {})
    assert found.label == "fine_label"
    assert found.note == "classes are taken from column fine_label; coarse_label has others"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"names": ["a", "b"], "_type": "ClassLabel"}, ("a", "b")),
        ({"names": {"1": "b", "0": "a"}, "_type": "ClassLabel"}, ("a", "b")),
        ({"names": None, "num_classes": 2, "_type": "ClassLabel"}, None),
        ({"dtype": "int64", "_type": "Value"}, None),
    ],
)
def test_class_names_of_hugging_face(given: dict[str, Any], names: tuple[str, ...] | None) -> None:
    assert columns_of("f", schema(features(label=given), img=STRUCT, label=pa.int64()), {}).class_names == names


def test_the_only_class_label_is_the_label() -> None:
    metadata = features(species={"names": ["a"], "_type": "ClassLabel"})
    found = columns_of("f", schema(metadata, image=STRUCT, species=pa.int64(), n=pa.int64()), {})
    assert (found.label, found.class_names) == ("species", ("a",))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"x": pa.int64()}, {}, "no column img or image, nor another of bytes; it has x"),
        ({"a": STRUCT, "b": STRUCT}, {}, "pictures may be in a, b: name one, as in parquet:PATH.image=a"),
        ({"image": pa.string()}, {}, "column image must be bytes or struct"),
        ({"image": STRUCT}, {"image": "x"}, "has no column x"),
        ({"image": STRUCT}, {"label": "x"}, "has no column x"),
        ({"image": STRUCT, "labels": pa.list_(pa.int64())}, {}, "whole numbers, words or true and false"),
    ],
)
def test_what_cannot_be_chosen_is_refused(columns: Any, options: dict[str, str], message: str) -> None:  # noqa: ANN401
    with pytest.raises(DataError, match=message):
        columns_of("f", schema(**columns), options)


@pytest.mark.parametrize("text", ["[" * 100_000, "[", '"a"', "\x00"])
def test_class_names_that_cannot_be_read(text: str) -> None:
    for metadata in ({"class_names": text}, {"huggingface": text}):
        if metadata == {"huggingface": '"a"'}:
            continue  # says nothing of this column
        with pytest.raises(DataError, match="the class names in its schema metadata cannot be read"):
            columns_of("f", schema(metadata, img=STRUCT, label=pa.int64()), {})


def test_words() -> None:
    assert is_words(pa.string()) and is_words(pa.bool_()) and is_words(pa.dictionary(pa.int8(), pa.string()))
    assert not is_words(pa.int8()) and not is_words(pa.dictionary(pa.int8(), pa.int64()))
