from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdviz.analysis import Evidence
from sdviz.analysis.imports import ImportProblem
from sdviz.analysis.imports.reading import Given, read_given
from sdviz.table_files import csv_text

IDS, SETS, SCORES = ["=a", "b 1", "ü"], ["test", "test", "digits"], [0.5, -1e300, 3.0]
FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4) / 7


def as_csv(path: Path) -> None:
    rows = [*zip(IDS, SETS, SCORES, FEATURES, strict=True)]
    path.write_text(csv_text(["id", "set", "score", "feature"], rows, {"by": "us"}), encoding="utf-8")


def as_plain_csv(path: Path) -> None:
    lines = ["set;id;feature_10;feature_2;feature_1;feature_0;score"]
    for i, row in enumerate(FEATURES):
        lines.append(";".join([SETS[i], IDS[i], *(repr(float(x)) for x in row[::-1]), str(SCORES[i])]))
    path.write_text("\r\n".join(lines), encoding="utf-8")


def as_parquet(path: Path) -> None:
    features = pa.array(list(FEATURES), pa.list_(pa.float64()))
    pq.write_table(pa.table({"id": IDS, "set": SETS, "score": SCORES, "feature": features}), path)


def as_fixed_parquet(path: Path) -> None:
    features = pa.FixedSizeListArray.from_arrays(pa.array(FEATURES.ravel()), 4)
    table = pa.table({"feature": features, "score": SCORES, "id": IDS, "set": SETS, "more": [1, 2, 3]})
    pq.write_table(table, path, row_group_size=2)


def as_npz(path: Path) -> None:
    np.savez(path, id=np.array(IDS), set=np.array(SETS), score=np.array(SCORES), feature=FEATURES)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.csv", as_csv),
        ("b.CSV", as_plain_csv),
        ("c.parquet", as_parquet),
        ("d.parquet", as_fixed_parquet),
        ("e.npz", as_npz),
    ],
)
def test_the_same_rows_from_every_format(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    given = read_given(tmp_path / name)
    assert (given.ids.tolist(), given.sets.tolist()) == (IDS, SETS)
    assert given.scores is not None and given.scores.tolist() == SCORES
    assert given.features is not None and given.features.dtype == np.float32
    assert np.array_equal(given.features, FEATURES)


def csv(*lines: str) -> bytes:
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (csv("id,score", "a,1"), "no column set; it has id, score"),
        (csv("id,set", "a,test"), "no column score or feature; it has id, set"),
        (csv("a,b", "1,2"), "no column id and no column set; it has a, b"),
        (csv("id,set,score"), "has no rows"),
        (csv("id,set,score", "a,test,1", "b,test,high"), "line 3: the score 'high' is not a number"),
        (csv("id,set,score", 'a,test,"0,5"'), "line 2: the score '0,5' is not a number"),
        (csv("id,set,score", "a,test,nan"), "line 2: the score is NaN"),
        (csv("id,set,score", "a,test,inf"), "line 2: the score is not a finite number"),
        (csv("id,set,score", "a,test"), "cannot be read: line 2: 2 cells under 3 names"),
        (csv("id,set,feature", 'a,test,"[1, 2]"', 'b,test,"[1]"'), "line 3: 1 numbers in the feature, 2 in"),
        (csv("id,set,feature", "a,test,x"), "line 2: the feature 'x' is not a JSON list of numbers"),
        (csv("id,set,feature", 'a,test,"[[1, 2]]"'), "line 2: the feature '[[1, 2]]' is not a JSON list"),
        (csv("id,set,feature", f"a,test,{'[' * 100_000}"), "is not a JSON list of numbers"),
        (csv("id,set,feature", "a,test,[1]"), "features need 2 numbers an image at least, not 1"),
        (csv("id,set,feature_0,feature_1", "a,test,1,"), "line 2: a feature is not a finite number"),
        (b"", "cannot be read: it has no header"),
        (b"\xff\xfe\x00", "cannot be read: "),
    ],
)
def test_a_csv_that_cannot_be_taken_is_one_line(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(raw)
    with pytest.raises(ImportProblem, match=re.escape(message)) as error:
        read_given(tmp_path / "a.csv")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1], "set": ["test"], "score": [1.0]}, "row 1: the id '1' is not a text"),
        ({"id": ["a"], "set": [None], "score": [1.0]}, "row 1: the set 'None' is not a text"),
        ({"id": ["a"], "set": ["test"], "score": [True]}, "row 1: the score 'True' is not a number"),
        ({"id": ["a"], "set": ["test"], "score": [float("nan")]}, "row 1: the score is NaN"),
        ({"id": ["a"], "set": ["test"], "feature": [1.0]}, "feature must be a column of lists of numbers"),
        ({"id": ["a"], "set": ["test"], "feature": [["x"]]}, "feature must be a column of lists of numbers"),
        ({"id": ["a"] * 2, "set": ["test"] * 2, "feature": [[1.0, 2.0], None]}, "row 2: 0 numbers in the"),
        ({"id": ["a"], "set": ["test"], "feature": [[1.0, None]]}, "row 1: a feature is not a finite number"),
        ({"id": ["a"], "name": ["test"], "score": [1.0]}, "no column set; it has id, name, score"),
    ],
)
def test_a_parquet_that_cannot_be_taken_is_one_line(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ImportProblem, match=re.escape(message)):
        read_given(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"id": IDS, "set": SETS, "score": [[1.0]] * 3}, "score must be numbers (3,), not float64 (3, 1)"),
        ({"id": IDS, "set": SETS[:2], "score": SCORES}, "set must be texts (3,), not <U4 (2,)"),
        ({"id": [1, 2, 3], "set": SETS, "score": SCORES}, "id must be texts (3,), not int64 (3,)"),
        ({"id": IDS, "set": SETS, "feature": SCORES}, "feature must be numbers (3,D), not float64 (3,)"),
        ({"id": np.array(IDS, object), "set": SETS, "score": SCORES}, "cannot be read: Object arrays cannot"),
        ({"arr_0": SCORES}, "no column id and no column set; it has arr_0"),
    ],
)
def test_an_npz_that_cannot_be_taken_is_one_line(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **{name: np.asarray(one) for name, one in arrays.items()})
    with pytest.raises(ImportProblem, match=re.escape(message)):
        read_given(tmp_path / "a.npz")


