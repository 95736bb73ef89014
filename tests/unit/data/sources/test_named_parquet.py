from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdviz.data.sources.named_parquet import SOURCE, files_under


@pytest.fixture
def root(data_root: Path) -> Path:
    """Three sets in five files, and what is none."""
    table = pa.table({"img": pa.array([{"bytes": b"x"}], pa.struct([("bytes", pa.binary())]))})
    for name in ("pets_val", "pets_train", "pets_test", "cats", "a_test", ".hidden"):
        pq.write_table(table, data_root / f"{name}.parquet")
    pq.write_table(pa.table({"score": [1.0]}), data_root / "scores.parquet")
    (data_root / "folder.parquet").mkdir()
    (data_root / "notes.txt").touch()
    return data_root


def test_files_are_sorted_by_name_and_train_comes_first(root: Path) -> None:
    found = files_under(root)
    assert list(found) == ["a", "cats", "pets", "scores"]
    assert list(found["pets"]) == ["train", "val", "test"]
    assert found["cats"] == {"all": root / "cats.parquet"}
    assert found["pets"]["val"] == root / "pets_val.parquet"
    assert files_under(root / "nowhere") == {}


def test_a_set_has_pictures_a_path_and_ids_of_its_name(root: Path) -> None:
    assert SOURCE.names() == ("a", "cats", "pets")
    assert SOURCE.splits("a") == ("test",) and SOURCE.splits("dogs") == ()
    assert SOURCE.files("pets")["test"] == (root / "pets_test.parquet",)
    assert SOURCE.id_prefix("pets", "test") == "pets/test/"
    assert SOURCE.count("cats", "all") == 1
    # a path is opened by the source of paths
    assert SOURCE.name_of(root / "cats.parquet") is None and SOURCE.prefixes == ()
