"""What all commands share: the app, one-line errors, progress bars, loading of images."""

from __future__ import annotations

import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from typer.core import TyperGroup

from ..text import message_line

if TYPE_CHECKING:
    from ..data import ImageSet

EXIT_FAILED = 1
EXIT_MISTAKE = 2
EXIT_STOPPED = 128 + signal.SIGINT
PLAIN_LINE_EVERY_SEC = 10.0

# options that several commands have
Source = Annotated[
    str, typer.Option(metavar="SRC", help="Images: NAME, NAME:SPLIT (shapes:test) or KIND:PATH (folder:pets).")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use at most this many images: a fixed random choice.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:N or mps.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be decoded.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]

# the base class of usage errors: click's own, or typer's copy of it
_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])


class _OneLineGroup(TyperGroup):
    """The group of commands: an error of the user or the system is one line on stderr and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401
        try:
            code = super().main(*args, **(extra | {"standalone_mode": False}))
        except _UsageError as error:
            message = error.format_message()  # type: ignore[attr-defined]
            typer.echo(f"error: {message_line(message).rstrip('.')}; see --help", err=True)
            code = EXIT_MISTAKE
        sys.exit(code or 0)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        try:
            return super().invoke(ctx)
        except Mistake as error:
            fail(str(error), EXIT_MISTAKE)
        except ValueError as error:
            from ..config.nodes import ConfigError

            if not isinstance(error, ConfigError):
                raise
            fail(str(error), EXIT_MISTAKE)
        except BrokenPipeError:
            raise  # stdout was closed, for example by `head`; typer then ends quietly
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), EXIT_FAILED)
        except KeyboardInterrupt:
            fail("interrupted", EXIT_STOPPED)


app = typer.Typer(
    name="sdviz",
    help="Generate semantic-discrepant (SD) outliers, train OOD detectors with them, score images.",
    cls=_OneLineGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Mistake(Exception):
    """A mistake of the user; the message is one line."""


@contextmanager
def checking() -> Iterator[None]:
    """Turns a ValueError into a Mistake; for code that checks the user's input."""
    try:
        yield
    except ValueError as error:
        raise Mistake(str(error)) from error


def fail(message: str, code: int) -> NoReturn:
    """Prints the message as one line on stderr and exits with the code."""
    typer.echo(f"error: {message_line(message)}", err=True)
    raise typer.Exit(code)


def load_images(source: str, limit: int | None, skip_bad: bool, reading: dict[str, Any]) -> ImageSet:
    """Loads the images of `Source`, with warnings on stderr; DataError if they cannot be read.

    `reading` is that of a bundle's manifest.
    """
    from .. import data
    from ..data.roles import absolute_source

    name, split = data.parse_source(source)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = data.load(
            absolute_source(name), split, limit, on_error="skip" if skip_bad else "raise", **reading
        )
    for line in (*(message_line(warning.message) for warning in caught), *images.found.warnings):
        typer.echo(f"warning: {line}", err=True)
    return images


Show = Callable[[str, float, float | None], None]


@contextmanager
def counting_bar() -> Iterator[Callable[[str, float, float], None]]:
    """Yields show(text, done, total): a progress bar with the time left at the average pace so far."""
    started = time.monotonic()
    with progress_bar() as show:

        def show_count(text: str, done: float, total: float) -> None:
            share = done / total if total else 1.0
            left = (time.monotonic() - started) * (1 - share) / share if share else None
            show(text, share, left)

        yield show_count


@contextmanager
def progress_bar() -> Iterator[Show]:
    """Yields show(text, share 0..1, seconds left): a bar on a terminal, else a line every ten seconds."""
    from ..runs.status import duration

    if not sys.stderr.isatty():
        last = -PLAIN_LINE_EVERY_SEC

        def show_line(text: str, share: float, eta_sec: float | None) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= PLAIN_LINE_EVERY_SEC or share >= 1:
                last = now
                left = "" if eta_sec is None else f", {duration(eta_sec)} left"
                typer.echo(f"{text}{left}", err=True)

        yield show_line
        return

    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars

    text, left = TextColumn("{task.description}"), TextColumn("{task.fields[left]}")
    with Bars(text, BarColumn(), TaskProgressColumn(), left, console=Console(stderr=True)) as bars:
        task = bars.add_task("starting", total=1.0, left="")

        def show_bar(text: str, share: float, eta_sec: float | None) -> None:
            left = "" if eta_sec is None else f"{duration(eta_sec)} left"
            bars.update(task, description=text, completed=share, left=left)

        yield show_bar
