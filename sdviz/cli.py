"""The command line: python -m sdviz ...

Everything heavy is imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import functools
import json
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from .bundle import Bundle
    from .data import ImageSet
    from .pipeline import Progress, Target
    from .runs import Run, Status

EXIT_FAILED = 1
EXIT_MISTAKE = 2
EXIT_STOPPED = 128 + signal.SIGINT
PLAIN_LINE_EVERY_SEC = 10.0
NOW = "Do not wait for another run on the same device."

Command = TypeVar("Command", bound=Callable[..., None])


# typer shows its usage errors in a box of several lines; the class is click's own or typer's copy of it
_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])


class _OneLineGroup(TyperGroup):
    """The group of commands; a usage error is one line on stderr as any other mistake."""

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401
        try:
            code = super().main(*args, **(extra | {"standalone_mode": False}))
        except _UsageError as error:
            message = error.format_message()  # type: ignore[attr-defined]
            typer.echo(f"error: {' '.join(message.split()).rstrip('.')}; see --help", err=True)
            code = EXIT_MISTAKE
        sys.exit(code or 0)


app = typer.Typer(
    name="sdviz",
    help="Semantic-discrepant outliers: train their maker, and make them.",
    cls=_OneLineGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Runs the command line."""
    app()


def _mistakes_in_one_line(command: Command) -> Command:
    """What a user or the machine did wrong is one line on stderr and an exit code, not a traceback.

    Only errors that the package raises for a user to read, and those of the operating system.
    """

    @functools.wraps(command)
    def wrapped(*args: object, **kwargs: object) -> None:
        from .config import ConfigError

        try:
            command(*args, **kwargs)
        except (ConfigError, _Mistake) as error:
            _fail(str(error), EXIT_MISTAKE)
        except BrokenPipeError:
            raise  # whoever read stdout has enough: typer ends quietly
        except OSError as error:
            _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), EXIT_FAILED)
        except KeyboardInterrupt:
            _fail("interrupted", EXIT_STOPPED)

    return wrapped  # type: ignore[return-value]


class _Mistake(Exception):
    """A ValueError that speaks to the user."""


@contextmanager
def _checking() -> Iterator[None]:
    """Around what checks the user's words: a ValueError there is his mistake, anywhere else it is our fault."""
    try:
        yield
    except ValueError as error:
        raise _Mistake(str(error)) from error


def _fail(message: str, code: int) -> None:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


# --------------------------------------------------------------------------------------------------
# Runs
# --------------------------------------------------------------------------------------------------


