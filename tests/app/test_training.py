"""The training page as a person meets it: nothing there, runs of every state, read-only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from sdviz import runs
from sdviz.config import load_config
from sdviz.runs import Run
from sdviz.ui import training_actions
from tests.tiny_bundle import save_tiny_bundle
from tests.tiny_runs import write_tiny_config

TRAINING = "pages/7_Training.py"
Open = Callable[..., AppTest]


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Makes a run whose files say what is asked, without any work done."""
    config = write_tiny_config(tmp_path)

    def make(state: str = "cancelled", overrides: tuple[str, ...] = (), **fields: object) -> Run:
        run = runs.create(load_config(config, overrides))
        tree = json.loads(run.status_file.read_text()) | {"state": state} | fields
        run.status_file.write_text(json.dumps(tree))
        return run

    return make


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs whose process would have been started."""
    names: list[str] = []
    monkeypatch.setattr(runs, "launch", lambda run, now=False: names.append(run.name))
    return names


def shown(at: AppTest) -> str:
    parts = [*at.markdown, *at.caption, *at.info, *at.error, *at.warning, *at.code]
    return "\n".join(str(part.value) for part in parts)


def button(at: AppTest, label: str) -> object:
    return next(one for one in at.button if one.label == label)


def test_without_a_run_it_offers_to_start_one(open_app: Open) -> None:
    at = open_app(TRAINING)
    assert next(one for one in at.get("button_group")).value == "New run"
    assert [one.label for one in at.selectbox][:2] == ["Profile", "Images"]
    assert "shapes-quick" in at.selectbox[0].options
    assert any(one.label.startswith("Start") for one in at.button)


def test_an_empty_watch_list_teaches(open_app: Open) -> None:
    at = open_app(TRAINING, {"training": "Watch"})
    assert "There is no run yet" in shown(at)
    assert "python -m sdviz run" in shown(at)


def test_start_writes_the_configuration_and_launches(open_app: Open, launched: list[str]) -> None:
    at = open_app(TRAINING)
    at.selectbox(key="profile").set_value("shapes-tiny").run()
    next(one for one in at.button if one.label.startswith("Start")).click().run()
    assert not at.exception
    (run,) = runs.list_runs()
    assert launched == [run.name]
    assert run.config().data.limit == 400
    assert run.name in shown(at).replace("\\", "")


def test_a_done_run_is_opened_in_the_lab(open_app: Open, make_run: Callable[..., Run]) -> None:
    run = make_run("done", stage="bundle")
    save_tiny_bundle(run.bundle)
    at = open_app(TRAINING)
    assert at.radio(key="run").value == run.name
    at.button(key="open_lab").click().run()
    assert not at.exception
    assert at.session_state["bundle"] is not None


def test_a_failed_run_says_why_and_can_be_resumed(
    open_app: Open, make_run: Callable[..., Run], launched: list[str]
) -> None:
    run = make_run("failed", stage="diffusion", error="the loss became NaN: lower diffusion.learning_rate")
    at = open_app(TRAINING)
    assert "the loss became NaN" in shown(at).replace("\\", "")
    at.button(key="resume").click().run()
    assert launched == [run.name]


def test_a_damaged_folder_does_not_hide_the_others(open_app: Open, make_run: Callable[..., Run]) -> None:
    good, bad = make_run("done"), make_run()
    bad.status_file.write_text("{")
    at = open_app(TRAINING)
    assert at.radio(key="run").options == [one.replace("_", "\\_") for one in (bad.name, good.name)]
    assert "damaged" in shown(at)
    at.radio(key="run").set_value(good.name).run()
    assert not at.exception
    assert not at.error


def test_delete_asks_first(open_app: Open, make_run: Callable[..., Run]) -> None:
    run = make_run("cancelled", stage="diffusion")
    at = open_app(TRAINING)
    assert run.path.is_dir()
    at.button(key="delete").click().run()
    assert not at.exception
    assert not run.path.exists()
    assert runs.list_runs() == []


def test_two_runs_are_compared(open_app: Open, make_run: Callable[..., Run]) -> None:
    make_run("done"), make_run("done", ("diffusion.batch_size=8",))
    at = open_app(TRAINING, {"training": "Compare"})
    assert not at.exception
    tables = [frame.value for frame in at.dataframe] + [table.value for table in at.table]
    assert any("batch" in str(table) for table in tables) or "batch" in shown(at)


@pytest.mark.parametrize("key", ["stop", "resume", "delete"])
def test_read_only_shows_and_does_nothing(
    open_app: Open,
    make_run: Callable[..., Run],
    launched: list[str],
    monkeypatch: pytest.MonkeyPatch,
    key: str,
) -> None:
    monkeypatch.setenv("SDVIZ_READ_ONLY", "1")
    run = make_run("cancelled")
    at = open_app(TRAINING)
    assert "Read-only" in shown(at)
    assert at.button(key=key).disabled
    # whatever a page shows, the functions refuse
    with pytest.raises(runs.RunError, match="Read-only"):
        getattr(training_actions, key)(run.name)
    with pytest.raises(runs.RunError, match="Read-only"):
        training_actions.start(run.config())
    assert launched == []
    assert run.path.is_dir()


def test_a_server_for_other_machines_starts_nothing_unless_told(
    make_run: Callable[..., Run], launched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("cancelled")
    monkeypatch.setattr(training_actions.st, "get_option", lambda name: "0.0.0.0")
    with pytest.raises(runs.RunError, match="answers other machines"):
        training_actions.resume(run.name)
    monkeypatch.setenv("SDVIZ_ALLOW_REMOTE_RUNS", "1")
    training_actions.resume(run.name)
    assert launched == [run.name]
