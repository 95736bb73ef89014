"""Commands that read a bundle: score, layouts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from .common import (
    Device,
    Json,
    Limit,
    Mistake,
    SkipBad,
    Source,
    app,
    checking,
    load_images,
    mistakes_in_one_line,
    progress_bar,
)


@app.command()
@mistakes_in_one_line
def score(
    bundle: Annotated[Path, typer.Option(help="A bundle's folder; it needs a detector.")],
    images: Source,
    out: Annotated[Path, typer.Option(help="The table to write: .csv or .parquet.")],
    limit: Limit = None,
    device: Device = "auto",
    skip_bad: SkipBad = False,
    json_: Json = False,
) -> None:
    """Scores images by Eq. 6: how far each is out of distribution, and its nearest ID images.

    The table has id, score, distance, votes, nearest_ids, percentile (how many % of the held-out ID images
    are less OOD) and flag (whether the score is above the threshold that 95 % of those images pass).
    """
    from ..bundle import Bundle
    from ..pipeline import PipelineError
    from ..pipeline.any_images.scoring import check_table_name, score_images, write_scores

    with checking():
        check_table_name(out)
        judge = Bundle.load(bundle, device)
        sources = load_images(images, limit, skip_bad, judge.manifest.image_size)
    with progress_bar() as show:
        started = time.monotonic()

        def on_progress(share: float) -> None:
            left = (time.monotonic() - started) / share * (1 - share)
            show(f"scores {round(share * len(sources))}/{len(sources)}", share, left)

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
    """Makes the t-SNE and UMAP layouts that the page Embeddings shows first.

    This takes minutes. The files go to .layouts next to the bundle; those that exist are not made again.
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