def test_files_that_are_none(tmp_path: Path) -> None:
    for name in ("a.csv", "a.parquet", "a.npz"):
        with pytest.raises(ImportProblem, match="no such file"):
            read_given(tmp_path / name)
        (tmp_path / name).write_bytes(b"id\x00" * 99)
        with pytest.raises(ImportProblem):
            read_given(tmp_path / name)
    with pytest.raises(ImportProblem, match=r"must end in \.csv, \.parquet or \.npz"):
        read_given(tmp_path / "a.json")
    with (tmp_path / "b.npz").open("wb") as stream:
        np.save(stream, FEATURES)
    with pytest.raises(ImportProblem, match="is not an npz file"):
        read_given(tmp_path / "b.npz")


def rows_given(evidence: Evidence, *sets: str, seed: int = 0) -> Given:
    """All images of some sets, shuffled."""
    pairs = [(one, name) for name in sets for one in evidence.sets[name].ids.tolist()]
    order = np.random.default_rng(seed).permutation(len(pairs))
    ids, names = (np.array([pairs[i][part] for i in order]) for part in (0, 1))
    return Given(ids, names, order.astype(float), None, [f"line {i + 2}" for i in range(len(pairs))])


def test_rows_come_in_the_bundles_order(evidence: Evidence) -> None:
    given = rows_given(evidence, "digits", "test")
    found = given.rows_of(evidence)
    assert list(found) == ["test", "digits"]
    for name, rows in found.items():
        assert given.ids[rows].tolist() == evidence.sets[name].ids.tolist()


def test_rows_that_do_not_fit_the_bundle(evidence: Evidence) -> None:
    def problem(change: Callable[[Given], object], *sets: str) -> str:
        given = rows_given(evidence, *(sets or ("test",)))
        given = Given(given.ids.astype(object), given.sets.astype(object), None, None, given.places)
        change(given)
        with pytest.raises(ImportProblem) as error:
            given.rows_of(evidence)
        return str(error.value)

    one = rows_given(evidence, "test").ids[3]
    assert "line 5: no set 'tset' here, only test, shapes-novel, " in problem(
        lambda given: given.sets.__setitem__(3, "tset")
    )
    assert problem(lambda given: given.ids.__setitem__(3, "x\ny")) == "line 5: test has no image 'x y'"
    given_twice = problem(lambda given: given.ids.__setitem__(4, one))
    assert given_twice == f"line 6: the image {str(one)!r} of test is given twice"
    short = rows_given(evidence, "test")
    short = Given(short.ids[:-2], short.sets[:-2], None, None, short.places)
    with pytest.raises(ImportProblem, match=r"2 of the 40 images of test are missing, as 'shapes/test/"):
        short.rows_of(evidence)


def test_a_text_that_would_be_cut_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,set,score\n"a\0",test,1\n')
    pq.write_table(pa.table({"id": ["a"], "set": ["test\0"], "score": [1.0]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(ImportProblem, match="in row 1 ends in a NUL"):
            read_given(tmp_path / name)
