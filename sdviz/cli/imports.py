"""The command import: others' scores or features beside ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .common import Json, Mistake, app, checking


@app.command("import")
def import_(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle whose images they are of.")],
    file: Annotated[
        Path | None, typer.Argument(help="CSV, Parquet or npz with id, set, and score or feature.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its name on pages; by default the file's.")] = None,
    higher_is_id: Annotated[
        bool, typer.Option("--higher-is-id", help="Its scores are higher for ID images, not for OOD.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an import of this name.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the imports of this bundle.")] = False,
    remove: Annotated[str | None, typer.Option(metavar="NAME", help="Remove an import.")] = None,
    json_: Json = False,
) -> None:
    """Shows others' scores or features of the same images beside ours, on Results and Embeddings.

    Sets and ids are those of the bundle's scores.parquet; features may also be of `train` and `SD outliers`,
    whose ids are in features.parquet. A set has all its images or none.

    Imports are kept beside the runs, in .imports, and not in the bundle.
    """
    from ..analysis import Evidence
    from ..analysis.imports import add_import, find_import, import_files, read_import
    from ..bundle import Bundle

    if sum((file is not None, list_, remove is not None)) != 1:
        raise Mistake("give one of FILE, --list and --remove NAME")
    with checking():
        evidence = Evidence(Bundle.load(bundle, lazy=True))
        if remove is not None:
            find_import(evidence.bundle.hash, remove).path.unlink()
        if file is not None:
            shown = [add_import(evidence, file, name or file.stem, higher_is_id, replace)]
        else:
            shown = [*import_files(evidence.bundle.hash)]
        found = [read_import(one) for one in shown]
        ours = {one: result.modes["both"].auroc for one, result in evidence.report.results.items()}
    if json_:
        about = [
            {
                "name": one.name,
                "source": one.source,
                "sets": one.sets,
                "n_features": one.n_features,
                "auroc": {} if one.result is None else {s: m.auroc for s, m in one.result.results.items()},
            }
            for one in found
        ]
        typer.echo(json.dumps({"imports": about, "ours": ours, "bundle_sha256": evidence.bundle.hash}))
        return
    for one in found:
        what = f"{one.n_features} features" if one.n_features else "scores"
        typer.echo(f"{one.name}: {what} of {', '.join(f'{n:,} {s}' for s, n in one.sets.items())}")
        for set_name, metrics in ({} if one.result is None else one.result.results).items():
            typer.echo(f"  {set_name}: AUROC {100 * metrics.auroc:.2f} %, ours {100 * ours[set_name]:.2f} %")
    if not found:
        typer.echo("no imports for this bundle")
