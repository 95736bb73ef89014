"""Commands that use a bundle: generate, score, layouts."""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    EXIT_STOPPED,
    Device,
    Json,
    Limit,
    Mistake,
    SkipBad,
    Source,
    app,
    checking,
    counting_bar,
    fail,
    load_images,
)

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..pipeline import Target

BundleFolder = Annotated[Path, typer.Option(help="Folder of the bundle.")]
# the files' names are the solvers' names; importing the registry would import torch
_SAMPLERS = Path(__file__).resolve().parents[1] / "diffusion" / "samplers"
SOLVERS = sorted(module.name for module in pkgutil.iter_modules([str(_SAMPLERS)]))


@app.command()
def generate(
    bundle: BundleFolder,
    images: Source,
    out: Annotated[Path, typer.Option(help="Folder for the PNGs and manifest.csv.")],
    limit: Limit = None,
    start_timestep: Annotated[
        int | None,
        typer.Option("--start-timestep", "-S", help="S, noising steps; S, w and K default to the bundle's."),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option("--guidance-scale", "-w", help="w of Eq. 3; 0 is plain conditional sampling."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="K, network calls from x_S to x_0.")] = None,
    solver: Annotated[str | None, typer.Option(help=f"{', '.join(SOLVERS)}; defaults to the bundle's.")] = None,
    eta: Annotated[float, typer.Option(help="Share of fresh noise in DDIM, 0..1.")] = 0.0,
    interval: Annotated[
        str | None, typer.Option(metavar="LO,HI", help="Guide only while sigma is between LO and HI.")
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="random: a wrong class for each image; right: its own class (the control); or a class."
        ),
    ] = "random",
    seed: Annotated[int, typer.Option(help="Seed of the noise and the wrong classes.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images computed at once.")] = 64,
    device: Device = "auto",
    skip_bad: SkipBad = False,
    form: Annotated[
        str,
        typer.Option(
            "--format", help="folder: PNGs only; npz, parquet: one more file, which later calls update."
        ),
    ] = "folder",
    json_: Json = False,
) -> None:
    """Makes an outlier of each image; called again, it makes only the missing ones."""
    from ..bundle import Bundle
    from ..data import DataError
    from ..pipeline import FORMATS, PipelineError, generate_folder, pack_folder

    with checking():
        packing = next((one for one in FORMATS if one == form), None)
        if packing is None:
            raise ValueError(f"--format {form!r} is not one of {', '.join(FORMATS)}")
        span = _interval(interval)
        maker = Bundle.load(bundle, device)
        recipe = maker.recipe(start_timestep, guidance_scale, steps, solver, eta, span, seed)
        condition = _target(maker, target)
        sources = load_images(images, limit, skip_bad, maker.manifest.reading)
    with counting_bar() as show:

        def on_progress(done: float, to_do: int) -> None:
            show(f"outliers {int(done)}/{to_do}", done, to_do)

        try:
            result = generate_folder(maker, sources, out, recipe, condition, batch_size, on_progress)
            *packed, checksums = pack_folder(out, packing, maker.class_names)
        except (DataError, PipelineError) as error:
            raise Mistake(str(error)) from error
        except KeyboardInterrupt:
            fail(f"interrupted; the same command continues with {out}", EXIT_STOPPED)
    if json_:
        figures = {
            "out": str(out),
            "manifest": str(result.manifest),
            "there": result.there,
            "made": result.made,
            "packed": [str(path) for path in packed],
            "checksums": str(checksums),
            "bundle_sha256": maker.hash,
        }
        typer.echo(json.dumps(figures))
    else:
        also = "".join(f", {path.name}" for path in packed)
        typer.echo(f"{result.there} there, {result.made} made: {result.manifest}{also}")


def _interval(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--interval {text}: must be two numbers, as in 0.2,1.5") from error
    return low, high


def _target(bundle: Bundle, text: str) -> Target:
    """Reads --target: "random", "right", or a class by name or number."""
    if text == "random":
        return "random"
    if text == "right":
        return "right"
    names = [name.casefold() for name in bundle.class_names]
    if text.casefold() in names:
        return names.index(text.casefold())
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    known = ", ".join(bundle.class_names[:20])
    raise ValueError(
        f"--target {text!r} is not random, right, 0..{len(names) - 1} or a class of the bundle: {known}"
    )


@app.command()
def score(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle; it needs a detector.")],
    images: Source,
    out: Annotated[Path, typer.Option(help="The table to write: .csv or .parquet.")],
    threshold: Annotated[
        float | None,
        typer.Option(metavar="T", help="Call scores above T OOD. Kept in the bundle; pages start with it."),
    ] = None,
    id_recall: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            help="Instead of T: the share of held-out ID images that pass, as 90. Kept too; 95 at first.",
        ),
    ] = None,
    limit: Limit = None,
    device: Device = "auto",
    skip_bad: SkipBad = False,
    json_: Json = False,
) -> None:
    """Scores images by Eq. 6: how far each is out of distribution, and its nearest ID images.

    The table has id, path, score, distance, votes, nearest_ids, quantile, threshold and verdict.

    quantile: the share of held-out ID images with a lower score, 0..1.

    verdict: OOD if the score is above the threshold, else ID.
    """
    from ..bundle import Bundle
    from ..bundle.threshold import keep_threshold, make_threshold
    from ..pipeline import PipelineError
    from ..pipeline.any_images.scoring import check_table_name, score_images, write_scores

    with checking():
        check_table_name(out)
        chosen = make_threshold(threshold, id_recall)
        judge = Bundle.load(bundle, device)
        if chosen is not None:
            judge.manifest = judge.manifest.model_copy(update={"threshold": chosen})
        sources = load_images(images, limit, skip_bad, judge.manifest.reading)
    with counting_bar() as show:
        try:
            n = len(sources)
            table = score_images(
                judge, sources, lambda share: show(f"scores {round(share * n)}/{n}", share * n, n)
            )
        except PipelineError as error:
            raise Mistake(str(error)) from error
    write_scores(table, out)
    if chosen is not None:
        try:
            keep_threshold(judge)
        except OSError as error:
            typer.echo(f"warning: the threshold is not kept: {bundle}: {error.strerror}", err=True)
    flagged, limit_used = table["verdict"].to_pylist().count("OOD"), table["threshold"][0].as_py()
    if json_:
        figures = {
            "out": str(out),
            "images": len(table),
            "flagged": flagged,
            "threshold": limit_used,
            "bundle_sha256": judge.hash,
        }
        typer.echo(json.dumps(figures))
    else:
        typer.echo(f"{len(table)} images, {flagged} called OOD (score above {limit_used:.4g}): {out}")


@app.command()
def layouts(bundle: BundleFolder) -> None:
    """Computes the t-SNE and UMAP layouts that the Embeddings page shows first; this takes minutes.

    The files go to .layouts beside the bundle; existing files are kept.
    """
    from ..analysis import Evidence
    from ..analysis.stored_layouts import View, store_usual_layouts
    from ..bundle import Bundle

    with checking():
        opened = Bundle.load(bundle, "cpu", lazy=True)
    found = 0

    def on_made(view: View, file: Path, now: bool) -> None:
        nonlocal found
        found += 1
        where = "through training" if view.through else "after training"
        state = "made" if now else "there"
        typer.echo(f"{view.layout.method} {where}, {', '.join(view.sets)}: {state}, {file}")

    store_usual_layouts(Evidence(opened), on_made)
    if not found:
        raise Mistake(f"{bundle}: no features to lay out; it has no detector, or was never measured")
