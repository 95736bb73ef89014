"""Makes outliers of any images as a folder of PNGs with a manifest; later calls add to it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image

from ...bundle import Bundle
from ...data import DataError, ImageSet
from ...files import remove_leftovers, replacing, write_atomically
from ...outliers import Recipe, check_labels, draw_target_labels, manifest_row
from ..workspace import PipelineError

RECIPE = "recipe.json"
MANIFEST = "manifest.csv"
Target = Literal["random", "right"] | int
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class GeneratedFolder:
    """What `generate_folder` did.

    Attributes:
        there: Outliers that the folder held before.
        made: Outliers made now.
    """

    there: int
    made: int
    manifest: Path


def generate_folder(
    bundle: Bundle,
    images: ImageSet,
    out: Path,
    recipe: Recipe,
    target: Target = "random",
    batch_size: int = 64,
    on_progress: Callable[[float, int], None] | None = None,
) -> GeneratedFolder:
    """Makes one outlier of each image, as PNGs with a manifest; what is there already is kept.

    The images are cut into batches by their place in the set, and a batch with a missing file is made
    whole, so what was there before changes no pixel of the rest.

    Args:
        images: The sources, of the bundle's size.
        recipe: How, checked by the caller.
        target: "random" draws c_r by Eq. 2, "right" takes y~ (the control), a number takes that cluster.
        on_progress: Told (images done, images to do), with fractions while a batch is under way.

    Raises:
        PipelineError: The folder holds something else, another process works in it, or the bundle
            cannot label these images or has no such target.
        DataError: Ids that are not unique or not text.
    """
    names = file_names(images)
    try:
        labels = source_labels(bundle, images)
        if target == "random":
            targets = draw_target_labels(labels, images.ids, bundle.n_clusters, recipe.seed)
        else:
            targets = labels.copy() if target == "right" else np.full(len(images), target, np.int64)
            check_labels("target", targets, bundle.n_clusters)
    except ValueError as error:
        raise PipelineError(str(error)) from error
    source = {"bundle_sha256": bundle.hash, "source": images.name, "split": images.split, "target": target}
    _claim(out, source | asdict(recipe))
    with _only_process(out):
        remove_leftovers(out)
        # 1. which batches lack a file
        present = np.array([_is_whole(out / name, bundle.manifest.image_size) for name in names])
        there = int(present.sum())
        shards = [slice(i, i + batch_size) for i in range(0, len(images), batch_size)]
        shards = [s for s in shards if not present[s].all()]
        to_do = sum(len(names[s]) for s in shards)
        n_steps = max(1, len(bundle.schedule.timesteps(recipe.start_timestep, recipe.num_inference_steps)))
        done = 0

        def on_step(step: int, x_t: torch.Tensor, x_0: torch.Tensor) -> None:
            if on_progress is not None:
                on_progress(done + len(x_t) * step / n_steps, to_do)

        try:
            # 2. make them whole, write what is missing
            for s in shards:
                batch = bundle.generate(
                    images.images[s],
                    labels[s],
                    target_labels=targets[s],
                    ids=images.ids[s],
                    callback=on_step,
                    batch_size=batch_size,
                    **asdict(recipe),
                )
                for row in np.flatnonzero(~present[s]):
                    _write_png(out / names[s][row], batch.outliers[row])
                    present[s.start + row] = True
                done += len(batch)
                if on_progress is not None:
                    on_progress(done, to_do)
        finally:
            # 3. the manifest, after an interruption too: it lists what is there
            maker = recipe, bundle.schedule, bundle.class_names
            rows = []
            for i in np.flatnonzero(present):
                one = str(images.ids[i]), int(labels[i]), int(targets[i])
                rows.append({"file": names[i]} | manifest_row(*maker, *one, bundle.hash))
            _write_manifest(out, rows)
    return GeneratedFolder(there, len(images) - there, out / MANIFEST)


@contextmanager
def _only_process(out: Path) -> Iterator[None]:
    try:
        held = FileLock(out / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise PipelineError(f"{out}: another process is making outliers in it") from error
    with held:
        yield


def source_labels(bundle: Bundle, images: ImageSet) -> np.ndarray:
    """The y~ of each image, 0..C-1: the set's own label if the bundle learned those, else the clusterer's.

    Raises:
        ValueError: A label is needed and the bundle has no clusterer.
    """
    m = bundle.manifest
    learned = (
        m.labels_from == "ground truth" and m.dataset == images.name and m.class_names == images.class_names
    )
    labels = images.labels.copy() if learned else np.full(len(images), -1, np.int64)
    unknown = labels < 0
    if unknown.any():
        labels[unknown] = bundle.pseudo_label(images.images[unknown])[0]
    return labels


# ids that sdviz gives itself; a split "tv" would be taken for torchvision's "tv-00012"
_PLAIN_ID = re.compile(r"[a-z0-9-]+/(?!tv/)[a-z]+/(tv-)?[0-9]+", re.ASCII)


def file_names(images: ImageSet) -> list[str]:
    """A file name for each image that depends on its id alone, differs where the ids do and has no path in it.

    "shapes/test/00012" is shapes-test-00012.png; any other id is cut to plain letters, and a hash of
    the whole of it follows an underscore, which no plain id has.

    Raises:
        DataError: Ids that are not unique or not text.
    """
    ids = images.ids.tolist()
    if len(set(ids)) != len(ids):
        raise DataError(f"{images.name}: {len(ids) - len(set(ids))} images have the id of another one")
    names = []
    for one in ids:
        if _PLAIN_ID.fullmatch(one):
            names.append(f"{one.replace('/', '-')}.png")
            continue
        try:
            digest = hashlib.sha256(one.encode()).hexdigest()[:16]
        except UnicodeEncodeError as error:
            raise DataError(f"{images.name}: the id {one!r} is not text") from error
        readable = re.sub(r"[^A-Za-z0-9]+", "-", one)[-80:].strip("-")
        names.append(f"{readable or 'image'}_{digest}.png")
    return names


def _claim(out: Path, asked: dict[str, Any]) -> None:
    """Makes the folder ready for this recipe, or says why it cannot be used."""
    asked = json.loads(json.dumps(asked))
    if out.exists() and not out.is_dir():
        raise PipelineError(f"{out} is a file, not a folder")
    out.mkdir(parents=True, exist_ok=True)
    file = out / RECIPE
    if not file.is_file():
        if any(not p.name.startswith(".") for p in out.iterdir()):
            raise PipelineError(f"{out} is not empty and not a folder of outliers: name another")
        write_atomically(file, json.dumps(asked, indent=1) + "\n")
        return
    try:
        held = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise PipelineError(f"{file} is damaged: name another folder") from error
    for key in asked:
        if held.get(key) != asked[key]:
            raise PipelineError(
                f"{out} holds outliers of another recipe ({key} {held.get(key)}, now {asked[key]}):"
                " name another folder"
            )


def _is_whole(path: Path, size_px: int) -> bool:
    """Whether there is a PNG of that size, to its last byte."""
    try:
        blob = path.read_bytes()
        with Image.open(io.BytesIO(blob), formats=["PNG"]) as image:
            image.load()
            # Pillow accepts a file that is cut after the last pixel
            return blob.endswith(_PNG_END) and image.size == (size_px, size_px) and image.mode == "RGB"
    except (OSError, SyntaxError, ValueError):
        return False


def _write_png(path: Path, image: np.ndarray) -> None:
    with replacing(path) as partial:
        Image.fromarray(image).save(partial, "PNG")


def _write_manifest(out: Path, rows: list[dict[str, Any]]) -> None:
    """Writes manifest.csv: these rows, then those of earlier calls whose outliers are still there."""
    path = out / MANIFEST
    lines = list(rows)
    if path.is_file():
        files = {row["file"] for row in rows}
        present = {p.name for p in out.glob("*.png")}
        with path.open(encoding="utf-8", newline="") as stream:
            lines += [row for row in csv.DictReader(stream) if row.get("file") in present - files]
    if not lines:
        return
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(lines[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
