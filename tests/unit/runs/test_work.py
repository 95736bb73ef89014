from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
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
from sdviz.runs.work import _logged
from tests.stages import everything_in
from tests.tiny_runs import write_tiny_config


def test_what_the_package_says_stands_in_the_log_of_the_run_and_warnings_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    run = runs.create(load_config(write_tiny_config(tmp_path / "config")))
    logger = logging.getLogger("sdviz.pipeline.outliers")
    with _logged(run):
        logger.warning("the detector can learn %s", "that")
        logger.info("epoch 1 of 2")
        logger.debug("nobody asked")
    logger.warning("after the run")
    # each after "2000-01-01 00:00:00 "
    log = [line[20:] for line in (run.path / "log.txt").read_text().splitlines()]
    assert log[-2:] == ["warning: the detector can learn that", "epoch 1 of 2"]
    said = capsys.readouterr().err
    assert "warning: the detector can learn that\n" in said and "epoch" not in said


def test_what_a_killed_process_left_half_written_does_not_stop_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    run = runs.create(load_config(write_tiny_config(tmp_path, clusterer_steps=2, diffusion_steps=2)))
    (run.path / "bundle.partial" / "unet").mkdir(parents=True)
    (run.path / "bundle.partial" / "unet" / "config.json").write_text("{")
    (run.path / f".labels.{'0' * 32}.partial.parquet").write_bytes(b"PAR1")
    assert runs.execute(run).state == "done"
    assert not leftovers(run.path) and not (run.path / "bundle.partial").exists()


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
    before = everything_in(run.bundle)
    shown.clear()
    assert runs.execute(run, on_progress).state == "done"
    assert not shown
    assert everything_in(run.bundle) == before


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
    before = everything_in(second.path)
    assert runs.execute(first).state == "done"
    assert everything_in(second.path) == before


def test_a_run_waits_for_its_device_and_says_so(
    three: list[Run], occupied: Callable[..., None], sleeper: psutil.Process
) -> None:
    occupied(three[0])
    seen: list[Status] = []

    def on_wait(status: Status) -> None:
        seen.append(three[1].status())
        assert seen[-1] == status
        sleeper.kill()

    assert runs.execute(three[1], on_wait=on_wait).state == "done"
    (status,) = seen
    assert (status.state, status.queue_place, status.waits_for) == ("queued", 1, (three[0].name,))
    assert status.devices == ("cpu",)
    end = three[1].status()
    assert (end.queue_place, end.waits_for) == (None, ())
    assert set(end.stage_sec) == {"pseudo_labels", "clusterer", "diffusion", "bundle"}


def test_a_run_in_the_queue_can_be_stopped(three: list[Run], occupied: Callable[..., None]) -> None:
    occupied(three[0])
    status = runs.execute(three[1], on_wait=lambda status: os.kill(os.getpid(), signal.SIGTERM))
    assert (status.state, status.stage, status.queue_place, status.error) == ("cancelled", "", None, None)
    assert three[1].status() == status
    assert not (three[1].path / "stats.jsonl").exists()


def test_now_does_not_wait(three: list[Run], occupied: Callable[..., None]) -> None:
    occupied(three[0])
    waited: list[Status] = []
    assert runs.execute(three[1], on_wait=waited.append, now=True).state == "done"
    assert not waited
