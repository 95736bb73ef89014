from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from sdviz import runs
from sdviz.config.reading import load_config
from sdviz.runs import Run, RunError
from sdviz.runs.status import identity
from sdviz.text import message_line


def change_status(run: Run, **changed: object) -> None:
    before = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps(before | changed))


def test_running_is_what_the_file_says_and_a_living_process(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    me = psutil.Process()
    change_status(run, state="running", pid=me.pid, process_started=me.create_time())
    assert run.status().state == "running"
    # the number was given to another process since
    change_status(run, process_started=me.create_time() - 60)
    assert run.status().state != "running"
    assert run.status().state == "killed"
    # no such process, or none named
    change_status(run, process_started=me.create_time(), pid=2**22 + 1)
    assert run.status().state == "killed"
    change_status(run, pid=None)
    assert run.status().state == "killed"
    # the process lives, but says that it is not at work
    change_status(run, state="cancelled", pid=me.pid)
    assert run.status().state == "cancelled"


@pytest.mark.parametrize("state", ["running", "queued"])
def test_a_process_of_another_machine_or_another_start_of_this_one_does_not_count(
    root: Path, config_path: Path, state: str
) -> None:
    run = runs.create(load_config(config_path))
    me = identity(psutil.Process())
    change_status(run, **me | {"state": state})
    assert run.status().state == state
    change_status(run, **me | {"host": "gpu-box"})
    assert run.status().state == "killed"
    assert run.status().error == "its process was on the machine gpu-box, which cannot be seen from here"
    change_status(run, **me | {"boot": "before"})
    assert run.status().state == "killed"
    assert run.status().error == "the machine was restarted while it ran"
    # such a run is not stopped, whatever runs here under that number
    with pytest.raises(RunError, match="is not running: killed"):
        runs.stop(run)


def test_a_run_of_an_older_format_is_refused_in_one_line(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    tree = json.loads(run.status_file.read_text())
    del tree["format_version"]
    run.status_file.write_text(json.dumps(tree))
    line = message_line(
        f"{run.path}: made by an older sdviz (format 1, this one reads format 2); make it again with:"
        f" python -m sdviz run {run.path / 'config.yaml'}"
    )
    for refused in (run.status, lambda: runs.execute(run), lambda: runs.launch(run), lambda: runs.stop(run)):
        with pytest.raises(RunError) as error:
            refused()
        assert str(error.value) == line
    runs.delete(run)
    assert not run.path.exists()


def test_a_process_that_has_died_is_not_running_before_it_is_buried(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        started = psutil.Process(child).create_time()
        while psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        change_status(run, state="running", pid=child, process_started=started)
        assert run.status().state == "killed"
    finally:
        os.waitpid(child, 0)


def test_a_damaged_status_is_named(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    for text in ("{", "[]", "{}", '{"state": "running"}', '{"state": "asleep", "config_sha256": ""}'):
        (run.path / "status.json").write_text(text)
        with pytest.raises(RunError, match="status.json is damaged"):
            run.status()
    (run.path / "status.json").unlink()
    with pytest.raises(RunError, match="no status.json"):
        run.status()


def test_a_status_of_a_later_version_can_be_read(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    change_status(run, colour="green")
    assert run.status().state == "new"


HOSTILE = [
    "[" * 100_000,
    '{"a":' * 5_000,
    "[]",
    '"text"',
    "9" * 5_000,
    json.dumps({"state": "done", "config_sha256": "a", "format_version": 2, "eta_sec": 1e300}),
    json.dumps({"state": "running", "config_sha256": "a", "format_version": 2, "pid": 2**62}),
    json.dumps({"state": "done", "config_sha256": "a", "format_version": 2, "updated": float("nan")}),
    json.dumps({"state": "done", "config_sha256": "a", "format_version": 2, "stage_sec": {"a": float("inf")}}),
    json.dumps({"state": "done", "config_sha256": "a", "format_version": 2, "total": -1}),
    json.dumps({"state": "done", "config_sha256": "a", "format_version": {"a": 1}}),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_status_is_one_line_and_hides_no_other_run(root: Path, config_path: Path, text: str) -> None:
    good, bad = (runs.create(load_config(config_path)) for _ in range(2))
    (bad.path / "status.json").write_text(text)
    with pytest.raises(RunError, match="status.json is damaged"):
        bad.status()
    assert [one.name for one in runs.list_runs()] == [good.name, bad.name]
    assert good.status().state == "new"


def test_text_of_a_status_is_one_printable_line(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    change_status(run, stage="a\nb\x1b[31m", error="x" * 5_000, devices=["cpu\x00"])
    status = run.status()
    assert (status.stage, status.devices) == ("a b [31m", ("cpu",))
    assert status.error is not None and len(status.error) == 300
