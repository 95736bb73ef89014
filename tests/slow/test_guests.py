"""Guests change nothing on disk, whatever they send over Streamlit's raw protocol."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from sdviz import runs
from sdviz.analysis.cluster_names import read_names
from sdviz.analysis.notes import NoteBook
from sdviz.bundle.manifest import read_manifest
from sdviz.config.reading import load_config
from sdviz.runs.status import identity, write_status
from tests.cut_bundle import save_cut_bundle
from tests.patience import patience
from tests.serving import ROOT, Visit, serve
from tests.tiny_bundle import save_tiny_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ALIASES = "[&a0 [x,x,x,x,x,x,x,x,x]" + "".join(f",&a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 8))
FAILED, WORKING = "00001-shapes-failed", "00002-shapes-working"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A bundle, one without its set, a run that failed and one at work, a note and a name."""
    for name in ("checkpoints", "runs", "data"):
        (tmp_path / name).mkdir()
    save_cut_bundle(tmp_path / "checkpoints" / "full")
    save_tiny_bundle(tmp_path / "checkpoints" / "absent", dataset="cifar10")
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"])
    for profile, fields in (
        ("failed", {"state": "failed", "error": "no more"}),
        ("working", {"state": "running", "devices": ("cpu",), **identity(psutil.Process(process.pid))}),
    ):
        run = runs.create(load_config(ROOT / "configs/shapes-tiny.yaml", ["device=cpu", f"profile={profile}"]))
        write_status(run.status_file, replace(run.status(), **fields))  # type: ignore[arg-type]
    yield tmp_path
    process.kill()
    process.wait()


def on_disk(home: Path) -> dict[str, str]:
    """Every file and folder but the server's log, with the hash of its content."""
    paths = [path for path in home.rglob("*") if path.name != "log.txt"]
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in paths
    }


def scored_id(home: Path) -> str:
    return str(pq.read_table(home / "checkpoints/full/scores.parquet")["id"][0])


def write_keys(visit: Visit, start: str) -> list[str]:
    return [key for key in visit.widgets if key.startswith(start)]


# page, its address, what is set there: keys by their beginning, and values
Act = tuple[str, dict[str, str], dict[str, object]]


def acts(home: Path) -> list[Act]:
    """Every write that pages offer. A key stands for itself, or with * for the one that begins so."""
    one = scored_id(home)
    return [
        ("Failures", {"bundle": "full", "sample": one}, {"failures_verdict_*": ["label wrong"]}),
        ("Failures", {"bundle": "full", "sample": one}, {"failures_note_*": "seen by me"}),
        ("Pseudo_labels", {"bundle": "full", "cluster": "1"}, {"pseudo_labels_name": "mine"}),
        ("Training", {"training": "Watch", "run": FAILED}, {"resume": None}),
        ("Training", {"training": "Watch", "run": WORKING}, {"stop": None}),
        ("Training", {"training": "Watch", "run": FAILED}, {"stop": None}),
        ("Training", {"training": "Watch", "run": FAILED}, {"delete": None}),
        ("Training", {"training": "New run", "profile": "shapes-tiny"}, {"start": None}),
        ("Outlier_lab", {"bundle": "absent"}, {"download_set": None}),
    ]


def done(home: Path) -> list[Callable[[], bool]]:
    """For each act but the download, whether it is seen on disk."""
    root, one = home / "runs", scored_id(home)
    bundle_hash = read_manifest(home / "checkpoints/full")[1]
    book = NoteBook(root / "notes.sqlite")

    def state(name: str) -> str:
        return runs.Run(root / name).status().state

    return [
        lambda: book.read(bundle_hash)[one].verdict == "label wrong",
        lambda: book.read(bundle_hash)[one].text == "seen by me",
        lambda: read_names(root / "cluster_names.json", bundle_hash) == {1: "mine"},
        lambda: state(FAILED) in ("queued", "running"),
        lambda: state(WORKING) in ("cancelled", "killed"),
        lambda: state(FAILED) in ("cancelled", "killed"),
        lambda: not (root / FAILED).exists(),
        lambda: any(path.name.startswith("00003-") for path in root.iterdir()),
    ]


def states_of(visit: Visit, wanted: dict[str, object]) -> dict[str, object]:
    """The wanted values by widget id, where the visit has seen the widget."""
    found: dict[str, object] = {}
    for key, value in wanted.items():
        keys = write_keys(visit, key[:-1]) if key.endswith("*") else [key] if key in visit.widgets else []
        found |= {visit.widgets[one]: value for one in keys}
    return found


