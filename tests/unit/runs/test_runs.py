from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from sdviz import runs
from sdviz.bundle import Bundle
from sdviz.config.reading import load_config
from sdviz.files import leftovers
from sdviz.pipeline import Progress
from sdviz.runs import Run, RunError, Status
from sdviz.runs.status import identity


def write_status(run: Run, **changed: object) -> None:
    before = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps(before | changed))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- folders --------------------------------------------------------------------------------------


def test_folders_are_numbered_and_named(root: Path, config_path: Path) -> None:
    config = load_config(config_path)
    assert runs.list_runs() == []
    names = [
        runs.create(config).name,
        runs.create(load_config(config_path, ["data.id=shapes", "profile=Big One/../x"])).name,
        runs.create(load_config(config_path, ["data.id=folder:../../Ümläut 鳥", "profile='...'"])).name,
    ]
    assert names == ["00001-pictures-tiny", "00002-shapes-Big-One-x", "00003-ml-ut-x"]
    assert sorted(p.name for p in root.iterdir() if p.is_dir()) == names
    assert [run.name for run in runs.list_runs()] == names
    (root / "00041-mine").mkdir()  # somebody's folder: its number is not given again, and it is no run
    assert runs.create(config).name == "00042-pictures-tiny"
    assert "00041-mine" not in [run.name for run in runs.list_runs()]


def test_a_new_run_has_its_resolved_configuration_and_is_not_running(root: Path, config_path: Path) -> None:
    config = load_config(config_path, ["diffusion.batch_size=5"])
    run = runs.create(config)
    assert run.config() == config
    status = run.status()
    assert (status.state, status.stage, status.pid, status.error) == ("new", "", None, None)
    assert run.status().state != "running"


def test_a_path_to_data_is_made_absolute(
    root: Path, config_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config_path.parent)
    run = runs.create(load_config(config_path, ["data.id=folder:pictures"]))
    assert run.config().data.id == f"folder:{config_path.parent}/pictures"


