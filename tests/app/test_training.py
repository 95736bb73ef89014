"""The training page as a person meets it: nothing there, runs of every state, read-only, remote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.numpy import save_file
from streamlit import config as streamlit_config
from streamlit.testing.v1 import AppTest

from sdviz import data, runs
from sdviz.config.reading import load_config
from sdviz.runs import Run, RunError
from sdviz.runs.status import identity, write_status
from sdviz.ui.guests import GuestError, refusal
from sdviz.ui.training import actions
from tests.patience import patience
from tests.tiny_bundle import save_tiny_bundle

ROOT = Path(__file__).resolve().parents[2]
TRAINING = "pages/7_Training.py"
Open = Callable[..., AppTest]
Read = Callable[[AppTest], list[dict[str, Any]]]
WORK = {"start", "stop", "resume", "delete"}


def make_run(state: str = "done", overrides: tuple[str, ...] = (), **fields: object) -> Run:
    """A run whose status says what is asked, without any work done."""
    run = runs.create(load_config(ROOT / "configs" / "shapes-tiny.yaml", ["device=cpu", *overrides]))
    write_status(run.status_file, replace(run.status(), state=state, **fields))  # type: ignore[arg-type]
    return run


def finish(run: Run) -> Run:
    """A bundle, measures, losses, outliers and a log, as a finished run has them."""
    save_tiny_bundle(run.bundle)
    (run.path / "diffusion.done.json").write_text(json.dumps({"metrics": {"diffusion_loss": 0.25, "a": "b"}}))
    lines = [{"stage": "diffusion", "step": n, "total": 200, "loss": 1 / n} for n in (20, 40, 60)]
    lines.append({"stage": "evaluation", "step": 1, "total": 1, "validation_auroc": 0.875})
    (run.path / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shard = run.path / "outliers" / "wrong" / "0000000.safetensors"
    shard.parent.mkdir(parents=True)
    pictures = np.full((12, 32, 32, 3), 90, np.uint8)
    save_file({"images": pictures, "target_labels": np.arange(12) % 10}, shard)
    run.log("stage <b>bundle</b>")
    return run


@pytest.fixture
def at_work() -> Iterator[Callable[..., Run]]:
    """Makes a run look at work, by a process that sleeps."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    me = identity(psutil.Process(process.pid))

    def occupy(run: Run, **fields: object) -> Run:
        common: dict[str, Any] = {"state": "running", "devices": ("cpu",), "submitted": 1.0, **me}
        write_status(run.status_file, replace(run.status(), **common | fields))
        return run

    yield occupy
    process.kill()
    process.wait()


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that stands in for Python in a launched process: it sleeps, like a long import."""
    script = tmp_path / "interpreter"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def text_of(at: AppTest) -> str:
    kinds = (at.markdown, at.caption, at.info, at.error, at.warning, at.code)
    return " | ".join(str(element.value) for kind in kinds for element in kind).replace("\\", "")


def enabled(at: AppTest) -> set[str]:
    return {button.key for button in at.button if button.key and not button.disabled}


def strip(component_data: list[dict[str, Any]]) -> list[tuple[str, str]]:
    (found,) = [one["stages"] for one in component_data if "stages" in one]
    return [(stage["name"], stage["state"]) for stage in found]


def new_run(open_app: Open) -> AppTest:
    return open_app(TRAINING, {"training": "New run", "profile": "shapes-tiny"})


# --- watch ----------------------------------------------------------------------------------------


def test_without_runs_the_page_offers_a_new_one_and_teaches(open_app: Open) -> None:
    at = open_app(TRAINING)
    assert at.selectbox(key="profile").value == "shapes-quick"
    assert "start" in enabled(at)
    watch = open_app(TRAINING, {"training": "Watch"})
    assert "There is no run yet" in text_of(watch)
    assert "python -m sdviz run configs/shapes-tiny.yaml" in text_of(watch)
    compare = open_app(TRAINING, {"training": "Compare"})
    assert "It takes two runs to compare" in text_of(compare)


def test_collapse_of_the_features_is_seen_beside_the_loss(open_app: Open) -> None:
    run = finish(make_run("done"))
    with (run.path / "stats.jsonl").open("a") as stream:
        for step, *values in ((0, 19.9, 0.63, 0.7), (50, 12.0, 0.6, 0.65), (100, 6.7, 0.5, 0.52)):
            quality = dict(zip(("effective_rank", "knn_accuracy", "knn_class_accuracy"), values, strict=True))
            for of in ({"stage": "detector"}, {"stage": "controls", "training": "noise"}):
                line = of | {"step": step, "total": 100}
                stream.write(json.dumps(line | quality) + "\n" + json.dumps(line | {"loss": 2.0}) + "\n")
    at = open_app(TRAINING)
    charts = [json.loads(one.proto.spec) for one in at.get("plotly_chart")]
    found = {one["layout"]["title"]["text"]: one["data"] for one in charts}
    assert "Controls, noise: loss 2.0000" in found
    assert not any(one.startswith("Controls, noise: effective") for one in found)
    (accuracy,) = [data for title, data in found.items() if title == "Detector: 20-NN accuracy 0.5000 / 0.5200"]
    assert [one["name"] for one in accuracy] == ["of clusters", "of classes"]
    assert "Detector: effective rank 6.7000" in found and "Detector: loss 2.0000" in found
    assert any("the features collapse" in one.value for one in at.caption)


def test_each_training_of_a_stage_has_its_own_curve(open_app: Open) -> None:
    run = finish(make_run("done"))
    with (run.path / "stats.jsonl").open("a") as stream:
        for name, first, loss in (("SCAN", 20, -0.5), ("self-labels", 60, 3.5)):
            for step in (first, first + 20):
                line = {"stage": "pseudo_labels", "training": name, "step": step, "total": 80, "loss": loss}
                stream.write(json.dumps(line) + "\n")
    charts = [json.loads(one.proto.spec) for one in open_app(TRAINING).get("plotly_chart")]
    found = {one["layout"]["title"]["text"]: [part["y"] for part in one["data"]] for one in charts}
    assert [
        len(found[f"Pseudo-labels, {name}"]) for name in ("SCAN: loss -0.5000", "self-labels: loss 3.5000")
    ] == [1, 1]


def test_a_done_run_shows_all_it_made(open_app: Open, component_data: Read) -> None:
    run = finish(make_run("done", stage="bundle", share=1.0, stage_sec={"diffusion": 61.0}))
    at = open_app(TRAINING)
    assert at.radio(key="run").value == run.name
    assert enabled(at) & {*WORK, "open_lab"} == {"open_lab", "delete"}
    data = component_data(at)
    assert ("Noise predictor", "done") in strip(data)
    assert ("Encoder", "waiting") in strip(data)
    (grid,) = [one for one in data if "cells" in one]
    assert len(grid["cells"]) == 10
    assert grid["cells"][0]["src"].startswith("data:image/png;base64,")
    (metric,) = at.metric
    assert (metric.label, metric.value) == ("Validation AUROC", "0.875")
    assert at.dataframe[0].value.to_dict("list") == {"measure": ["diffusion_loss"], "value": ["0.25"]}
    assert "stage <b>bundle</b>" in at.code[0].value


def test_a_failed_run_says_why_is_resumed_and_stopped(
    open_app: Open, interpreter: None, component_data: Read
) -> None:
    run = make_run("failed", stage="diffusion", share=0.4, error="out of *memory* in stage diffusion")
    at = open_app(TRAINING)
    assert at.error[0].value == "out of \\*memory\\* in stage diffusion"
    assert ("Noise predictor", "failed") in strip(component_data(at))
    assert "failed in diffusion" in at.radio(key="run").proto.captions[0]
    at.button(key="resume").click().run()
    assert not at.exception
    assert run.status().state == "queued"
    assert "Its process is starting" in text_of(at)
    at.button(key="stop").click().run()
    assert run.status().state == "cancelled"
    assert "Stopped on request" in text_of(at)


def test_a_run_of_another_machine_is_not_shown_as_running(open_app: Open) -> None:
    make_run("running", stage="diffusion", pid=2**22 + 1, process_started=1.0, host="gpu-box")
    at = open_app(TRAINING)
    assert "Not running: its process was on the machine gpu-box" in text_of(at)
    assert "resume" in enabled(at)


def test_a_damaged_folder_hides_nothing_and_can_be_deleted(open_app: Open) -> None:
    done, damaged = finish(make_run()), make_run()
    damaged.status_file.write_text("{")
    at = open_app(TRAINING)
    assert "status.json is damaged" in text_of(at)
    at.radio(key="run").set_value(done.name).run()
    assert not at.exception and not at.error
    assert "open_lab" in enabled(at)
    at.radio(key="run").set_value(damaged.name).run()
    at.button(key="delete").click().run()
    assert not at.exception
    assert [run.name for run in runs.list_runs()] == [done.name]
    assert at.radio(key="run").value == done.name


@pytest.mark.parametrize("broken", ["config.yaml", "stats.jsonl", "outliers/wrong/0000000.safetensors"])
def test_a_broken_file_of_a_run_does_not_break_the_page(open_app: Open, broken: str) -> None:
    run = finish(make_run())
    (run.path / broken).write_bytes(b"\x00\xff[not: this")
    assert "Log" in text_of(open_app(TRAINING))


def test_the_queue_is_visible(open_app: Open, at_work: Callable[..., Run]) -> None:
    first = at_work(make_run("new"))
    second = at_work(make_run("new"), state="queued", queue_place=2, waits_for=(first.name, "00009-x"))
    at = open_app(TRAINING)
    captions = at.radio(key="run").proto.captions
    assert "queued, 2nd in line" in captions[0]
    assert "running" in captions[1]
    assert f"Waits for cpu, 2nd in line, behind {first.name}, 00009-x" in text_of(at)
    assert "stop" in enabled(at)
    # its button stands in a popover that does not open; the function behind it refuses as well
    at.button(key="delete").click().run()
    assert f"{second.name} is queued: stop it first" in text_of(at)
    assert second.path.is_dir()
    # whoever starts another one is told
    other = new_run(open_app)
    assert f"At work now: {second.name}, {first.name}" in text_of(other)


def test_a_run_is_deleted_with_the_bundle_in_use(open_app: Open) -> None:
    run = finish(make_run())
    at = open_app(TRAINING, {"bundle": run.name})
    assert at.selectbox(key="bundle").value == run.name
    at.button(key="delete").click().run()
    assert not at.exception
    assert not run.path.exists()
    assert "There is no run yet" in text_of(at)


def test_the_bundle_opens_in_the_lab_at_once(open_app: Open, shipped: Callable[..., Path]) -> None:
    shipped()
    run = finish(make_run())
    at = open_app(TRAINING)
    assert at.selectbox(key="bundle").value == "tiny"
    at.button(key="open_lab").click().run()
    assert not at.exception
    assert at.title[0].value == "Outlier lab"
    assert at.selectbox(key="bundle").value == run.name


# --- a new run ------------------------------------------------------------------------------------


def test_start_writes_what_the_widgets_say_and_launches(open_app: Open, interpreter: None) -> None:
    at = new_run(open_app)
    settle(at)
    assert "on the disk" in text_of(at)
    at.number_input(key="shapes-tiny diffusion.total_steps").set_value(321)
    at.number_input(key="shapes-tiny data.limit").set_value(None)
    at.number_input(key="shapes-tiny diffusion.learning_rate").set_value(1e-3)
    at.selectbox(key="device shapes-tiny").set_value("cpu")
    at.text_input(key="title shapes-tiny").set_value("my: run")
    at.text_area(key="more shapes-tiny").set_value("# a remark\ndetector.zero_heads=false\n\nseed=7").run()
    assert not at.exception
    at.button(key="start").click().run()
    assert not at.exception
    (run,) = runs.list_runs()
    try:
        config = run.config()
        assert run.name == "00001-shapes-my-run"
        assert (config.profile, config.device, config.seed) == ("my: run", "cpu", 7)
        assert (config.diffusion.total_steps, config.data.limit) == (321, None)
        assert config.diffusion.learning_rate == 1e-3
        assert config.detector is not None and not config.detector.zero_heads
        untouched = load_config(ROOT / "configs" / "shapes-tiny.yaml")
        assert config.outliers == untouched.outliers and config.encoder == untouched.encoder
        # the page shows it, and its process is there
        assert at.radio(key="run").value == run.name
        assert run.status().state == "queued"
    finally:
        runs.stop(run)


def test_a_wrong_key_is_one_line_and_nothing_starts(open_app: Open) -> None:
    at = new_run(open_app)
    at.text_area(key="more shapes-tiny").set_value("diffusion.batchsize=3").run()
    assert not at.exception
    assert "unknown key; the nearest is diffusion.batch_size" in text_of(at)
    assert "start" not in enabled(at)
    at.text_area(key="more shapes-tiny").set_value("").run()
    assert "start" in enabled(at)


def settle(at: AppTest) -> None:
    """Asks again until estimate and check are there, as the page in a browser does."""
    for _ in range(int(patience(240))):
        waiting = ("Timing a few images", "Reading the images")
        if not any(one.value.startswith(waiting) for one in at.caption):
            return
        time.sleep(0.25)
        at.run()
    raise AssertionError("the estimate never came")


def test_images_that_are_not_there_are_named_before_the_start(open_app: Open) -> None:
    at = new_run(open_app)
    at.selectbox(key="images shapes-tiny").set_value("a folder of pictures …").run()
    at.text_input(key="path shapes-tiny folder:").set_value("/no/such/place").run()
    settle(at)
    assert not at.exception
    assert any("/no/such/place" in error.value.replace("\\", "") for error in at.error)


def test_what_is_in_the_images_is_shown_with_the_copies(
    open_app: Open, component_data: Read, tmp_path: Path
) -> None:
    folder, ood = tmp_path / "pets", tmp_path / "ood"
    images = data.load("shapes", "train", limit=9).images
    for place, rows in ((folder / "cat", range(4)), (folder / "dog", range(4, 7)), (ood, (2, 7, 8))):
        place.mkdir(parents=True)
        for row in rows:
            Image.fromarray(images[row]).save(place / f"{row}.png")
    shutil.copy(folder / "cat" / "0.png", folder / "cat" / "again.png")
    Image.fromarray(images[1]).save(folder / "cat" / "1.jpg", quality=90)
    (folder / "notes.txt").write_text("x")

    at = new_run(open_app)
    at.selectbox(key="images shapes-tiny").set_value("a folder of pictures …").run()
    at.text_area(key="more shapes-tiny").set_value(f"evaluation.far=['folder:{ood}']")
    at.text_input(key="path shapes-tiny folder:").set_value(str(folder)).run()
    settle(at)
    expected = "**9 pictures**: 2 classes, 1 exact copy, 1 near copy, 1 also in ood, 1 .txt passed over."
    assert expected in [one.value.replace("\\", "") for one in at.markdown]

    def shown() -> list[str]:
        (grid,) = [one for one in component_data(at) if one["row_names"][0]["text"] == "copy"]
        return [one["alt"].rpartition("/")[2].partition("@")[0] for one in grid["cells"]]

    assert sorted(shown()) == ["0.png", "again.png"]  # in the order of data.limit
    kinds = at.segmented_control(key="copies")
    for title, pair, about in (
        ("near copies: 1", ["1.png", "1.jpg"], "stay where they are"),
        ("also in ood: 1", ["2.png", "2.png"], "The run leaves them out of this set"),
    ):
        kinds.set_value(title).run()
        assert sorted(shown()) == sorted(pair) and about in text_of(at)
    # a picture that cannot be read would end the run
    (folder / "dog" / "broken.png").write_bytes(b"x")
    at.button(key="check_again").click().run()
    settle(at)
    assert any("dog/broken.png is not a picture" in one.value.replace("\\", "") for one in at.error)


def test_defects_are_offered_as_ood_sets(open_app: Open, tmp_path: Path) -> None:
    images = data.load("shapes", "train", limit=20).images
    for row, one in enumerate(images):
        place = tmp_path / "bottle" / ("test/crack" if row < 4 else "train/good")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(place / f"{row}.png")
    name = f"folder:{tmp_path}/bottle:defects"
    at = new_run(open_app)
    at.selectbox(key="images shapes-tiny").set_value("a folder of pictures …").run()
    at.text_input(key="path shapes-tiny folder:").set_value(f"{tmp_path}/bottle").run()
    settle(at)
    said = [one.value.replace("\\", "") for one in at.caption]
    assert any(f'evaluation.near=["{name}"]' in one for one in said)
    at.text_area(key="more shapes-tiny").set_value(f'evaluation.near=["{name}"]').run()
    settle(at)
    assert not at.exception and not at.error
    assert not any(f'near=["{name}"]' in one.value for one in at.caption)


def test_every_profile_has_a_form(open_app: Open) -> None:
    at = new_run(open_app)
    # not the largest: to time an image through a ViT-B takes a while
    for profile in ("shapes-quick", "cifar10-quick", "own-data", "shapes-diffusion"):
        at.selectbox(key="profile").set_value(profile).run(timeout=patience(300))
        assert not at.exception, profile
        assert f"{profile} diffusion.total_steps" in {widget.key for widget in at.number_input}


# --- who may --------------------------------------------------------------------------------------


def refused_by_everything(run: Run) -> None:
    config, before = run.config(), run.status()
    for act in (
        lambda: actions.start(config, now=False),
        lambda: actions.resume(run.name),
        lambda: actions.stop(run.name),
        lambda: actions.delete(run.name),
    ):
        with pytest.raises(GuestError, match="can only watch|Read-only"):
            act()
    assert [one.name for one in runs.list_runs()] == [run.name]
    assert run.status() == before


def test_read_only_watches_and_does_nothing(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finish(make_run("failed"))
    monkeypatch.setenv("SDVIZ_READ_ONLY", "1")
    at = open_app(TRAINING)
    assert "Read-only" in at.info[0].value
    assert not enabled(at) & WORK
    assert "open_lab" in enabled(at)
    assert "start" not in enabled(new_run(open_app))
    refused_by_everything(run)


def test_a_click_from_a_page_of_before_does_nothing(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finish(make_run("failed"))
    at = open_app(TRAINING)
    monkeypatch.setenv("SDVIZ_READ_ONLY", "1")
    at.button(key="delete").click().run()
    assert not at.exception
    assert run.path.is_dir()
    assert "Read-only" in at.error[0].value


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.5", "gpu-box", None])
def test_a_server_for_other_machines_launches_nothing_unless_allowed(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    run = finish(make_run("failed"))
    assert refusal() == ""
    before = streamlit_config.get_option("server.address")
    streamlit_config.set_option("server.address", address)
    try:
        refused_by_everything(run)
        assert not enabled(open_app(TRAINING)) & WORK
        monkeypatch.setenv("SDVIZ_ALLOW_REMOTE_RUNS", "1")
        assert refusal() == ""
        assert "resume" in enabled(open_app(TRAINING))
        monkeypatch.setenv("SDVIZ_READ_ONLY", "1")
        assert "Read-only" in refusal()
    finally:
        streamlit_config.set_option("server.address", before)


def test_others_may_start_listed_sets_only_and_no_form_is_shown_where_nothing_starts(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = new_run(open_app)
    assert "more shapes-tiny" in [area.key for area in at.text_area]
    assert any(option.endswith("…") for option in at.selectbox(key="images shapes-tiny").options)
    before = streamlit_config.get_option("server.address")
    streamlit_config.set_option("server.address", "0.0.0.0")
    try:
        assert not new_run(open_app).text_input and "start" not in enabled(new_run(open_app))
        monkeypatch.setenv("SDVIZ_ALLOW_REMOTE_RUNS", "1")
        at = new_run(open_app)
        assert not at.text_area and "start" in enabled(at)
        assert not any(option.endswith("…") for option in at.selectbox(key="images shapes-tiny").options)
    finally:
        streamlit_config.set_option("server.address", before)


@pytest.mark.parametrize("name", ["../x", "..", "00009-link", "/etc", ""])
def test_hostile_names_are_refused(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "x"
    outside.mkdir()
    (outside / "config.yaml").touch()
    os.symlink(outside, runs.runs_root() / "00009-link")
    for act in (actions.resume, actions.stop, actions.delete):
        with pytest.raises(RunError, match="is not a run in"):
            act(name)
    assert (outside / "config.yaml").is_file()


# --- compare --------------------------------------------------------------------------------------


def test_compare_shows_what_differs_and_what_was_measured(open_app: Open) -> None:
    finish(make_run("done", ("diffusion.total_steps=100",)))
    second = finish(make_run("done", ("diffusion.total_steps=200", "detector=null")))
    (second.path / "diffusion.done.json").write_text(json.dumps({"metrics": {"diffusion_loss": 0.5}}))
    at = open_app(TRAINING, {"training": "Compare"})
    differences, measures = (frame.value.to_dict("list") for frame in at.dataframe)
    rows = list(zip(*differences.values(), strict=True))
    assert ("diffusion.total_steps", "100", "200") in rows
    assert any(key == "detector.epochs" and b == "not set" for key, _, b in rows)
    assert measures == {"measure": ["diffusion_loss"], "A": ["0.25"], "B": ["0.5"], "B - A": ["+0.25"]}
    at.selectbox(key="a").set_value(second.name).run()
    assert "Nothing: the same configuration" in text_of(at)
