"""Every stage of a run meets an error, a NaN, too little memory and a full disk; then the run goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdviz import runs
from sdviz.bundle import Bundle, saving
from sdviz.config.reading import load_config
from sdviz.detection.score import SDScore
from sdviz.files import leftovers
from sdviz.nn.detector import Detector
from sdviz.nn.encoder import Encoder
from sdviz.nn.unet import NoisePredictor
from sdviz.pipeline import STAGES, baselines, evaluation, features, stage_names
from sdviz.runs import Run
from tests.full_disk import largest_file
from tests.tiny_runs import OTHER_COLOURS, write_pictures, write_tiny_detector_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
NAMES = tuple(name for name in STAGES if name != "clusterer")
# what each stage does most of its work with, and at which call of it the fault comes: well inside the stage
WORK: dict[str, tuple[Any, str, int]] = {
    "encoder": (Encoder, "forward", 4),
    "pseudo_labels": (Encoder, "forward", 8),
    "diffusion": (NoisePredictor, "forward", 4),
    "outliers": (NoisePredictor, "forward", 4),
    "sd_test": (NoisePredictor, "forward", 2),
    "backbone": (Encoder, "forward", 4),
    "detector": (Detector, "forward", 4),
    # not the network: what it said before is on disk
    "features": (features, "kept_features", 2),
    "controls": (Detector, "forward", 4),
    "baselines": (Encoder, "forward", 2),
    "tuning": (Encoder, "forward", 4),
    "baseline_scores": (baselines, "kept_features", 2),
    "evaluation": (SDScore, "score", 2),
    "generated": (NoisePredictor, "forward", 2),
    "bundle": (saving, "save_weights", 2),
}
# it asks no network that could answer NaN, but reads what others have answered
WORK_WITH_NUMBERS = WORK | {"evaluation": (evaluation, "load_arrays", 2)}
PAGE_BYTES = 4096
# the stages that a run has only where it is told so
MORE = (
    "detector.backbone={width: 4, simclr: null,"
    " pretraining: {data: 'folder:%s', total_steps: 6, batch_size: 8}}",
    "evaluation.sd_test={start_timestep: 80, guidance_scale: 3}",
    "evaluation.baselines=[{method: dn2, k: 1}, {method: multiclass_ad, epochs: 2, k: 1}, png_size]",
    "evaluation.tuning={trials: 2}",
    "diffusion.max_train_timestep=null",
    "bundle.generated={n_images: 4, num_inference_steps: 2}",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    path = write_tiny_detector_config(folder, diffusion_steps=12, epochs=2)
    taught = write_pictures(folder / "taught", 6, OTHER_COLOURS)
    config = load_config(path, [one % taught if "%s" in one else one for one in MORE])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDVIZ_RUNS", str(folder / "runs"))
        run = runs.create(config)
        assert runs.execute(run).state == "done"
        yield run
    torch.set_num_threads(threads)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def begun(whole: Run, stage: str, root: Path) -> Run:
    """A copy of the run in which this stage is the next."""
    assert stage_names(whole.config()) == NAMES
    run = Run(root / whole.name)
    shutil.copytree(whole.path, run.path)
    for name in NAMES[NAMES.index(stage) :]:
        (run.path / f"{name}.done.json").unlink()
        shutil.rmtree(run.path / name)
    shutil.rmtree(run.path / "packed")
    (run.path / "log.txt").unlink()
    return run


@contextmanager
def fault(work: tuple[Any, str, int], strike: Callable[[Any], Any]) -> Iterator[None]:
    """From the `at`-th call of `work` on, its result goes through `strike`, which may raise."""
    owner, name, at = work
    before, n_calls = getattr(owner, name), 0

    def struck(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        nonlocal n_calls
        n_calls += 1
        result = before(*args, **kwargs)
        return result if n_calls < at else strike(result)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, struck)
        yield
    assert n_calls >= at, "the fault was never met"


def finished(run: Run, stage: str) -> dict[str, bytes]:
    """All files of the stages before this one."""
    done = NAMES[: NAMES.index(stage)]
    files = [run.path / f"{name}.done.json" for name in done]
    files += [path for name in done for path in (run.path / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in sorted(files)}


def fails_and_goes_on(
    whole: Run, root: Path, stage: str, during: AbstractContextManager[Any], reason: str
) -> None:
    """The run fails in the stage for that reason, keeps what was finished, and ends as the undisturbed one."""
    run = begun(whole, stage, root)
    before = finished(run, stage)
    with during:
        status = runs.execute(run)
    assert (status.state, status.stage) == ("failed", stage)
    assert status.error is not None and reason.lower() in status.error.lower(), status.error
    assert "\n" not in status.error
    assert status == run.status()
    assert json.loads((run.path / "status.json").read_text())["error"] == status.error
    log = (run.path / "log.txt").read_text()
    assert f"stage {stage}\n" in log and "Traceback" in log
    assert finished(run, stage) == before
    assert not list(run.path.glob("*.done.json"))[len(NAMES[: NAMES.index(stage)]) :]
    assert not leftovers(run.path)
    assert not (run.path / ".reserve").exists()

    status = runs.execute(run)
    assert (status.state, status.error) == ("done", None)
    expected = Bundle.load(whole.bundle, device="cpu").manifest.files
    assert Bundle.load(run.bundle, device="cpu").manifest.files == expected


def test_a_stage_ends_at_the_steps_that_it_told_of(whole: Run) -> None:
    lines = [line for line in whole.stats() if "loss" in line]
    assert {line["stage"] for line in lines} == {
        "encoder",
        "pseudo_labels",
        "diffusion",
        "backbone",
        "detector",
        "controls",
    }
    for stage, last in {line["stage"]: line for line in lines}.items():
        assert (last["step"], last["share"]) == (last["total"], 1.0), stage


# --- an error, too little memory, NaN -----------------------------------------------------------------


def raising(error: BaseException) -> Callable[[Any], Any]:
    def strike(result: object) -> None:
        raise error

    return strike


@pytest.mark.parametrize("stage", NAMES)
def test_an_error(whole: Run, root: Path, stage: str) -> None:
    during = fault(WORK[stage], raising(RuntimeError("odd thing\nwith more to say")))
    fails_and_goes_on(whole, root, stage, during, "RuntimeError: odd thing")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()], ids=["gpu", "cpu"]
)
@pytest.mark.parametrize("stage", NAMES)
def test_too_little_memory(whole: Run, root: Path, stage: str, error: BaseException) -> None:
    reason = f"out of memory in stage {stage}: start a new run with a lower "
    fails_and_goes_on(whole, root, stage, fault(WORK[stage], raising(error)), reason)


def spoilt(result: Any) -> Any:  # noqa: ANN401
    """A copy with NaN in place of every number."""
    if isinstance(result, torch.Tensor):
        return result * float("nan")
    if isinstance(result, dict):
        return {key: spoilt(value) for key, value in result.items()}
    if isinstance(result, np.ndarray):
        return result * np.nan if result.dtype.kind == "f" else result
    return type(result)(*map(spoilt, result))


@pytest.mark.parametrize("stage", [name for name in NAMES if name != "bundle"])
def test_nan(whole: Run, root: Path, stage: str) -> None:
    fails_and_goes_on(whole, root, stage, fault(WORK_WITH_NUMBERS[stage], spoilt), "nan")


# --- a full disk --------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of its own of 4 MiB, with the runs' folder in it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        refusal = mounted.stderr.strip() if mounted.returncode else ""
    except OSError as error:
        refusal = str(error)
    if refusal:
        pytest.skip(f"no file system can be mounted here: {refusal}")
    monkeypatch.setenv("SDVIZ_RUNS", str(disk / "runs"))
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@contextmanager
def stage_of(name: str, around: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Runs the stage inside the context that `around` makes."""
    stage = STAGES[name]

    def within(workspace: Any) -> Any:  # noqa: ANN401
        with around():
            return stage.make(workspace)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STAGES, name, replace(stage, make=within))
        yield


