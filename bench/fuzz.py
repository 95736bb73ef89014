"""Drives the readers of files and texts from others with mutated inputs, and compares what they read.

Run as `python bench/fuzz.py [--cases N] [--seed S] [--kind KIND ...] [--state FILE]`. A case depends only on
seed, kind and index; names of sets also mean what the machine has. Each has a limit of processor time. With
--state the counts of each part are kept in a file, and a call after an interruption goes on with the next part.

A case is
    read      accepted, and no value differs from that of another reading of the same bytes,
    refused   ended by the reader's own error, in one printable line of at most 300 characters,
    raw       ended by any other error, or by a line that is longer or has control characters,
    wrong     accepted with another value,
    hang      not done within the limit.
The exit code is 1 if a case is raw, wrong or a hang.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.fuzzing import bundles, folders, pictures, sets, tables, texts
from bench.fuzzing.cases import Hang, Kind, Wrong
from sdviz.files import write_atomically
from sdviz.text import MAX_LINE

LIMIT_SEC = 20.0
PART = 200
OUTCOMES = ("read", "refused", "raw", "wrong", "hang")
KINDS: dict[str, Kind] = {
    **texts.KINDS, **pictures.KINDS, **folders.KINDS, **sets.KINDS, **tables.KINDS, **bundles.KINDS
}  # fmt: skip


@contextmanager
def limited(sec: float) -> Iterator[None]:
    """Raises Hang in the block after so many seconds of processor time."""

    def stop(signal_number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, sec)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def run_case(kind: str, seed: int, index: int, folder: Path) -> tuple[str, str]:
    """Runs one case in an empty folder; gives its outcome and one line about it."""
    rng = random.Random(f"{seed} {kind} {index}")
    try:
        with limited(LIMIT_SEC), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pictures that are left out
            KINDS[kind].run(rng, folder)
    except Hang:
        return "hang", f"more than {LIMIT_SEC:g} s"
    except Wrong as error:
        return "wrong", str(error)
    except KINDS[kind].own as error:
        text = str(error)
        if len(text) <= MAX_LINE and text.isprintable():
            return "refused", text
        return "raw", f"{len(text)} characters: {text[:100]!r}"
    except Exception as error:
        return "raw", f"{type(error).__name__}: {str(error)[:200]!r}"
    return "read", ""


def campaign(
    n_cases: int, seed: int, kinds: list[str], state: Path | None, say: Callable[[str], None]
) -> dict[str, Counter[str]]:
    """Runs the cases in parts, spread evenly over the kinds; gives the counts by kind and outcome."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    done: dict[str, Any] = {}
    if state is not None and state.is_file():
        done = json.loads(state.read_text("utf-8"))
    for first in range(0, n_cases, PART):
        part = f"{seed} {first} {min(first + PART, n_cases)} {' '.join(kinds)}"
        if part not in done:
            found = {kind: Counter[str]() for kind in kinds}
            for i in range(first, min(first + PART, n_cases)):
                kind = kinds[i % len(kinds)]
                with tempfile.TemporaryDirectory() as name:
                    outcome, line = run_case(kind, seed, i, Path(name))
                found[kind][outcome] += 1
                if outcome not in ("read", "refused"):
                    say(f"{kind}, case {i}, seed {seed}: {outcome}: {line}")
            done[part] = found
            if state is not None:
                write_atomically(state, json.dumps(done))
        for kind, outcomes in done[part].items():
            counts[kind].update(outcomes)
    return counts


def table_of(counts: dict[str, Counter[str]]) -> str:
    """The counts as Markdown."""
    rows = [*counts.items(), ("all", sum(counts.values(), Counter()))]
    lines = [f"| reader | cases | {' | '.join(OUTCOMES)} |", "|---|" + "--:|" * (len(OUTCOMES) + 1)]
    for kind, found in rows:
        numbers = [sum(found.values()), *(found[one] for one in OUTCOMES)]
        lines.append(f"| {kind} | {' | '.join(f'{n:,}' for n in numbers)} |")
    return "\n".join(lines)


def main() -> int:
    """Runs the campaign that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--state", type=Path, help="keeps the counts of finished parts, to go on from")
    asked = parser.parse_args()
    started = time.perf_counter()
    counts = campaign(asked.cases, asked.seed, asked.kind or list(KINDS), asked.state, print)
    print(f"\n{table_of(counts)}\n\n{time.perf_counter() - started:,.0f} s, seed {asked.seed}")
    total = sum(counts.values(), Counter[str]())
    return int(any(total[one] for one in ("raw", "wrong", "hang")))


if __name__ == "__main__":
    sys.exit(main())
