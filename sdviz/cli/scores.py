"""The commands on a bundle that is there: score images, lay its features out ahead."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from .common import Mistake, app, checking, load_images, mistakes_in_one_line, progress_bar


@app.command()
@mistakes_in_one_line
def score(
    bundle: Annotated[Path, typer.Option(help="A bundle's folder; it needs a detector.")],
    images: Annotated[
        str,
        typer.Option(
            metavar="SRC", help="NAME, NAME:SPLIT (as shapes:test), folder:, parquet:, npz: or npy:PATH."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where the table goes: .csv, or .parquet.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many images, a fixed random choice.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave undecodable pictures out.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="The result as one JSON object.")] = False,
) -> None:
    """Scores images by Eq. 6: how far each is out of distribution, why, and against which ID images.

    The table has id, score, distance, votes, nearest_ids, percentile (the share of held-out ID images in %
    that the image is more OOD than) and flag (above the threshold that 95 % of them pass).
    """
    from ..bundle import Bundle
    from ..pipeline import PipelineError
    from ..pipeline.scoring import check_table_name, score_images, write_scores

    with checking():
        check_table_name(out)
        judge = Bundle.load(bundle, device)
        sources = load_images(images, limit, skip_bad, judge.manifest.image_size)
    with progress_bar() as show:
        started = time.monotonic()

        def on_progress(done: int, total: int) -> None:
            left = (time.monotonic() - started) / done * (total - done)
            show(f"scores {done}/{total}", done / total, left)

        try:
            table = score_images(judge, sources, on_progress)
        except PipelineError as error:
            raise Mistake(str(error)) from error
    write_scores(table, out)
    flagged = int(table["flag"].to_numpy().sum())
    if json_:
        figures = {"out": str(out), "images": len(table), "flagged": flagged, "bundle_sha256": judge.hash}
        typer.echo(json.dumps(figures))
    else:
        typer.echo(f"{len(table)} images, {flagged} flagged as OOD: {out}")


@app.command()
@mistakes_in_one_line
def layouts(
    bundle: Annotated[Path, typer.Option(help="A bundle's folder.")],
) -> None:
    """Makes the t-SNE and UMAP that the page Embeddings shows first, so that nobody waits for them there.

    Minutes. They stand beside the bundle, in .layouts; those that are there already are not made again.
    """
    from ..analysis import Evidence
    from ..analysis.stored_layouts import View, store_usual_layouts
    from ..bundle import Bundle

    with checking():
        whose = Bundle.load(bundle, "cpu", lazy=True)
    found = 0

    def on_made(view: View, file: Path, now: bool) -> None:
        nonlocal found
        found += 1
        where = "through training" if view.through else "after training"
        typer.echo(
            f"{view.layout.method} {where}, {', '.join(view.sets)}: {'made' if now else 'there'}, {file}"
        )

    store_usual_layouts(Evidence(whose), on_made)
    if not found:
        raise Mistake(f"{bundle}: no features to lay out; it has no detector, or was never measured")