@pytest.mark.parametrize("room", [0.0, 0.5], ids=["none", "half"])
@pytest.mark.parametrize("stage", NAMES)
def test_a_full_disk(whole: Run, small_disk: Path, stage: str, room: float) -> None:
    files = [p for p in (whole.path / stage).rglob("*") if p.is_file()]
    n_pages = sum(-(-p.stat().st_size // PAGE_BYTES) for p in files)
    ballast = small_disk / "ballast"

    @contextmanager
    def full() -> Iterator[None]:
        """Leaves no room, or room for half of what the stage writes, also after it has failed."""
        with ballast.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(PAGE_BYTES))
            except OSError:
                pass
            stream.truncate(stream.tell() // PAGE_BYTES * PAGE_BYTES - int(room * n_pages) * PAGE_BYTES)
        yield

    @contextmanager
    def during() -> Iterator[None]:
        with stage_of(stage, full):
            yield
        # what is in the way while the reason is written: everything
        ballast.unlink()

    fails_and_goes_on(whole, small_disk / "runs", stage, during(), "no space left on the disk")


@pytest.mark.parametrize("stage", NAMES)
def test_a_quota(whole: Run, root: Path, stage: str) -> None:
    """The largest file of the stage cannot be written whole."""
    largest = max(p.stat().st_size for p in (whole.path / stage).rglob("*") if p.is_file())
    during = stage_of(stage, lambda: largest_file(largest * 2 // 3))
    fails_and_goes_on(whole, root, stage, during, "no space left on the disk")
