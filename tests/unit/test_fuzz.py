"""The campaign of `bench/fuzz.py`: a thousand of its cases, and that it sees a reader that is broken."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import fuzz
from bench.fuzzing import sets, tables
from bench.fuzzing.cases import Kind
from sdviz import data
from sdviz.analysis.imports import ImportProblem

SEED = 2026
N_CASES = 1_000


def test_a_thousand_cases_are_read_or_refused() -> None:
    lines: list[str] = []
    counts = fuzz.campaign(N_CASES, SEED, list(fuzz.KINDS), None, lines.append)
    assert not lines
    total = sum(counts.values(), Counter[str]())
    assert total.total() == N_CASES and total["read"] + total["refused"] == N_CASES
    # neither all sound nor all damaged, in any kind
    assert all(found["read"] and found["refused"] for found in counts.values()), counts
    assert total["read"] > N_CASES / 4


def outcomes(kind: str, n: int = 12) -> Counter[str]:
    return fuzz.campaign(n, SEED, [kind], None, lambda line: None)[kind]


def test_a_reader_that_gives_other_values_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: str, **options: object) -> data.ImageSet:
        found = read(*args, **options)
        return replace(found, images=255 - found.images)

    read = data.load
    monkeypatch.setattr(data, "load", load)
    for kind in ("NumPy", "Parquet", "folder", "list of pictures"):
        found = outcomes(kind)
        assert found["wrong"] and not found["read"], kind


def test_a_reader_that_exchanges_labels_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    read = data.load

    def load(*args: str, **options: object) -> data.ImageSet:
        found = read(*args, **options)
        return replace(found, labels=np.zeros_like(found.labels), class_names=("other",))

    monkeypatch.setattr(data, "load", load)
    assert outcomes("NumPy")["wrong"] and outcomes("Parquet")["wrong"]


@pytest.mark.parametrize(
    "error", [KeyError("x"), ImportProblem("x"), RecursionError(), OSError(2, "no such file"), MemoryError()]
)
def test_another_error_than_its_own_is_raw(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def read(path: Path) -> None:
        raise error

    monkeypatch.setattr(tables, "read_given", read)
    expected = "refused" if isinstance(error, ImportProblem) else "raw"
    assert outcomes("import") == {expected: 12}


@pytest.mark.parametrize("line", ["x" * 301, "two\nlines", "an \x1b[31m escape", "\udce9"])
def test_a_line_that_no_page_should_show_is_raw(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    class Mistake(Exception):
        pass

    def run(rng: object, folder: Path) -> None:
        raise Mistake(line)

    monkeypatch.setitem(fuzz.KINDS, "import", Kind(run, (Mistake,)))
    assert outcomes("import") == {"raw": 12}


def test_a_reader_without_end_is_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, split: str) -> None:
        while True:
            pass

    monkeypatch.setattr(sets, "_load", load)
    monkeypatch.setattr(fuzz, "LIMIT_SEC", 0.1)
    assert outcomes("Parquet", 6)["hang"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Makes the kind "import" one that always reads; gives how often it ran."""
    seen: list[Path] = []
    monkeypatch.setitem(fuzz.KINDS, "import", Kind(lambda rng, folder: seen.append(folder), ()))
    return lambda: len(seen)


def test_finished_parts_are_not_run_again(tmp_path: Path, calls: Callable[[], int]) -> None:
    state = tmp_path / "state.json"
    fuzz.campaign(fuzz.PART, 0, ["import"], state, print)
    assert calls() == fuzz.PART
    counts = fuzz.campaign(fuzz.PART + 5, 0, ["import"], state, print)
    assert calls() == fuzz.PART + 5 and counts["import"] == {"read": fuzz.PART + 5}


def test_the_exit_code_tells(
    monkeypatch: pytest.MonkeyPatch, calls: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--cases", "3", "--kind", "import"])
    assert fuzz.main() == 0
    assert "| import | 3 | 3 | 0 | 0 | 0 | 0 |" in capsys.readouterr().out

    def run(rng: object, folder: Path) -> None:
        raise KeyError("a key")

    monkeypatch.setitem(fuzz.KINDS, "import", Kind(run, ()))
    assert fuzz.main() == 1
    assert "import, case 2, seed 0: raw: KeyError" in capsys.readouterr().out
