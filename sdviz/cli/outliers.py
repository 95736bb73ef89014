"""The command that makes outliers: generate."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..registry import module_names
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
    fail,
    load_images,
    mistakes_in_one_line,
    progress_bar,
)

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..pipeline import Target


# solvers have the names of their files; importing those would import torch
_SOLVERS = module_names("sdviz.diffusion.samplers")


@app.command()
@mistakes_in_one_line
def generate(
    bundle: Annotated[Path, typer.Option(help="A bundle's folder.")],
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
    solver: Annotated[
        str | None, typer.Option(help=f"Solver: {', '.join(_SOLVERS)}; defaults to the bundle's.")
    ] = None,
    eta: Annotated[float, typer.Option(help="DDIM's share of fresh noise, 0..1.")] = 0.0,
    interval: Annotated[
        str | None, typer.Option(metavar="LO,HI", help="Guide only while sigma lies between these two.")
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="random: a wrong class for each image; right: its own class (the control); or a class's name."
        ),
    ] = "random",
    seed: Annotated[int, typer.Option(help="Seed of noise and wrong classes.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    device: Device = "auto",
    skip_bad: SkipBad = False,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="folder: PNGs alone; npz or parquet: one more file, which later calls keep up to date.",
        ),
    ] = "folder",
    json_: Json = False,
) -> None:
    """Makes an outlier of each image; called again it makes only what is missing."""
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
        sources = load_images(images, limit, skip_bad, maker.manifest.image_size)
    with progress_bar() as show:
        started = time.monotonic()

        def on_progress(done: float, to_do: int) -> None:
            share = done / to_do
            eta_sec = (time.monotonic() - started) * (1 - share) / share if share else None
            show(f"outliers {int(done)}/{to_do}", share, eta_sec)

        try:
            result = generate_folder(maker, sources, out, recipe, condition, batch_size, on_progress)
            *packed, checksums = pack_folder(out, packing, maker.class_names)
        except (DataError, PipelineError) as error:
            raise Mistake(str(error)) from error
        except KeyboardInterrupt:
            fail(f"interrupted; the same command goes on with {out}", EXIT_STOPPED)
    if json_:
        figures = {
            "out": str(out),
            "manifest": str(result.manifest),
            "there": result.there,
            "made": result.made,
            "packed": [str(path) for path in packed],
            "checksums": str(checksums),
        }
        typer.echo(json.dumps(figures | {"bundle_sha256": maker.hash}))
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
    """What `text` names: "random", "right", or a class by its name or its number."""
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
