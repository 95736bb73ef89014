from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.data import DataError, ImageSet
from sdviz.files import leftovers
from sdviz.pipeline import PipelineError, file_names, generate_folder
from sdviz.table_files import read_csv
from tests.tiny_runs import write_pictures

CLASSES = ("disk", "ring", "square")


def image_set(images: np.ndarray, ids: list[str] | None = None, **fields: object) -> ImageSet:
    n = len(images)
    made = ImageSet(
        "shapes",
        "test",
        images,
        np.arange(n, dtype=np.int64) % 3,
        np.array(ids or [f"shapes/test/{i:05d}" for i in range(n)]),
        CLASSES,
    )
    return replace(made, **fields)


@pytest.fixture
def saved(tiny_bundle: Callable[..., Bundle], tmp_path: Path) -> Bundle:
    return tiny_bundle().save(tmp_path / "bundle")


def pngs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def manifest(folder: Path) -> list[dict[str, str]]:
    return read_csv(folder / "manifest.csv").records()


def test_every_image_gets_a_png_and_a_line(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images, out = image_set(tiny_images(7)), tmp_path / "out"
    recipe = saved.recipe(guidance_interval=(0.1, 1.5), seed=3)
    told: list[tuple[float, int]] = []
    result = generate_folder(saved, images, out, recipe, batch_size=3, on_progress=lambda *p: told.append(p))
    assert (result.there, result.made, result.manifest) == (0, 7, out / "manifest.csv")
    assert [p[0] for p in told] == sorted(p[0] for p in told)
    assert told[-1] == (7, 7)

    lines = manifest(out)
    assert [line["file"] for line in lines] == [f"shapes-test-{i:05d}.png" for i in range(7)]
    assert set(pngs(out)) == {line["file"] for line in lines}
    expected = saved.generate(
        images.images, images.labels, guidance_interval=(0.1, 1.5), seed=3, ids=images.ids
    )
    for i, line in enumerate(lines):
        with Image.open(out / line["file"]) as png:
            assert np.abs(np.asarray(png).astype(int) - expected.outliers[i]).max() <= 1
        assert line["source_id"] == images.ids[i]
        assert line["label_name"] == CLASSES[i % 3]
        assert int(line["target_label"]) == expected.target_labels[i] != i % 3
        assert line["target_name"] == CLASSES[expected.target_labels[i]]
    assert (lines[0]["S"], lines[0]["w"], lines[0]["solver"], lines[0]["seed"]) == ("200", "2.0", "ddim", "3")
    assert (lines[0]["guidance_sigma_lo"], lines[0]["guidance_sigma_hi"]) == ("0.1", "1.5")
    assert float(lines[0]["sigma"]) == pytest.approx(0.719, abs=1e-3)
    assert {line["bundle_sha256"] for line in lines} == {saved.hash}


def test_a_second_call_makes_only_what_is_missing_and_the_same(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images, out = image_set(tiny_images(7)), tmp_path / "out"
    generate_folder(saved, images, out, saved.recipe(), batch_size=3)
    whole, table = pngs(out), (out / "manifest.csv").read_bytes()
    stamps = {name: (out / name).stat().st_mtime_ns for name in whole}

    result = generate_folder(saved, images, out, saved.recipe(), batch_size=3)
    assert (result.there, result.made) == (7, 0)
    assert {name: (out / name).stat().st_mtime_ns for name in whole} == stamps

    # gone, cut off, empty, and the leftover of a killed process
    names = sorted(whole)
    (out / names[1]).unlink()
    (out / names[2]).write_bytes(whole[names[2]][:-20])
    (out / names[6]).write_bytes(b"")
    (out / f".{names[1].removesuffix('.png')}.{'0' * 32}.partial.png").write_bytes(b"half")
    (out / "manifest.csv").unlink()
    result = generate_folder(saved, images, out, saved.recipe(), batch_size=3)
    assert (result.there, result.made) == (4, 3)
    assert pngs(out) == whole
    assert (out / "manifest.csv").read_bytes() == table
    assert not leftovers(out)
    untouched = [name for name in names if name not in (names[1], names[2], names[6])]
    assert all((out / name).stat().st_mtime_ns == stamps[name] for name in untouched)


def test_an_interrupted_call_lists_what_is_there_and_the_next_one_completes_it(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images = image_set(tiny_images(7))
    generate_folder(saved, images, tmp_path / "whole", saved.recipe(), batch_size=2)

    def interrupt(done: float, to_do: int) -> None:
        if done > 4.5:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        generate_folder(saved, images, out, saved.recipe(), batch_size=2, on_progress=interrupt)
    assert len(pngs(out)) == len(manifest(out)) == 4
    result = generate_folder(saved, images, out, saved.recipe(), batch_size=2)
    assert (result.there, result.made) == (4, 3)
    assert pngs(out) == pngs(tmp_path / "whole")
    assert manifest(out) == manifest(tmp_path / "whole")


def test_more_images_extend_a_folder_and_fewer_drop_no_line(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images, out = image_set(tiny_images(6)), tmp_path / "out"
    first = images.take(np.arange(4))
    generate_folder(saved, first, out, saved.recipe())
    before = (out / "manifest.csv").read_text("utf-8-sig").splitlines()
    result = generate_folder(saved, images, out, saved.recipe())
    assert (result.there, result.made) == (4, 2)
    assert len(manifest(out)) == 6
    result = generate_folder(saved, first, out, saved.recipe())
    assert (result.there, result.made) == (4, 0)
    assert sorted(line["file"] for line in manifest(out)) == sorted(pngs(out))
    assert len(manifest(out)) == 6
    # the lines of earlier calls are as they were, with numbers as numbers
    assert set(before) < set((out / "manifest.csv").read_text("utf-8-sig").splitlines())
    (out / "manifest.csv").write_text("file\n1,2\n")
    with pytest.raises(PipelineError, match=r"manifest.csv is damaged \(line 2: 2 cells under 1 names\)"):
        generate_folder(saved, first, out, saved.recipe())


def test_another_recipe_bundle_or_source_is_refused(
    saved: Bundle, tiny_bundle: Callable[..., Bundle], tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images, out = image_set(tiny_images(2)), tmp_path / "out"
    generate_folder(saved, images, out, saved.recipe())
    before = pngs(out)
    other = tiny_bundle(seed=1).save(tmp_path / "other")
    for bundle, sources, recipe, target, key in (
        (saved, images, saved.recipe(guidance_scale=3.0), "random", "guidance_scale 2.0, now 3.0"),
        (saved, images, saved.recipe(seed=1), "random", "seed 0, now 1"),
        (saved, images, saved.recipe(), "right", "target random, now right"),
        (saved, images, saved.recipe(), 1, "target random, now 1"),
        (saved, replace(images, split="train"), saved.recipe(), "random", "split test, now train"),
        (saved, replace(images, name="digits"), saved.recipe(), "random", "source shapes, now digits"),
        (other, images, other.recipe(), "random", "bundle_sha256"),
    ):
        with pytest.raises(PipelineError, match=key):
            generate_folder(bundle, sources, out, recipe, target)
    assert pngs(out) == before


def test_a_folder_of_something_else_is_left_alone(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images = image_set(tiny_images(2))
    taken = write_pictures(tmp_path / "pictures", 1)
    with pytest.raises(PipelineError, match="is not empty and not a folder of outliers"):
        generate_folder(saved, images, taken, saved.recipe())
    assert sorted(p.name for p in taken.iterdir()) == ["blue", "green", "red"]
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(PipelineError, match="is a file"):
        generate_folder(saved, images, file, saved.recipe())
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "recipe.json").write_text("{")
    with pytest.raises(PipelineError, match="recipe.json is damaged"):
        generate_folder(saved, images, damaged, saved.recipe())


def test_two_processes_do_not_work_in_one_folder(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images, out = image_set(tiny_images(2)), tmp_path / "out"
    generate_folder(saved, images, out, saved.recipe())
    with FileLock(out / ".lock"), pytest.raises(PipelineError, match="another process"):
        generate_folder(saved, images, out, saved.recipe())


def test_targets(saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path) -> None:
    images = image_set(tiny_images(5))
    for target, expected in (("right", images.labels.tolist()), (2, [2] * 5)):
        out = tmp_path / f"out-{target}"
        generate_folder(saved, images, out, saved.recipe(), target)
        assert [int(line["target_label"]) for line in manifest(out)] == expected
    with pytest.raises(PipelineError, match="target: 3 is outside 0..2"):
        generate_folder(saved, images, tmp_path / "none", saved.recipe(), 3)
    assert not (tmp_path / "none").exists()


def test_a_bundle_that_cannot_label_the_images_is_refused(
    tiny_bundle: Callable[..., Bundle], tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    blind, images = tiny_bundle(clusterer=False), image_set(tiny_images(7), name="digits")
    with pytest.raises(PipelineError, match="no clusterer"):
        generate_folder(blind, images, tmp_path / "out", blind.recipe())


HOSTILE = [
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a-b",
    "a_b",
    "A/B",
    "..",
    ".",
    "",
    "con",
    "x" * 500,
    "x" * 501,
    "Ümläut/鳥/1",
    "Ümläut/鳥/2",
    "鳥",
    "new\nline",
    "quo\"te,comma;='",
    "back\\slash",
    "shapes/test/../00001",
    "shapes/test/00001.png",
    "shapes/Test/00001",
    "n/s/tv-1",
    "n-s/tv/1",
    "n-s-tv-1",
    "shapes-test-00001",
    "shapes/test-00001",
    "-rf",
    "~",
    "%2e%2e%2f",
]


def test_hostile_ids_get_plain_names_that_differ(tiny_images: Callable[..., np.ndarray]) -> None:
    ids = [*HOSTILE, "shapes/test/00001", "shapes-novel/test/00001", "cifar10/test/tv-00001"]
    names = file_names(image_set(tiny_images(len(ids)), ids))
    assert len({name.casefold() for name in names}) == len(ids)
    assert names[-3:] == ["shapes-test-00001.png", "shapes-novel-test-00001.png", "cifar10-test-tv-00001.png"]
    for name in names:
        assert name.isascii() and name.endswith(".png") and len(name) < 120
        assert Path(name).name == name and not name.startswith((".", "-"))
    # a name depends on its own id alone
    assert file_names(image_set(tiny_images(len(ids)), ids[::-1])) == names[::-1]


def test_hostile_ids_stay_in_the_folder_and_in_the_manifest(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out"
    images = image_set(tiny_images(len(HOSTILE)), HOSTILE)
    generate_folder(saved, images, out, saved.recipe())
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
    assert [line["source_id"] for line in manifest(out)] == HOSTILE
    assert {line["file"] for line in manifest(out)} == set(pngs(out))


def test_ids_that_are_not_unique_or_not_text_are_refused(tiny_images: Callable[..., np.ndarray]) -> None:
    with pytest.raises(DataError, match="1 images have the id of another one"):
        file_names(image_set(tiny_images(3), ["a", "b", "a"]))
    with pytest.raises(DataError, match="is not text"):
        file_names(image_set(tiny_images(1), ["\udcff"]))


def test_drawn_ids_are_plain() -> None:
    for name in ("shapes", "shapes-novel", "shapes-empty", "digits"):
        images = data.load(name, data.splits(name)[-1], limit=2)
        assert all("_" not in one for one in file_names(images))
