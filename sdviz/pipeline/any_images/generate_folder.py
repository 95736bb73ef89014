"""Makes outliers of any images: a folder of PNGs with a manifest, which later calls add to."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image

from ...bundle import Bundle
from ...bundle.labels import source_labels
from ...data import DataError, ImageSet
from ...files import remove_leftovers, replacing, write_atomically
from ...nn.batches import slices
from ...outliers import Recipe, check_labels, draw_target_labels, manifest_csv, manifest_row, read_manifest
from ..workspace import PipelineError, read_object

RECIPE = "recipe.json"
MANIFEST = "manifest.csv"
Target = Literal["random", "right"] | int
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class GeneratedFolder:
    """What `generate_folder` did."""

    there: int  # outliers that the folder held before
    made: int  # outliers made now
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
    """Makes one outlier of each image as a PNG, and a manifest; existing PNGs are kept.

    Batches are fixed by the images' order in the set, and a batch with a missing PNG is computed as a whole, so
    existing files do not change the pixels of new ones.

    Args:
        images: The sources, of the bundle's size.
        recipe: Checked by the caller.
        target: "random" draws c_r by Eq. 2, "right" takes y~ (the control), a number takes that cluster.
        on_progress: Called with (images done, images to do), with fractions inside a batch.

    Raises:
        PipelineError: The folder holds something else, another process works in it, or the bundle
            cannot label these images or lacks the target.
        DataError: Ids that are not unique or not text.
    """
    names = file_names(images)
    try:
        labels, _ = source_labels(bundle, images)
        if target == "random":
            targets = draw_target_labels(labels, images.ids, bundle.n_clusters, recipe.seed)
        else:
            targets = labels.copy() if target == "right" else np.full(len(images), target, np.int64)
            check_labels("target", targets, bundle.n_clusters)
    except ValueError as error:
        raise PipelineError(str(error)) from error
    source = {"bundle_sha256": bundle.hash, "source": images.name, "split": images.split, "target": target}
    _claim(out, source | asdict(recipe))
    try:
        held = FileLock(out / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise PipelineError(f"{out}: another process is making outliers in it") from error
    with held:
        remove_leftovers(out)
        # 1. which batches lack a file
        present = np.array([_is_whole(out / name, bundle.manifest.image_size) for name in names])
        there = int(present.sum())
        shards = [s for s in slices(len(images), batch_size) if not present[s].all()]
        to_do = sum(len(names[s]) for s in shards)
        n_steps = max(1, len(bundle.schedule.timesteps(recipe.start_timestep, recipe.num_inference_steps)))
        done = 0

        def on_step(step: int, x_t: torch.Tensor, x_0: torch.Tensor) -> None:
            if on_progress is not None:
                on_progress(done + len(x_t) * step / n_steps, to_do)

        try:
            # 2. make those batches, write the missing files
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
                    with replacing(out / names[s][row]) as partial:
                        Image.fromarray(batch.outliers[row]).save(partial, "PNG")
                    present[s.start + row] = True
                done += len(batch)
                if on_progress is not None:
                    on_progress(done, to_do)
        finally:
            # 3. the manifest of all existing files, also after an interruption
            maker = recipe, bundle.schedule, bundle.class_names
            rows = []
            for i in np.flatnonzero(present):
                one = str(images.ids[i]), int(labels[i]), int(targets[i])
                rows.append({"file": names[i]} | manifest_row(*maker, *one, bundle.hash))
            _write_manifest(out, rows)
    return GeneratedFolder(there, len(images) - there, out / MANIFEST)


# ids of named sets; a split "tv" would make file names like those of torchvision's "tv-00012"
_PLAIN_ID = re.compile(r"[a-z0-9-]+/(?!tv/)[a-z]+/(tv-)?[0-9]+", re.ASCII)


def file_names(images: ImageSet) -> list[str]:
    """A file name for each image: unique, without a path, and decided by its id alone.

    "shapes/test/00012" becomes shapes-test-00012.png. Any other id is cut to plain letters, followed by an
    underscore, which names of the first kind do not have, and a hash of the id.

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
    """Makes the folder for this recipe; PipelineError if it holds anything else."""
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
    held = read_object(file)
    for key in asked:
        if held.get(key) != asked[key]:
            raise PipelineError(
                f"{out} holds outliers of another recipe ({key} {held.get(key)}, now {asked[key]}):"
                " name another folder"
            )


def _is_whole(path: Path, size_px: int) -> bool:
    """Whether the file is a complete PNG of that size."""
    try:
        blob = path.read_bytes()
        with Image.open(io.BytesIO(blob), formats=["PNG"]) as image:
            image.load()
            # Pillow accepts a file that ends after the last pixel
            return blob.endswith(_PNG_END) and image.size == (size_px, size_px) and image.mode == "RGB"
    except (OSError, SyntaxError, ValueError):
        return False


def _write_manifest(out: Path, rows: list[dict[str, Any]]) -> None:
    """Writes manifest.csv: these rows, then those of earlier calls whose outliers are still there."""
    path = out / MANIFEST
    lines = list(rows)
    if path.is_file():
        files = {row["file"] for row in rows}
        present = {p.name for p in out.glob("*.png")}
        try:
            lines += [row for row in read_manifest(path) if row.get("file") in present - files]
        except ValueError as error:
            raise PipelineError(f"{path} is damaged ({error}): name another folder") from error
    if lines:
        write_atomically(path, manifest_csv(lines))