def test_a_run_is_found_by_number_name_and_path(
    root: Path, config_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (runs.create(load_config(config_path)) for _ in range(2))
    for text in (
        "2",
        "00002",
        second.name,
        str(second.path),
        f"{second.path}/",
        f"{root}/../runs/{second.name}",
    ):
        assert runs.find(text).path.resolve() == second.path.resolve()
    monkeypatch.chdir(root.parent)
    assert runs.find(f"runs/{first.name}").name == first.name


def test_a_run_outside_the_folder_or_behind_a_link_is_refused(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    outside = root.parent / "00009-outside"
    outside.mkdir()
    (outside / "config.yaml").touch()
    (root / "00007-link").symlink_to(outside)
    (root / "00008-empty").mkdir()
    hostile = [
        "../00009-outside",
        str(outside),
        "00007-link",
        "7",
        "9",
        "00008-empty",
        ".",
        "..",
        "",
        "/",
        "nix",
    ]
    for text in hostile:
        with pytest.raises(RunError, match=f"the last ones: {run.name}"):
            runs.find(text)
    assert runs.list_runs() == [run]


# --- status ---------------------------------------------------------------------------------------


def test_running_is_what_the_file_says_and_a_living_process(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    me = psutil.Process()
    write_status(run, state="running", pid=me.pid, process_started=me.create_time())
    assert run.status().state == "running"
    # the number was given to another process since
    write_status(run, process_started=me.create_time() - 60)
    assert run.status().state != "running"
    assert run.status().state == "killed"
    # no such process, or none named
    write_status(run, process_started=me.create_time(), pid=2**22 + 1)
    assert run.status().state == "killed"
    write_status(run, pid=None)
    assert run.status().state == "killed"
    # the process lives, but says that it is not at work
    write_status(run, state="cancelled", pid=me.pid)
    assert run.status().state == "cancelled"


@pytest.mark.parametrize("state", ["running", "queued"])
def test_a_process_of_another_machine_or_another_start_of_this_one_does_not_count(
    root: Path, config_path: Path, state: str
) -> None:
    run = runs.create(load_config(config_path))
    me = identity(psutil.Process())
    write_status(run, **me | {"state": state})
    assert run.status().state == state
    write_status(run, **me | {"host": "gpu-box"})
    assert run.status().state == "killed"
    assert run.status().error == "its process was on the machine gpu-box, which cannot be seen from here"
    write_status(run, **me | {"boot": "before"})
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
    line = (
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
        write_status(run, state="running", pid=child, process_started=started)
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
    write_status(run, colour="green")
    assert run.status().state == "new"


def test_stats_skip_a_cut_line_and_steps_done_twice(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    assert run.stats() == []
    lines = [("clusterer", 20, 1.0), ("diffusion", 20, 0.9), ("diffusion", 40, 0.8), ("diffusion", 60, 0.7)]
    text = "".join(json.dumps({"stage": s, "step": n, "loss": x}) + "\n" for s, n, x in lines)
    again = json.dumps({"stage": "diffusion", "step": 40, "loss": 0.5}) + "\n"
    (run.path / "stats.jsonl").write_text(text + '{"stage": "diff\n' + again + '5\n{}\n{"stage"')
    assert [(one["stage"], one["step"], one["loss"]) for one in run.stats()] == [
        ("clusterer", 20, 1.0),
        ("diffusion", 20, 0.9),
        ("diffusion", 40, 0.5),
    ]
    # a stage that ends with a measurement of its own keeps its curve
    end = json.dumps({"stage": "diffusion", "step": 1, "total": 1, "cluster_accuracy": 0.9})
    (run.path / "stats.jsonl").write_text(text + end + "\n")
    assert len(run.stats()) == 5


# --- work -----------------------------------------------------------------------------------------


def test_a_run_ends_in_a_bundle_and_its_files_say_how(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    seen: list[Status] = []
    shown: list[Progress] = []

    def on_progress(p: Progress) -> None:
        shown.append(p)
        seen.append(run.status())

    status = runs.execute(run, on_progress)
    assert status == run.status()
    assert (status.state, status.stage, status.error) == ("done", "bundle", None)
    assert Bundle.load(run.bundle, device="cpu").class_names == ("blue", "green", "red")

    # while it worked, the status was that of this process
    assert {s.state for s in seen} == {"running"}
    assert {s.pid for s in seen} == {os.getpid()}
    assert [(p.stage, p.step, p.total) for p in shown] == [
        ("clusterer", 20, 40),
        ("clusterer", 40, 40),
        ("diffusion", 20, 40),
        ("diffusion", 40, 40),
    ]
    assert [(s.stage, s.step) for s in seen] == [(p.stage, p.step) for p in shown]
    assert all(s.eta_sec is not None and s.eta_sec >= 0 for s in seen)
    stats = run.stats()
    assert [(line["stage"], line["step"]) for line in stats] == [(p.stage, p.step) for p in shown]
    assert all(line["loss"] > 0 for line in stats)
    log = (run.path / "log.txt").read_text()
    assert all(f"stage {stage}\n" in log for stage in ("pseudo_labels", "clusterer", "diffusion", "bundle"))
    assert not (run.path / ".reserve").exists()
    assert not leftovers(run.path)

    # once more: nothing is done again
    before = tree(run.bundle)
    shown.clear()
    assert runs.execute(run, on_progress).state == "done"
    assert not shown
    assert tree(run.bundle) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_within_a_step_and_resume_gives_the_same(
    root: Path, config_path: Path, number: signal.Signals
) -> None:
    config = load_config(config_path)
    whole = runs.create(config)
    assert runs.execute(whole).state == "done"

    run = runs.create(config)
    handler = signal.getsignal(number)

    def strike(p: Progress) -> None:
        if (p.stage, p.step) == ("diffusion", 20):
            os.kill(os.getpid(), number)

    status = runs.execute(run, strike)
    assert (status.state, status.stage, status.step, status.error) == ("cancelled", "diffusion", 20, None)
    assert run.status() == status
    assert not run.bundle.exists()
    assert signal.getsignal(number) is handler

    steps: list[tuple[str, int]] = []
    assert runs.execute(run, lambda p: steps.append((p.stage, p.step))).state == "done"
    assert steps == [("diffusion", 40)]
    assert "stage clusterer is complete already" in (run.path / "log.txt").read_text()
    files = [Bundle.load(one.bundle, device="cpu").manifest.files for one in (whole, run)]
    assert files[0] == files[1]


def test_a_stop_in_the_clusterer_starts_that_stage_again(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    status = runs.execute(run, lambda p: os.kill(os.getpid(), signal.SIGTERM))
    assert (status.state, status.stage) == ("cancelled", "clusterer")
    steps: list[tuple[str, int]] = []
    assert runs.execute(run, lambda p: steps.append((p.stage, p.step))).state == "done"
    assert steps[0] == ("clusterer", 20)


def test_a_nan_ends_as_failed_with_the_reason(root: Path, config_path: Path) -> None:
    overrides = ["diffusion.learning_rate=1e30", "diffusion.max_grad_norm=1e30", "diffusion.warmup_steps=0"]
    run = runs.create(load_config(config_path, overrides))
    status = runs.execute(run)
    assert (status.state, status.stage) == ("failed", "diffusion")
    assert status.error is not None
    assert "NaN or infinite" in status.error
    assert "try a learning rate below 1e+30" in status.error
    assert run.status() == status
    assert run.status().state != "running"
    log = (run.path / "log.txt").read_text()
    assert "Traceback" in log and status.error in log
    # what was finished stays
    assert (run.path / "clusterer.done.json").is_file()
    assert not (run.path / "diffusion.done.json").exists()


def test_an_exception_and_a_full_disk_end_as_failed(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))

    def raise_once(error: BaseException) -> Status:
        def on_progress(p: Progress) -> None:
            raise error

        return runs.execute(run, on_progress)

    for error, expected in (
        (
            OSError(28, "No space left on device", "state.pt"),
            "no space left on the disk for state.pt: make room, then resume",
        ),
        (
            MemoryError(),
            "out of memory in stage clusterer: start a new run with a lower clusterer.batch_size (now 8),"
            " or on another device",
        ),
        (RuntimeError("odd\nwith details"), "RuntimeError: odd"),
    ):
        status = raise_once(error)
        assert (status.state, status.error) == ("failed", expected)
        assert run.status() == status
        assert not (run.path / ".reserve").exists()
    assert raise_once(KeyboardInterrupt()).state == "cancelled"
    # the cause is gone: it goes on, and forgets the error
    status = runs.execute(run)
    assert (status.state, status.error) == ("done", None)


def test_missing_data_ends_as_failed(root: Path, config_path: Path, data_root: Path) -> None:
    run = runs.create(load_config(config_path, ["data.id=cifar10"]))
    status = runs.execute(run)
    assert status.state == "failed"
    assert "python -m sdviz download cifar10" in str(status.error)


def test_a_changed_configuration_is_refused(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(text.replace("batch_size: 4", "batch_size: 5"))
    with pytest.raises(RunError, match="was changed since the run was made"):
        runs.execute(run)
    # the device may change: another machine may go on
    (run.path / "config.yaml").write_text(text.replace("device: cpu", "device: auto"))
    assert runs.execute(run).state == "done"


def test_one_folder_has_one_process(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    with FileLock(run.path / ".lock"), pytest.raises(RunError, match="is running already"):
        runs.execute(run)
    assert run.status().state == "new"


def test_two_runs_do_not_touch_each_other(root: Path, config_path: Path) -> None:
    first, second = (runs.create(load_config(config_path)) for _ in range(2))
    before = tree(second.path)
    assert runs.execute(first).state == "done"
    assert tree(second.path) == before


def test_only_a_running_run_can_be_stopped(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    with pytest.raises(RunError, match="is not running: new"):
        runs.stop(run)
    (run.path / "status.json").write_text(
        json.dumps(asdict(replace(run.status(), state="running", pid=2**22 + 1)))
    )
    with pytest.raises(RunError, match="is not running: killed"):
        runs.stop(run)