@app.command()
@_mistakes_in_one_line
def run(
    config: Annotated[Path, typer.Argument(help="A YAML file, see configs/.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replaces one value, as in a.b=c.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    now: Annotated[bool, typer.Option("--now", help=NOW)] = False,
) -> None:
    """Trains by a configuration, in a new folder under runs/ (or SDVIZ_RUNS), and ends in a bundle.

    While another run is at work on the same device it waits, in the order in which they were asked for.
    """
    from .config import load_config

    overrides = [*(set_ or []), *([f"device={json.dumps(device)}"] if device else [])]
    settings = load_config(config, overrides)
    from . import runs
    from .nn.device import resolve_device

    with _checking():
        resolve_device(settings.device)
    _execute(runs.create(settings), now)


@app.command()
@_mistakes_in_one_line
def resume(
    run: Annotated[str, typer.Argument(help="The run's number, name or folder.")],
    now: Annotated[bool, typer.Option("--now", help=NOW)] = False,
) -> None:
    """Goes on with a run that was cancelled, killed or failed; stages that are complete are skipped."""
    from . import runs

    with _checking():
        found = runs.find(run)
    _execute(found, now)


def _execute(run: Run, now: bool) -> None:
    from . import runs
    from .pipeline import is_main_process

    if not is_main_process():  # of an `accelerate launch`; the main one does the talking
        raise typer.Exit(0 if runs.execute(run, now=now).state == "done" else EXIT_STOPPED)
    go_on = f"go on with: python -m sdviz resume {run.name}"
    typer.echo(f"{run.path}: stop it with Ctrl-C, {go_on}", err=True)
    with _progress_bar() as show:

        def on_progress(p: Progress) -> None:
            figures = [f"loss {p.values['loss']:.4f}"] if "loss" in p.values else []
            if "images_per_sec" in p.values:
                figures.append(f"{p.values['images_per_sec']:.0f} images/s")
            show(f"{p.stage} {p.step}/{p.total} {', '.join(figures)}".rstrip(), p.share, p.eta_sec)

        def on_wait(waiting: Status) -> None:
            before = ", ".join(waiting.waits_for)
            show(f"place {waiting.queue_place} in the queue for {waiting.devices[0]}: {before}", 0.0, None)

        with _checking():
            status = runs.execute(run, on_progress, on_wait, now)
    if status.state == "failed":
        where = f"{run.name} failed in stage {status.stage}" if status.stage else f"{run.name} failed"
        _fail(f"{where}: {status.error} (more in {run.path / 'log.txt'})", EXIT_FAILED)
    if status.state == "cancelled":
        where = f"in stage {status.stage}" if status.stage else "before its first stage"
        _fail(f"{run.name} cancelled {where}; {go_on}", EXIT_STOPPED)
    typer.echo(str(run.bundle))


@app.command()
@_mistakes_in_one_line
def stop(run: Annotated[str, typer.Argument(help="The run's number, name or folder.")]) -> None:
    """Stops a run within one step, with its state saved; or takes it out of the queue."""
    from . import runs

    with _checking():
        found = runs.find(run)
        status = runs.stop(found)
    if status.is_active:
        _fail(f"{found.name} was asked to stop and has not yet", EXIT_FAILED)
    typer.echo(f"{found.name}: {status.state}")


@app.command("list")
@_mistakes_in_one_line
def list_(
    json_: Annotated[bool, typer.Option("--json", help="One JSON list instead of a table.")] = False,
) -> None:
    """Lists the runs with their state."""
    from dataclasses import asdict

    from . import runs

    found: list[dict[str, object]] = []
    for one in runs.list_runs():
        try:
            entry = asdict(one.status())
        except runs.RunError as error:  # one damaged folder does not hide the others
            entry = {
                "state": "damaged",
                "stage": "",
                "step": 0,
                "total": 0,
                "eta_sec": None,
                "error": str(error),
            }
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
        left = f"{_duration(eta)} left" if isinstance(eta, float) else str(row["error"] or "")
        if row["state"] == "queued":
            left = f"behind {', '.join(row['waits_for'])}"  # type: ignore[arg-type]
        typer.echo(f"{row['name']:<40} {row['state']:<9} {row['stage']:<13} {steps:<14} {left}".rstrip())


@app.command()
@_mistakes_in_one_line
def download(name: Annotated[str, typer.Argument(help="cifar10, cifar100 or svhn.")]) -> None:
    """Fetches a data set through torchvision into the data root (SDVIZ_DATA, else data/)."""
    from . import data

    with _checking():
        typer.echo(f"{name} is in {data.download(name)}")


# --------------------------------------------------------------------------------------------------
# Outliers
# --------------------------------------------------------------------------------------------------


@app.command()
@_mistakes_in_one_line
def generate(
    bundle: Annotated[Path, typer.Option(help="A bundle's folder.")],
    images: Annotated[
        str, typer.Option(metavar="SRC", help="NAME, NAME:SPLIT (as shapes:test), folder:PATH or parquet:PATH.")
    ],
    out: Annotated[Path, typer.Option(help="Where the PNGs and manifest.csv go.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many images, a fixed random choice.")
    ] = None,
    start_timestep: Annotated[
        int | None,
        typer.Option("--start-timestep", "-S", help="Noising steps; this and w, K: None is the bundle's."),
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option("--guidance-scale", "-w", help="0 is conditional, above exaggerates.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Network calls from x_S to x_0.")] = None,
    solver: Annotated[str | None, typer.Option(help="ddpm, ddim or dpmpp_2m.")] = None,
    eta: Annotated[float, typer.Option(help="DDIM's share of fresh noise, 0..1.")] = 0.0,
    interval: Annotated[
        str | None, typer.Option(metavar="LO,HI", help="Guide only where sigma lies between these.")
    ] = None,
    target: Annotated[
        str, typer.Option(help="random: a wrong class each; right: the own class, the control; or a class.")
    ] = "random",
    seed: Annotated[int, typer.Option(help="Of noise and wrong classes.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave undecodable pictures out.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="The result as one JSON object.")] = False,
) -> None:
    """Makes an outlier of each image; called again it makes only what is missing."""
    from .bundle import Bundle
    from .data import DataError
    from .pipeline import PipelineError, generate_folder

    with _checking():
        span = _interval(interval)
        maker = Bundle.load(bundle, device)
        recipe = maker.recipe(start_timestep, guidance_scale, steps, solver, eta, span, seed)
        condition = _target(maker, target)
        sources = _load_images(images, limit, skip_bad, maker.manifest.image_size)
    with _progress_bar() as show:
        started = time.monotonic()

        def on_progress(done: float, to_do: int) -> None:
            share = done / to_do
            eta_sec = (time.monotonic() - started) * (1 - share) / share if share else None
            show(f"outliers {int(done)}/{to_do}", share, eta_sec)

        try:
            result = generate_folder(maker, sources, out, recipe, condition, batch_size, on_progress)
        except (DataError, PipelineError) as error:
            raise _Mistake(str(error)) from error
        except KeyboardInterrupt:
            _fail(f"interrupted; the same command goes on with {out}", EXIT_STOPPED)
    if json_:
        figures = {
            "out": str(out),
            "manifest": str(result.manifest),
            "there": result.there,
            "made": result.made,
        }
        typer.echo(json.dumps(figures | {"bundle_sha256": maker.hash}))
    else:
        typer.echo(f"{result.there} there, {result.made} made: {result.manifest}")


def _load_images(source: str, limit: int | None, skip_bad: bool, size_px: int) -> ImageSet:
    from . import data
    from .pipeline import absolute_source

    name, split = data.parse_source(source)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = data.load(absolute_source(name), split, limit, 0, "skip" if skip_bad else "raise", size_px)
    for warning in caught:
        typer.echo(f"warning: {' '.join(str(warning.message).split())}", err=True)
    return images


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


# --------------------------------------------------------------------------------------------------
# Progress on stderr
# --------------------------------------------------------------------------------------------------

Show = Callable[[str, float, float | None], None]


@contextmanager
def _progress_bar() -> Iterator[Show]:
    """A bar with an ETA on a terminal, else a plain line every few seconds.

    Yields:
        (what is done, its share 0..1, seconds left) -> None.
    """
    if not sys.stderr.isatty():
        last = -PLAIN_LINE_EVERY_SEC

        def show_line(text: str, share: float, eta_sec: float | None) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= PLAIN_LINE_EVERY_SEC or share >= 1:
                last = now
                left = "" if eta_sec is None else f", {_duration(eta_sec)} left"
                typer.echo(f"{text}{left}", err=True)

        yield show_line
        return

    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("starting", total=1.0, left="")

        def show_bar(text: str, share: float, eta_sec: float | None) -> None:
            left = "" if eta_sec is None else f"{_duration(eta_sec)} left"
            bars.update(task, description=text, completed=share, left=left)

        yield show_bar


def _duration(seconds: float) -> str:
    """As in 1:02:03 or 2:03."""
    minutes, sec = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{sec:02d}" if hours else f"{minutes}:{sec:02d}"
