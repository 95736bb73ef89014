"""Makes, finds, lists and deletes the folders of runs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ..files import parse_json, write_atomically
from .status import RunError, Status, read_status, write_status

if TYPE_CHECKING:
    from ..config.tree import RunConfig


@dataclass(frozen=True)
class Run:
    """The folder of one run."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def bundle(self) -> Path:
        """The bundle's folder; exists once the run is done."""
        return self.path / "bundle"

    @property
    def status_file(self) -> Path:
        """Its status.json."""
        return self.path / "status.json"

    def config(self) -> RunConfig:
        """The resolved configuration."""
        from ..config.reading import load_config

        return load_config(self.path / "config.yaml")

    def status(self) -> Status:
        """Reads status.json and checks that its process lives."""
        return read_status(self.status_file)

    def stats(self) -> list[dict[str, Any]]:
        """The lines of stats.jsonl: stage, step, total, measurements, and the training if it has a name.

        Skips unfinished lines of killed processes. Where a resumed run repeated steps, the later lines count;
        lines of one step with different measurements all count.
        """
        file = self.path / "stats.jsonl"
        lines: list[dict[str, Any]] = []
        for text in file.read_text("utf-8", errors="replace").splitlines() if file.is_file() else []:
            try:
                line = parse_json(text)
                part, step = _part(line), line["step"] + 0
                hash(part)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
            # a last measurement with another total does not count as a repeated step
            beside = []
            while lines and _part(lines[-1]) == part and lines[-1]["step"] >= step:
                last = lines.pop()
                if last["step"] == step and last.keys() != line.keys():
                    beside.append(last)
            lines += [*beside[::-1], line]
        return lines

    def log(self, text: str) -> None:
        """Appends a line to log.txt, with the time in UTC."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n")


def runs_root() -> Path:
    """The folder of all runs: SDVIZ_RUNS, else `runs` in the working directory; may change between calls."""
    return Path(os.environ.get("SDVIZ_RUNS") or "runs")


@contextmanager
def ledger() -> Iterator[None]:
    """A lock, held while a run is numbered, started, queued or deleted."""
    root = runs_root()
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        yield


def create(config: RunConfig) -> Run:
    """Makes the folder of a new run without starting it; under `accelerate launch`, one for all processes."""
    from ..pipeline import from_main, is_main_process

    path = str(_make_folder(config)) if is_main_process() else ""
    return Run(Path(from_main(path, config.device)))


def _make_folder(config: RunConfig) -> Path:
    from ..config.reading import to_yaml
    from ..data.roles import absolute_source
    from ..pipeline import config_hash

    root = runs_root()
    # the run may be resumed from another directory
    source = config.data.model_copy(update={"id": absolute_source(config.data.id)})
    config = config.model_copy(update={"data": source})
    name = f"{_slug(Path(config.data.id).name)}-{_slug(config.profile)}"
    with ledger():
        taken = [int(m[1]) for p in root.iterdir() if (m := re.match(r"\.?([0-9]+)-", p.name))]
        run = Run(root / f"{max(taken, default=0) + 1:05d}-{name}")
        run.path.mkdir()
    write_atomically(run.path / "config.yaml", to_yaml(config))
    write_status(run.status_file, Status("new", config_hash(config)))
    return run.path


def list_runs() -> list[Run]:
    """All runs, by number, without links and folders that are not runs."""
    root = runs_root()
    if not root.is_dir():
        return []
    found = [Run(p) for p in root.iterdir() if _is_run(p)]
    return sorted(found, key=lambda run: (int(run.name.partition("-")[0]), run.name))


def find(text: str) -> Run:
    """Finds a run by number, name or path; RunError if it is not in the folder of runs."""
    root = runs_root()
    if text.isdecimal():
        matching = [run for run in list_runs() if int(run.name.partition("-")[0]) == int(text)]
        if matching:
            return matching[0]
    try:
        for path in (root / text, Path(text)):
            if path.parent.resolve() == root.resolve() and _is_run(path):
                return Run(root / path.name)
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        pass
    known = ", ".join(run.name for run in list_runs()[-3:])
    raise RunError(f"no run {text!r} in {root}{f' (the last ones: {known})' if known else ', which has none'}")


def check_own(run: Run) -> None:
    """Raises RunError for a link, a folder elsewhere, and a folder that is not a run."""
    if run.path.parent.resolve() != runs_root().resolve() or not _is_run(run.path):
        raise RunError(f"{run.path} is not a run in {runs_root()}")


def delete(run: Run) -> None:
    """Deletes a run's folder, but no targets of links in it; RunError if it is active or not a run."""
    check_own(run)
    with ledger():
        try:
            state = run.status().state
        except RunError:  # a damaged run may be deleted
            state = "failed"
        if state in ("queued", "running"):
            raise RunError(f"{run.name} is {state}: stop it first")
        # renamed first: a name with a dot is not listed, and its number is not used again
        doomed = run.path.with_name(f".{run.name}.deleted")
        os.rename(run.path, doomed)
    try:
        shutil.rmtree(doomed)
    except OSError as error:
        raise RunError(f"{doomed} could not be removed: {error.strerror or error}") from error


def _part(line: dict[str, Any]) -> tuple[str, str | None, int | None]:
    return line["stage"], line.get("training"), line.get("total")


def _is_run(path: Path) -> bool:
    return (
        re.match(r"[0-9]+-", path.name) is not None
        and path.is_dir()
        and not path.is_symlink()
        and (path / "config.yaml").is_file()
    )


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text)[:40].strip("-") or "x"
