"""The command clusters: how many clusters a set of images has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .common import Json, Mistake, app, checking

DEFAULT_NUMBERS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30)


@app.command()
def clusters(
    config: Annotated[Path, typer.Argument(help="A YAML file; examples are in configs/.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a value, such as data.limit=500; repeatable."),
    ] = None,
    number: Annotated[
        list[int] | None, typer.Option(metavar="C", help="A number of clusters to try; repeatable.")
    ] = None,
    json_: Json = False,
) -> None:
    """Estimates how many clusters the images have, by the features of the configuration's encoder.

    For each number it clusters several random samples and compares the results: agreement 1 is the same
    clusters every time, 0 is chance. The encoder must have weights, such as encoder.weights=pip: nothing is
    trained.
    """
    from .. import data
    from ..config.reading import load_config
    from ..nn.encoder import build_encoder
    from ..nn.feature_cache import kept_features
    from ..scan.stability import cluster_stability, supported

    settings = load_config(config, set_ or [])
    encoder, d = settings.encoder, settings.data
    if encoder is None or encoder.weights is None or encoder.trainings:
        raise Mistake("clusters needs a fixed encoder: set encoder.weights and encoder.simclr=null")
    with checking():
        images = data.load(d.id, d.split, d.limit, settings.seed, d.on_error, **d.reading).images
        features = kept_features(build_encoder(encoder).eval(), images, settings.device)
        numbers = sorted(set(number or [one for one in DEFAULT_NUMBERS if 4 * one <= len(images)]))
        found = []
        for one in cluster_stability(features, numbers, seed=settings.seed):
            found.append(one)
            if not json_:
                typer.echo(f"{one.n_clusters:4d} clusters: agreement {one.mean:.2f} ± {one.spread:.2f}")
        best = supported(found)
    if json_:
        table = [{"n_clusters": one.n_clusters, "mean": one.mean, "spread": one.spread} for one in found]
        typer.echo(json.dumps({"images": len(images), "agreement": table, "supported": best}))
    else:
        typer.echo(f"The features support {best}: set labels.n_clusters={best}")
