"""Commands for runs: run, resume, stop, list, report; and download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..files import write_atomically
from ..text import message_line
from .common import (
    EXIT_FAILED,
    EXIT_STOPPED,
    Mistake,
    app,
    checking,
    counting_bar,
    fail,
    progress_bar,
)

if TYPE_CHECKING:
    from ..config.tree import RunConfig
    from ..pipeline import Progress
    from ..runs import Run, Status

RunName = Annotated[str, typer.Argument(help="The run's number, name or folder.")]
Now = Annotated[bool, typer.Option("--now", help="Start even if another run uses the device.")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage; `resume` continues.")]


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="A YAML file; examples are in configs/.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a value, such as data.limit=500; repeatable."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    now: Now = False,
    until: Until = None,
    take_from: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="RUN", help="Reuse the finished stages of RUN that have equal settings."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show configuration, stages, time and disk space.")
    ] = False,
) -> None:
    """Trains from a configuration and makes a bundle, in a new folder under runs/ (or SDVIZ_RUNS).

    Runs on the same device wait for each other and start in the order of their commands.
    """
    from ..config.reading import load_config

    overrides = [*(set_ or []), *([f"device={json.dumps(device)}"] if device else [])]
    settings = load_config(config, overrides)
    from .. import runs
    from ..nn.device import resolve_device

    with checking():
        resolve_device(settings.device)
        source = runs.find(take_from) if take_from is not None else None
        if source is not None:
            source.status()  # refuses a run of another format
        _check_stage(until, settings)
        if dry_run:
            _show_plan(settings)
            return
    made = runs.create(settings)
    if source is not None:
        from ..pipeline import adopt_stages

        taken = adopt_stages(made.path, source.path, made.config())
        typer.echo(f"taken from {source.name}: {', '.join(taken) or 'nothing fits'}", err=True)
    _execute(made, now, until)


def _check_stage(until: str | None, config: RunConfig) -> None:
    from ..pipeline import stage_names

    names = stage_names(config)
    if until is not None and until not in names:
        raise ValueError(f"--until {until}: no such stage; this run has {', '.join(names)}")


def _show_plan(config: RunConfig) -> None:
    """Prints the configuration as YAML and the stages as comments: the output is a valid configuration."""
    from .. import data
    from ..config.reading import to_yaml
    from ..nn.device import device_name, resolve_device
    from ..pipeline import estimate, jpeg_warning, some_images, stage_names, without_absent_sets
    from ..runs.status import duration

    data.count(config.data.id, config.data.split)  # refuses a misspelt or absent set before all the output
    typer.echo(to_yaml(config))
    # before the estimate, which needs the images
    typer.echo(f"# stages: {', '.join(stage_names(config))}")
    config, absent = without_absent_sets(config)
    for how_to_get in absent.values():
        typer.echo(f"# left out below, and the run would not start: {how_to_get}")
    stages = estimate(config)
    warning = jpeg_warning(config, some_images(config))
    if warning is not None:
        typer.echo(f"# warning: {warning}")
    typer.echo(f"# on {device_name(resolve_device(config.device))}, by a few images' speed just now:")
    for one in stages:
        typer.echo(f"#   {one.stage:<14} {duration(one.seconds):>9}  {one.bytes / 1e6:9.1f} MB")
    seconds, size = sum(one.seconds for one in stages), sum(one.bytes for one in stages)
    typer.echo(f"#   {'in all':<14} {duration(seconds):>9}  {size / 1e6:9.1f} MB")


@app.command()
def resume(run: RunName, now: Now = False, until: Until = None) -> None:
    """Continues a run that was cancelled, killed or failed; skips complete stages."""
    from .. import runs

    with checking():
        found = runs.find(run)
        found.status()  # refuses a run of another format
        _check_stage(until, found.config())
    _execute(found, now, until)


def _execute(run: Run, now: bool, until: str | None) -> None:
    from .. import runs
    from ..pipeline import is_main_process

    if not is_main_process():  # under `accelerate launch` the main process alone prints
        done = runs.execute(run, now=now, until=until).state == "done" or _is_complete(run, until)
        raise typer.Exit(0 if done else EXIT_STOPPED)
    go_on = f"go on with: python -m sdviz resume {run.name}"
    typer.echo(f"{run.path}: stop it with Ctrl-C, {go_on}", err=True)
    with progress_bar() as show:

        def on_progress(p: Progress) -> None:
            figures = [f"loss {p.values['loss']:.4f}"] if "loss" in p.values else []
            if "images_per_sec" in p.values:
                figures.append(f"{p.values['images_per_sec']:.0f} images/s")
            show(f"{p.stage} {p.step}/{p.total} {', '.join(figures)}".rstrip(), p.share, p.eta_sec)

        def on_wait(waiting: Status) -> None:
            before = ", ".join(waiting.waits_for)
            show(f"place {waiting.queue_place} in the queue for {waiting.devices[0]}: {before}", 0.0, None)

        with checking():
            status = runs.execute(run, on_progress, on_wait, now, until)
    if status.state == "failed":
        where = f"{run.name} failed in stage {status.stage}" if status.stage else f"{run.name} failed"
        fail(f"{where}: {status.error} (more in {run.path / 'log.txt'})", EXIT_FAILED)
    if status.state == "cancelled" and _is_complete(run, until):
        typer.echo(f"{run.name}: complete until {until}; {go_on}", err=True)
        typer.echo(str(run.path))
        return
    if status.state == "cancelled":
        where = f"in stage {status.stage}" if status.stage else "before its first stage"
        fail(f"{run.name} cancelled {where}; {go_on}", EXIT_STOPPED)
    typer.echo(str(run.bundle))


def _is_complete(run: Run, until: str | None) -> bool:
    return until is not None and (run.path / f"{until}.done.json").is_file()


@app.command()
def stop(run: RunName) -> None:
    """Stops a run after its current step and saves its state, or takes it out of the queue."""
    from .. import runs

    with checking():
        found = runs.find(run)
        status = runs.stop(found)
    if status.is_active:
        fail(f"{found.name} was asked to stop and has not yet", EXIT_FAILED)
    typer.echo(f"{found.name}: {status.state}")


@app.command("list")
def list_(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON list instead of a table.")] = False,
) -> None:
    """Lists all runs with their state."""
    from dataclasses import asdict

    from .. import runs
    from ..runs.status import duration

    found: list[dict[str, object]] = []
    for one in runs.list_runs():
        try:
            entry = asdict(one.status())
        except runs.RunError as error:  # one folder that cannot be read does not hide the others
            state = "older format" if isinstance(error, runs.OlderFormatError) else "damaged"
            entry = dict(state=state, stage="", step=0, total=0, eta_sec=None, error=str(error))
        bundle = str(one.bundle) if entry["state"] == "done" else None
        found.append({"name": one.name, "path": str(one.path)} | entry | {"bundle": bundle})
    if json_:
        typer.echo(json.dumps(found))
        return
    if not found:
        typer.echo(f"no runs in {runs.runs_root()}", err=True)
    for row in found:
        steps = f"{row['step']}/{row['total']}" if row["total"] else ""
        eta = row["eta_sec"]
        left = f"{duration(eta)} left" if isinstance(eta, float) else str(row["error"] or "")
        if row["state"] == "queued":
            left = f"behind {', '.join(row['waits_for'])}"  # type: ignore[arg-type]
        name = message_line(row["name"])
        typer.echo(f"{name:<40} {row['state']:<12} {row['stage']:<13} {steps:<14} {left}".rstrip())


@app.command()
def report(
    run: Annotated[list[str], typer.Argument(help="Runs by number, name or folder; their seeds must differ.")],
    out: Annotated[Path | None, typer.Option(help="Write the tables to this Markdown file.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the reports as one JSON list.")] = False,
    paper: Annotated[
        bool,
        typer.Option(help="Show the paper's Tables 1 to 4; runs may also differ in networks, labels, S and w."),
    ] = False,
) -> None:
    """Shows the results of runs: the AUROC on each OOD set with its spread, and the controls."""
    from .. import runs
    from ..analysis.paper_report import paper_page
    from ..analysis.records import read_record
    from ..evaluation import read_report
    from ..evaluation.tables import SameSeedsError, results_table

    with checking():
        found = [runs.find(one) for one in run]
        for one in found:
            if one.status_file.exists() and not (one.path / "evaluation" / "report.json").exists():
                status = one.status()
                at = f" at the stage {status.stage}" if status.stage else ""
                raise Mistake(f"{one.name} has no report yet: it is {status.state}{at}")
        reports = [read_report(one.path / "evaluation" / "report.json") for one in found]
        command = " ".join(["python -m sdviz report", *(one.name for one in found), *(["--paper"] * paper)])
        command = command if out is None else f"{command} --out {out}"
        if paper:
            text = paper_page([read_record(one.path / "bundle", one.name) for one in found], command)
        else:
            try:
                text = results_table(reports, command)
            except SameSeedsError as error:
                raise Mistake(_same_seeds(*(found[i] for i in error.pair)) or str(error)) from error
    if json_:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in reports]))
    elif out is None:
        typer.echo(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, text)


def _same_seeds(first: Run, second: Run) -> str:
    """Says in which settings two runs with the same seeds differ; "" if in none."""
    from ..analysis.records import NO_MATTER
    from ..runs.reading import differing_settings

    configs = [one.config().model_dump(mode="json") for one in (first, second)]
    differing = [
        f"{key} ({values[0]} and {values[1]})"
        for key, values in differing_settings(configs).items()
        if not {*NO_MATTER} & {*key.split(".")}
    ]
    if not differing:
        return ""
    more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
    return (
        f"{first.name} and {second.name} have the same seeds and differ in {', '.join(differing[:4])}{more}:"
        " a mean over them would say nothing; --paper shows them apart"
    )


@app.command()
def download(
    name: Annotated[
        str, typer.Argument(help="cifar10, cifar100, svhn, or sd-outliers (published by the paper's authors).")
    ],
) -> None:
    """Downloads a data set into data/ (or SDVIZ_DATA); sd-outliers continues after an interruption.

    To use a mirror of Zenodo for sd-outliers, set SDVIZ_ZENODO to the address of its records API.
    """
    from .. import data
    from ..data import zenodo

    with checking():
        if name not in zenodo.RECORDS:
            typer.echo(f"{name} is in {data.download(name)}")
            return
        with counting_bar() as show:

            def on_progress(file: str, done: int, total: int) -> None:
                show(f"{file}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", done, total)

            there = zenodo.download(name, data.data_root(), on_progress)
    for path in there:
        for line in zenodo.how_to_open(path):
            typer.echo(line)