def test_guests_change_nothing_and_the_local_user_everything(home: Path) -> None:
    wanted = acts(home)
    forged: list[dict[str, object]] = []
    # 1. pages as the local user sees them, for the ids of all widgets; nothing is written yet
    with serve(home, {"SDVIZ_ALLOW_REMOTE_RUNS": ""}) as address:
        for page, query, values in wanted:
            with Visit(address) as look:
                look.open(page, **query)
                forged.append(states_of(look, values))
                assert forged[-1], f"{page} has no {list(values)}: {look.errors}"
        before = on_disk(home)
        # 2. the same values as a guest behind a proxy
        told = as_guest(address, {"X-Forwarded-For": "203.0.113.7"}, wanted, forged)
        assert "Visitors from other machines can only watch" in told
        assert on_disk(home) == before
    # 3. and where the server is read-only
    with serve(home, {"SDVIZ_READ_ONLY": "1"}) as address:
        told = as_guest(address, {}, wanted, forged)
        assert "Read-only" in told
        assert on_disk(home) == before
        paths_are_answered_alike(address)
    # 4. the local user's own are seen on disk: the same messages can write
    with serve(home) as address:
        for (page, query, _), states, is_done in zip(wanted[:-1], forged, done(home), strict=False):
            with Visit(address) as local:
                local.open(page, **query)
                local.forge(states)
                ends = time.monotonic() + patience(30)
                while not is_done() and time.monotonic() < ends:
                    time.sleep(0.2)
                assert is_done(), f"{page}: {query}: {local.errors}"
        for run in runs.list_runs():
            if run.status().is_active:
                runs.stop(run)


def as_guest(address: str, headers: dict[str, str], wanted: list[Act], forged: list[dict[str, object]]) -> str:
    """Sends every write with the ids that the local user has and those the guest is shown; gives all texts."""
    texts = []
    for (page, query, values), states in zip(wanted, forged, strict=True):
        with Visit(address, headers) as visit:
            visit.open(page, **query)
            texts += visit.texts
            for _ in range(2):  # what a run has drawn is answered in the next
                visit.forge(states | states_of(visit, values))
                texts += visit.texts
            assert not visit.errors, visit.errors
    # a configuration with aliases of aliases, for a form that is not there
    with Visit(address, headers) as visit:
        started = time.monotonic()
        visit.open("Training", training="New run", profile="shapes-tiny")
        assert not {"profile", "start", "title shapes-tiny", "more shapes-tiny"} & visit.widgets.keys()
        visit.forge({"$$ID-0-more shapes-tiny": f"evaluation.near={ALIASES}]"})
        assert time.monotonic() - started < patience(30) and not visit.errors
    return "\n".join(texts)


def paths_are_answered_alike(address: str) -> None:
    """A link with a path gets the same words whether the path exists or not."""
    for page, key in (
        ("Outlier_lab", "data"),
        ("Outlier_lab", "bundle"),
        ("Results", "bundle"),
        ("Sample_votes", "sample"),
        ("Failures", "sample"),
        ("Training", "run"),
        ("Training", "profile"),
    ):
        for there, not_there in (("folder:/etc/ssl", "folder:/etc/ssx"), ("/etc/passwd", "/etc/passwx")):
            answers = []
            for path in (there, not_there):
                with Visit(address) as visit:
                    visit.open(page, **{key: path})
                    assert not visit.errors, visit.errors
                    texts = [text for text in visit.texts if path in text]
                    answers.append([text.replace(path, "PATH") for text in texts])
            assert answers[0] == answers[1], (page, key)


def test_a_visit_from_another_address_of_the_machine_is_a_guest(home: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))  # sends nothing; chooses the address that others see
            own = s.getsockname()[0]
        except OSError:
            pytest.skip("this machine has no address but its own")
    with serve(home, None, "--server.address", "0.0.0.0") as address:
        with Visit(address) as local, Visit(address.replace("localhost", own)) as guest:
            for visit in (local, guest):
                visit.open("Training", training="New run", profile="shapes-tiny")
        assert "start" in local.widgets and "start" not in guest.widgets
        assert any("Visitors from other machines can only watch" in text for text in guest.texts)


def test_a_page_of_the_web_that_names_this_machine_is_a_guest(home: Path) -> None:
    with serve(home) as address:
        port = address.rpartition(":")[2]
        with Visit(address, {"Origin": f"http://evil.example:{port}"}, "evil.example") as visit:
            visit.open("Training", training="New run", profile="shapes-tiny")
        assert "start" not in visit.widgets
