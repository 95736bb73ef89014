from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdviz.data import DataError
from sdviz.pipeline import (
    PipelineError,
    pseudo_labels,
    read_labels,
)
from tests.stages import work_in
from tests.tiny_runs import write_tiny_config

pytestmark = pytest.mark.usefixtures("one_thread")


def write_table(path: Path, ids: list[str], labels: list[object]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"other": [0] * len(ids), "label": labels, "id": ids}), path)
    else:
        lines = ["label,other,id", *(f"{label},,{one}" for one, label in zip(ids, labels, strict=True))]
        path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (("zebra", "ant", "mole"), ("ant", "mole", "zebra")),
        ((10, 2, 7), ("cluster 2", "cluster 7", "cluster 10")),
    ],
)
def test_labels_from_a_file(
    tmp_path: Path, suffix: str, texts: tuple[object, ...], names: tuple[str, ...]
) -> None:
    config, path = write_tiny_config(tmp_path), tmp_path / f"labels{suffix}"
    work = work_in(tmp_path / "run", config, "labels.source=file", f"labels.path={path}")
    given = [texts[y] for y in work.images.labels]
    # in another order, and with ids that nobody asked for
    ids = [*work.images.ids.tolist()[::-1], "someone/else"]
    write_table(path, ids, [*given[::-1], texts[0]])
    metrics = pseudo_labels.make(work)
    assert metrics is not None and (metrics["clusters"], metrics["cluster_accuracy_train"]) == (3, 1.0)
    table = pq.read_table(work.folder / "pseudo_labels" / "pseudo_labels.parquet")
    found = json.loads(table.schema.metadata[b"cluster_names"])
    assert tuple(found) == names
    by_name = [found[i].removeprefix("cluster ") for i in read_labels(work)]
    assert by_name == [str(word) for word in given]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_that_lacks_images_is_refused(tmp_path: Path, suffix: str) -> None:
    config, path = write_tiny_config(tmp_path), tmp_path / f"labels{suffix}"
    work = work_in(tmp_path / "run", config, "labels.source=file", f"labels.path={path}")
    ids = work.images.ids.tolist()
    write_table(path, ids[2:], work.images.labels[2:].tolist())
    with pytest.raises(DataError, match="no label for 2 of 24 images, as ") as error:
        pseudo_labels.make(work)
    assert str(error.value) == f"{path}: no label for 2 of 24 images, as {ids[0]}"
    write_table(path, ids, [1] * 24)
    with pytest.raises(DataError, match="at least 2 classes, there is 1"):
        pseudo_labels.make(work)
    for raw in (b"id;label\n\xff\xfe", b"label,id\n\x00" + b'"' * 200_000, None):
        path.unlink()
        if raw is not None:
            path.write_bytes(raw)
        with pytest.raises(DataError) as error:
            pseudo_labels.make(work)
        assert str(error.value) == f"{path}: not a table with columns id and label"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (["a", "b", ""], "empty"),
        (["a", "b", "  "], "empty"),
        ([0, 1, -1], "-1"),
        ([0.0, 1.0, 2.0], "0.0"),
        ([0.0, 1.0, float("nan")], "0.0"),
        (["0", "1", "nan"], "nan"),
        (["0", "1", "1e3"], "1e3"),
        (["0", "1", "+1"], "+1"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_their_line(
    tmp_path: Path, suffix: str, labels: list[object], shown: str
) -> None:
    config, path = write_tiny_config(tmp_path), tmp_path / f"labels{suffix}"
    work = work_in(tmp_path / "run", config, "labels.source=file", f"labels.path={path}")
    ids = work.images.ids.tolist()
    write_table(path, ["someone/else", *ids], [labels[2], *(labels[y] for y in work.images.labels)])
    row = 1 if shown == "0.0" else next(i for i, y in enumerate(work.images.labels, 1) if y == 2)
    where = f"line {row + 2}" if suffix == ".csv" else f"row {row + 1}"
    with pytest.raises(DataError) as error:
        pseudo_labels.make(work)
    assert str(error.value) == (
        f"{path}, {where}: the label of {ids[row - 1]} is {shown}, not a word or a whole number from 0"
    )


def test_a_parquet_table_may_lack_a_label_where_nobody_asks_for_it(tmp_path: Path) -> None:
    config, path = write_tiny_config(tmp_path), tmp_path / "labels.parquet"
    work = work_in(tmp_path / "run", config, "labels.source=file", f"labels.path={path}")
    ids, labels = (
        work.images.ids.tolist(),
        [f"0{y}" if i % 2 else str(y) for i, y in enumerate(work.images.labels)],
    )
    write_table(path, [*ids, "someone/else"], [*labels, None])
    pseudo_labels.make(work)
    assert (read_labels(work) == work.images.labels).all()  # 07 is 7
    write_table(path, ids, [None, *labels[1:]])
    with pytest.raises(DataError, match=f"row 1: the label of {ids[0]} is empty"):
        pseudo_labels.make(work)


def test_a_table_as_excel_saves_it(tmp_path: Path) -> None:
    config, path = write_tiny_config(tmp_path), tmp_path / "labels.csv"
    work = work_in(tmp_path / "run", config, "labels.source=file", f"labels.path={path}")
    lines = ["id,label", *(f"{i},{y}" for i, y in zip(work.images.ids, work.images.labels, strict=True))]
    path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig")
    pseudo_labels.make(work)
    assert (read_labels(work) == work.images.labels).all()


def test_the_labels_are_a_table_of_ids(tmp_path: Path) -> None:
    work = work_in(tmp_path / "run", write_tiny_config(tmp_path))
    pseudo_labels.make(work)
    table = pq.read_table(work.folder / "pseudo_labels" / "pseudo_labels.parquet")
    assert table.column_names == ["id", "label", "confidence"]
    assert table["id"].to_pylist() == work.images.ids.tolist()
    assert set(table["confidence"].to_pylist()) == {1.0}
    assert (read_labels(work) == work.images.labels).all()
    # the folder has another picture now
    (tmp_path / "pictures" / "red" / "0.png").unlink()
    with pytest.raises(PipelineError, match="has other images now"):
        read_labels(work_in(tmp_path / "run", tmp_path / "tiny.yaml"))
